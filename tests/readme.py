"""Runs every C, Python and Elixir snippet of README.md as it stands there, and fails if one does.

It uses what the tests before it have built: target/release, the virtual environment, and the Elixir project.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(language: str, code: str, scratch: Path) -> None:
    if language == "c":
        source, program = scratch / "snippet.c", scratch / "snippet"
        source.write_text(code)
        link = [f"-L{RELEASE}", "-lsss", f"-Wl,-rpath,{RELEASE}"]
        subprocess.run(["gcc", *STRICT, f"-I{ROOT / 'include'}", source, "-o", program, *link], check=True)
        subprocess.run([program], check=True)
    elif language == "python":
        script = scratch / "snippet.py"
        script.write_text(code)
        subprocess.run([ROOT / ".venv" / "bin" / "python", script], cwd=scratch, check=True)
    else:
        script = scratch / "snippet.exs"
        script.write_text(code)
        environment = os.environ | {"MIX_ENV": "test"}
        subprocess.run(["mix", "run", script], cwd=ROOT / "bindings" / "elixir", env=environment, check=True)


def main() -> int:
    snippets = re.findall(
        r"^```(c|python|elixir)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    languages = sorted({language for language, _ in snippets})
    if languages != ["c", "elixir", "python"]:
        print(f"README.md has snippets in {languages} only")
        return 1
    for language, code in snippets:
        print(f"README.md: {language}", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            run(language, code, Path(scratch))
    print(f"{len(snippets)} snippets ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
