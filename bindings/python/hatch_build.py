"""Compiles the crate with cargo for the wheel, and adds the crate's sources to the sdist.

Writes into the source tree only for an editable installation, where the library has to be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "session_server_store"
LIBRARY = "libsss.dylib" if sys.platform == "darwin" else "libsss.so"
SOURCE_VARIABLE = "SESSION_SERVER_STORE_SOURCE"
# A library that was built elsewhere, as packaging/dist.py does.
BUILT_VARIABLE = "SESSION_SERVER_STORE_BUILT"
# As in the Makefile.
C_LIBRARY = ["--no-default-features", "--features", "capi,lmdb,tls", "--crate-type", "cdylib,staticlib"]


class BuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        crate = self.find_crate()
        if self.target_name == "sdist":
            if crate != Path(self.root, "rust"):
                build_data["force_include"][str(self.package(crate))] = "rust"
            return

        built = os.environ.get(BUILT_VARIABLE)
        library = Path(built) if built else self.compile(crate)
        platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if version == "editable":
            # Replaces the file, because the old library may be in use.
            installed = Path(self.root, "src", PACKAGE, LIBRARY)
            shutil.copy(library, installed.with_suffix(".new"))
            installed.with_suffix(".new").replace(installed)
        else:
            build_data["force_include"][str(library)] = f"{PACKAGE}/{LIBRARY}"

    def find_crate(self) -> Path:
        candidates = list(self.candidate_folders())
        for folder in candidates:
            manifest = folder / "Cargo.toml"
            if manifest.is_file() and re.search(
                r'^name = "session-server-store"$', manifest.read_text("utf-8"), re.MULTILINE
            ):
                return folder.resolve()
        self.app.abort(
            "The Rust crate of this package was not found. Searched: "
            + ", ".join(map(str, candidates))
            + f". Install from a complete clone or an sdist, or set {SOURCE_VARIABLE} to the crate's folder."
        )
        raise SystemExit(1)  # abort does not return

    def candidate_folders(self) -> Iterator[Path]:
        named = os.environ.get(SOURCE_VARIABLE)
        if named:
            yield Path(named)
            return
        root = Path(self.root)
        yield root / "rust"  # in an sdist
        yield root.parents[1]  # in the repository
        # pip before 21.3 builds in a copy of this folder. The original is where pip was called.
        called_in = Path(os.environ.get("PWD", os.curdir))
        for original in (called_in, called_in / "bindings" / "python"):
            pyproject = original / "pyproject.toml"
            if pyproject.is_file() and pyproject.read_bytes() == (root / "pyproject.toml").read_bytes():
                yield original.resolve().parents[1]

    def package(self, crate: Path) -> Path:
        """The crate as cargo publishes it, unpacked: its manifest names no missing tests."""
        target = crate / "target" / "sdist"
        self.cargo(crate, "package", "--locked", "--no-verify", "--allow-dirty", "--quiet", f"--target-dir={target}")
        (archive,) = (target / "package").glob("*.crate")
        folder = target / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        with tarfile.open(archive) as files:
            files.extractall(folder)  # made by cargo just now
        return folder / archive.stem

    def cargo(self, crate: Path, *arguments: str) -> str:
        rustup = Path.home() / ".cargo" / "bin"  # in PATH only after the next login
        cargo = os.environ.get("CARGO") or shutil.which("cargo") or shutil.which("cargo", path=rustup)
        if not cargo:
            self.app.abort("This package is built with cargo, which was not found. Install Rust: https://rustup.rs.")
        command = [str(cargo), *arguments]
        done = subprocess.run(command, cwd=crate, stdout=subprocess.PIPE, encoding="utf-8", check=False)
        if done.returncode:
            self.app.abort(f"{' '.join(command)} failed in {crate}", code=done.returncode)
        return done.stdout

    def compile(self, crate: Path) -> Path:
        # As `make library` does, so that one build serves both in a clone.
        target = os.environ.get("CARGO_TARGET_DIR") or crate / "target"
        options = ["--release", "--locked", "--lib", *C_LIBRARY, "--message-format=json-render-diagnostics"]
        for line in self.cargo(crate, "rustc", *options, f"--target-dir={target}").splitlines():
            message = json.loads(line)
            if message["reason"] == "compiler-artifact" and "cdylib" in message["target"]["crate_types"]:
                for name in message["filenames"]:
                    if Path(name).name == LIBRARY:
                        return Path(name)
        self.app.abort(f"cargo built no {LIBRARY} in {crate}")
        raise SystemExit(1)
