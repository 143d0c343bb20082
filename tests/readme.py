"""Runs every snippet and shell command of README.md and docs/c.md as written there, and fails if
one fails. The Rust ones are tests of the crate: see src/lib.rs.

Two things are replaced: the directory of the store and the port of the servers. The script needs
what the tests before it have built: target/release, the virtual environment and the Elixir project.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target" / "release"
BIN = ROOT / ".venv" / "bin"
STATE = "/var/lib/app"
ADDRESS = "127.0.0.1:8000"
HANG_SECONDS = 30
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
# The id of the session alone, beside malformed cookies of other applications, and behind an id that
# is unknown.
COOKIES = ("sid={}", 'theme="dark; a,b=c; sid={}', f"sid={'A' * 128}; sid={{}}")


def run(language: str, code: str, scratch: Path) -> None:
    if language == "c":
        source, program = scratch / "snippet.c", scratch / "snippet"
        source.write_text(code)
        link = [f"-L{RELEASE}", "-lsss", f"-Wl,-rpath,{RELEASE}"]
        subprocess.run(["gcc", *STRICT, f"-I{ROOT / 'include'}", source, "-o", program, *link], check=True)
        subprocess.run([program], check=True)
    elif language == "python":
        named = re.match(r"# (\w+\.py)\n", code)
        script = scratch / (named[1] if named else "snippet.py")
        script.write_text(code)
        subprocess.run([BIN / "python", script], cwd=scratch, check=True)
    elif language == "sh":
        for line in code.splitlines():
            command(shlex.split(line, comments=True), scratch)
    else:
        script = scratch / "snippet.exs"
        script.write_text(code)
        environment = os.environ | {"MIX_ENV": "test"}
        subprocess.run(["mix", "run", script], cwd=ROOT / "bindings" / "elixir", env=environment, check=True)


def command(words: list[str], scratch: Path) -> None:
    """Runs a command in the folder of app.py, which an earlier snippet wrote."""
    path = f"{BIN}{os.pathsep}{RELEASE}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which(words[0], path=path)
    if program is None and words[0] == "uwsgi":  # tests/setup.sh may fail to build it
        print(f"SKIPPED README.md: {words[0]} is not installed")
        return
    if program is None:
        raise SystemExit(f"README.md calls {words[0]}, which is not installed")
    environment = os.environ | {"PATH": path, "HOME": str(scratch)}
    if not any(ADDRESS in word for word in words):
        subprocess.run([program, *words[1:]], cwd=scratch, env=environment, check=True)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [word.replace(ADDRESS, address) for word in words]
    log = scratch / f"{words[0]}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [program, *words[1:]], cwd=scratch, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        expect(server, address, "", "not logged in")
        sid = in_app("print(sessions.create({'user': 'alice'}))", scratch)
        for cookies in COOKIES:
            expect(server, address, cookies.format(sid), "alice")
        visitor = in_app("print(sessions.create({'cart': 3}))", scratch)
        expect(server, address, f"sid={visitor}", "not logged in")
        in_app(f"assert sessions.delete({sid!r})", scratch)
        for cookies in COOKIES:
            expect(server, address, cookies.format(sid), "not logged in")
        server.terminate()
        assert server.wait(timeout=HANG_SECONDS) == 0, f"{words[0]} ended with {server.returncode}"
    except BaseException:
        print(log.read_text(errors="replace"))
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def in_app(code: str, scratch: Path) -> str:
    """What the code prints in another process that has the application's store open."""
    done = subprocess.run(
        [BIN / "python", "-c", f"from app import sessions\n{code}"],
        cwd=scratch,
        check=True,
        text=True,
        capture_output=True,
    )
    return done.stdout.strip()


def expect(server: subprocess.Popen[bytes], address: str, cookies: str, answer: str) -> None:
    """Asks often enough for several workers to answer."""
    end = time.monotonic() + HANG_SECONDS
    request = urllib.request.Request(f"http://{address}/", headers={"Cookie": cookies} if cookies else {})
    for _ in range(20):
        while True:
            try:
                with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
                    body = response.read().decode()
                break
            except urllib.error.URLError:  # the server is starting
                if server.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.1)
        if body != answer:
            raise SystemExit(f"expected {answer!r}, got {body!r}")


def main() -> int:
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "c.md").read_text()
    snippets = re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    snippets = [(language, code) for language, code in snippets if language not in ("rust", "text")]
    languages = sorted({language for language, _ in snippets})
    if languages != ["c", "elixir", "python", "sh"]:
        print(f"README.md has snippets in {languages}")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch, "state")
        state.mkdir()
        for language, code in snippets:
            print(f"README.md: {language}", flush=True)
            run(language, code.replace(STATE, str(state)), Path(scratch))
    print(f"{len(snippets)} snippets ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
