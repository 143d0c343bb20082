"""Builds the site of the documents in target/site, with a search. Fails on a link that leads
nowhere.

The pages are docs/, the READMEs, and references made from sss.h, the Python package and the Elixir
modules. They link to each other as files of the repository, so that they can be read there too;
this script turns the links into those of the site.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import header_manual

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "target" / "site-pages"
TOOLS = ROOT / "target" / "site-tools"
REQUIREMENTS = ROOT / "packaging" / "requirements-docs.txt"
REPOSITORY = re.findall(r'^repository = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]
# Files of the repository outside of docs/, and what they are called on the site.
OTHERS = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "reporting.md",
    "bindings/elixir/README.md": "elixir.md",
    "bindings/python/README.md": "python.md",
    "tests/README.md": "tests.md",
    "tests/conformance/README.md": "conformance.md",
    "include/sss.h": "c-reference.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]*)(#[^)\s]*)?(?=\))")


def places() -> dict[str, str]:
    """From a file of the repository to its page."""
    found = dict(OTHERS)
    for folder, prefix in (("docs", ""), ("bindings/elixir/guides", "elixir-")):
        for path in (ROOT / folder).glob("*.*"):
            found[f"{folder}/{path.name}"] = prefix + path.name
    return found


def linked(text: str, source: str, to: dict[str, str]) -> str:
    def replaced(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if target in to:
            return to[target] + (link[2] or "")
        if not (ROOT / target).exists():
            raise SystemExit(f"site: {source} links to {link[1]}, which does not exist")
        return f"{REPOSITORY}/blob/main/{target}"

    # Not in code.
    parts = re.split(r"(^```.*?^```|`[^`\n]*`)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("`") else LINK.sub(replaced, part) for part in parts)


def c_reference() -> str:
    header = header_manual.parse(header_manual.HEADER.read_text())
    lines = [
        "# C reference",
        "",
        "What `sss.h` says, and the manual page sss.h(3).",
        "",
        *markdown(header.introduction),
    ]
    for title, kinds in {"Functions": ["function"], "Types": ["typedef", "struct"], "Constants": ["macro"]}.items():
        lines += [f"## {title}", ""]
        for item in header.items:
            if item.kind in kinds:
                lines += [f"### `{item.name}`", "", "```c", item.code, "```", "", *markdown(item.comment)]
    return "\n".join(lines)


def markdown(comment: str) -> list[str]:
    lines: list[str] = []
    for kind, body in header_manual.blocks(comment):
        escaped = re.sub(r"([*_<|])", r"\\\1", body)
        lines += {"text": [escaped], "list": [f"- {escaped}"], "code": ["```text", body, "```"]}[kind]
        lines.append("")
    return lines


def elixir_reference() -> str:
    """Of the modules that `mix compile` has left, or a word on where they are documented."""
    beams = sorted((ROOT / "bindings" / "elixir" / "_build").glob("*/lib/session_server_store/ebin"))
    if not beams or not shutil.which("elixir"):
        return "# Elixir reference\n\nBuilt without Elixir: `h SessionServerStore.Store` in IEx shows the functions.\n"
    script = ROOT / "packaging" / "elixir_reference.exs"
    return subprocess.run(["elixir", script, beams[0]], check=True, capture_output=True, text=True).stdout


def assemble() -> None:
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    to = places()
    for source, page in to.items():
        if source == "include/sss.h":
            (PAGES / page).write_text(c_reference())
        elif page.endswith(".md"):
            (PAGES / page).write_text(linked((ROOT / source).read_text(), source, to))
        else:
            shutil.copy(ROOT / source, PAGES / page)
    (PAGES / "elixir-reference.md").write_text(elixir_reference())
    reference = "# Python reference\n\n::: session_server_store\n    options:\n      members_order: source\n"
    (PAGES / "python-reference.md").write_text(reference)


def main() -> None:
    if (
        not (TOOLS / "requirements.txt").exists()
        or (TOOLS / "requirements.txt").read_text() != REQUIREMENTS.read_text()
    ):
        subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS], check=True)
        pip = [str(TOOLS / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        shutil.copy(REQUIREMENTS, TOOLS / "requirements.txt")
    assemble()
    # A page that the navigation names and the repository does not have, a link and an anchor that
    # lead nowhere: all are errors. Not --quiet, which would hide them from --strict.
    build = [str(TOOLS / "bin" / "mkdocs"), "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}")
    print(f"{len(list(PAGES.glob('*.md')))} pages in target/site")


if __name__ == "__main__":
    main()
