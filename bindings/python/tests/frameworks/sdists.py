"""Fetches the sources of a framework from the package index, for the tests that they contain."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Kept between runs, so that a second run needs no network.
CACHE = Path(__file__).resolve().parents[4] / ".venv" / "sdists"


def sources(name: str) -> Path:
    """The unpacked sdist of the installed version of a package."""
    wanted = version(name)
    folder = CACHE / f"{name}-{wanted}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        arguments = ["--no-deps", "--no-binary", name, "--dest", str(CACHE), f"{name}=={wanted}"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        (archive,) = CACHE.glob(f"{name.replace('-', '[-_]')}-{wanted}.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(CACHE / "unpacking", filter="data")
        (unpacked,) = (CACHE / "unpacking").iterdir()
        unpacked.rename(folder)
    return folder
