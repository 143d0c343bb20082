"""The ABI that a header describes, as libabigail sees it.

libabigail finds no functions in the debug information of Rust, so the header's functions are
compiled as C stubs. `abi.py record` writes tests/abi/MAJOR.MINOR/ for the version of the header;
tests/packages/test_abi.py compares. Needs gcc and abigail-tools.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import header_manual

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "abi"


def version(header: Path) -> str:
    """MAJOR.MINOR"""
    found = re.search(r'#define SSS_VERSION_STRING "(\d+\.\d+)\.', header.read_text())
    assert found, f"{header} has no version"
    return found[1]


def stubs(header: str) -> str:
    """A C file that defines each function of the header."""
    lines = ["#include <sss.h>", "#pragma GCC visibility push(default)"]
    for function in header_manual.parse(header).of_kind("function"):
        signature = function.code.rstrip(";")
        result = "" if signature.startswith("void ") else "return 0;"
        lines.append(f"{signature} {{ {result} }}")
    return "\n".join(lines) + "\n"


def describe(header: Path, out: Path) -> None:
    """Writes what abidw says of the header's functions and types."""
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch, "stubs.c"), Path(scratch, "libsss.so")
        shutil.copy(header, Path(scratch, "sss.h"))
        source.write_text(stubs(header.read_text()))
        compiler = ["gcc", "-std=c99", "-g", "-O0", "-shared", "-fPIC", "-I.", "-o", library.name, source.name]
        subprocess.run(compiler, cwd=scratch, check=True)
        # Without what depends on the folder or the machine.
        options = ["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--type-id-style", "hash"]
        subprocess.run(["abidw", *options, "--out-file", str(out), library.name], cwd=scratch, check=True)


def compare(old: Path, new: Path) -> str:
    """What has changed in a way that old programs notice; empty if nothing has."""
    command = ["abidiff", "--no-added-syms", str(old), str(new)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    # The bits of the status: 1 and 2 errors, 4 changed, 8 changed incompatibly.
    return done.stdout + done.stderr if done.returncode else ""


if __name__ == "__main__":
    header = ROOT / "include" / "sss.h"
    folder = RECORDED / version(header)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(header, folder)
    describe(header, folder / "libsss.abi")
    print(folder.relative_to(ROOT))
