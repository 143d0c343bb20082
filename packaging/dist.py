"""Makes everything that is published, in dist/: `dist.py [--work DIRECTORY] [--out DIRECTORY]`.

All of it is built from the source tarball, with cargo-zigbuild for glibc 2.17, so that it runs on
every Linux with that C library or a later one. The same sources give the same bytes: times are
those of the last commit, and no path of this machine is left in the files. Fails if a tool of an
ecosystem finds fault with its package. Needs cargo, binutils, dpkg-dev and lintian; the other tools
come from PyPI. Publishes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import deb
import third_party

ROOT = Path(__file__).resolve().parents[1]
GLIBC = "2.17"
TRIPLE = "x86_64-unknown-linux-gnu"
VERSION = re.findall(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]
NIF_VERSION = "2.15"
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY-NOTICES")


class Build:
    """The folders and the environment of one run."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out
        self.source = work / f"libsss-{VERSION}"
        self.cargo = work / "cargo"
        self.epoch = epoch()
        tools = work.parent / "dist-tools"
        self.tools = tools / "bin"
        crates = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "registry" / "src"
        renamed = {crates: "/crates", self.source: "/libsss", work: "/work"}
        self.environment = os.environ | {
            "SOURCE_DATE_EPOCH": str(self.epoch),
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "RUSTFLAGS": " ".join(f"--remap-path-prefix={path}={name}" for path, name in reversed(renamed.items())),
            "CFLAGS": " ".join(f"-ffile-prefix-map={path}={name}" for path, name in renamed.items()),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        wanted = (ROOT / "packaging" / "requirements.txt").read_text()
        installed = tools / "requirements.txt"
        if not installed.exists() or installed.read_text() != wanted:
            say("installing the tools")
            subprocess.run([sys.executable, "-m", "venv", "--clear", tools], check=True)
            pip = [str(self.tools / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "-r", str(ROOT / "packaging" / "requirements.txt")], check=True)
            installed.write_text(wanted)

    def run(self, *command: str | Path, cwd: Path | None = None, **more: str) -> None:
        subprocess.run(command, cwd=cwd or self.source, env=self.environment | more, check=True)

    def tar(self, name: str, folder: Path, files: Iterable[Path]) -> Path:
        """A tarball of files below the folder, owned by root and of the time of the commit."""
        path = self.out / name
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for file in sorted(files):
                entry = archive.gettarinfo(file, arcname=str(file.relative_to(folder)))
                entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = self.epoch, 0, 0, "root", "root"
                entry.mode = 0o755 if entry.mode & 0o100 else 0o644
                if entry.isfile():
                    with file.open("rb") as content:
                        archive.addfile(entry, content)
                else:
                    archive.addfile(entry)
        with path.open("wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as compressed:
            compressed.write(raw.getvalue())
        return path


def unpack(archive: Path, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xf", archive, "-C", place], check=True)


def say(text: str) -> None:
    print(f"dist: {text}", flush=True)


def epoch() -> int:
    """The time of the last commit; in a source tarball, of its files."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    if (ROOT / ".git").exists():
        log = ["git", "log", "-1", "--format=%ct"]
        return int(subprocess.run(log, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    return int((ROOT / "Cargo.toml").stat().st_mtime)


def sources() -> list[Path]:
    """Git's files; of a source tarball, all but what tools have made."""
    if (ROOT / ".git").exists():
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).exists()]
    made = {"target", "dist", ".venv", "_build", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not made & set(path.relative_to(ROOT).parts)]


def make_source(build: Build) -> None:
    say("source tarball")
    tree = build.work / "sources"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.rmtree(build.source, ignore_errors=True)
    for path in sources():
        copy = tree / build.source.name / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
    tarball = build.tar(f"libsss-{VERSION}.tar.gz", tree, (path for path in tree.rglob("*") if path.is_file()))
    unpack(tarball, build.work)


def make_libraries(build: Build) -> None:
    say(f"libraries and command for glibc {GLIBC}")
    build.cargo.mkdir(parents=True, exist_ok=True)
    (build.source / "target").symlink_to(build.cargo)
    # Cargo goes by times, which are the same for all sources of a commit.
    for path in build.cargo.glob("**/.fingerprint/*"):
        if path.name.startswith(("session-server-store-", "sss_nif-")):
            shutil.rmtree(path)
    build.run("make", "--silent", "all", "CARGO=cargo-zigbuild", f"TARGET={TRIPLE}.{GLIBC}")


def install(build: Build, destination: Path, **directories: str) -> None:
    shutil.rmtree(destination, ignore_errors=True)
    variables = [f"{name}={value}" for name, value in directories.items()]
    build.run("make", "--silent", "install", f"TARGET={TRIPLE}.{GLIBC}", f"DESTDIR={destination}", *variables)


def make_binary(build: Build) -> None:
    say("binary tarball")
    name = f"libsss-{VERSION}-{TRIPLE}"
    place = build.work / "binary"
    install(build, place, PREFIX=f"/{name}")
    files = [path for path in place.rglob("*") if not path.is_dir() or path.is_symlink()]
    build.tar(f"{name}.tar.gz", place, files)


def make_crate(build: Build) -> Path:
    say("crate")
    build.run("cargo", "package", "--locked", "--no-verify", "--quiet", "--allow-dirty", "--target-dir", build.cargo)
    crate = build.cargo / "package" / f"session-server-store-{VERSION}.crate"
    shutil.copy(crate, build.out)
    return crate


def make_python(build: Build) -> None:
    say("Python: sdist and wheel")
    python, project = build.tools / "python", build.source / "bindings" / "python"
    build.run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", build.out, cwd=project)
    unpacked = build.work / "sdist"
    shutil.rmtree(unpacked, ignore_errors=True)
    sdist = build.out / f"session_server_store-{VERSION}.tar.gz"
    unpack(sdist, unpacked)
    built = build.source / "target" / TRIPLE / "release" / "libsss.so"
    wheels = build.work / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    build.run(
        *(python, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels),
        cwd=unpacked / f"session_server_store-{VERSION}",
        SESSION_SERVER_STORE_BUILT=str(built),
    )
    (wheel,) = wheels.iterdir()
    # Gives it the tag of the oldest C library that it runs with.
    build.run("auditwheel", "repair", "--wheel-dir", build.out, wheel, cwd=build.work)
    (repaired,) = build.out.glob("*.whl")
    expected = f"manylinux_{GLIBC.replace('.', '_')}_x86_64"
    if expected not in repaired.name:
        raise SystemExit(f"dist: the wheel needs a later C library than {GLIBC}: {repaired.name}")
    build.run("twine", "check", "--strict", sdist, repaired, cwd=build.out)


def make_elixir(build: Build, crate: Path) -> None:
    say("Elixir: package and NIF")
    name = f"session_server_store-{VERSION}-hex"
    package = build.work / "hex" / name
    shutil.rmtree(package.parent, ignore_errors=True)
    listed = re.search(r"files:\s+~w\((.*?)\)", (build.source / "bindings/elixir/mix.exs").read_text(), re.DOTALL)
    assert listed, "mix.exs lists its files"
    for entry in listed[1].split():
        for folder in (build.source / "bindings" / "elixir", build.source):
            if (folder / entry).is_dir():
                shutil.copytree(folder / entry, package / entry, ignore=shutil.ignore_patterns("target"))
            elif (folder / entry).is_file():
                shutil.copy2(folder / entry, package / entry)
            else:
                continue
            break
        else:
            raise SystemExit(f"dist: mix.exs lists {entry}, which does not exist")
    # The NIF's crate must not reach outside of the package. Below its manifest, because cargo would
    # put the path of a crate from elsewhere into the symbols.
    manifest = package / "native" / "sss_nif" / "Cargo.toml"
    unpack(crate, manifest.parent)
    (manifest.parent / f"session-server-store-{VERSION}").rename(manifest.parent / "session-server-store")
    text = manifest.read_text()
    if text.count('path = "../../../.."') != 1:
        raise SystemExit(f"dist: {manifest} names the crate in another way")
    manifest.write_text(text.replace('path = "../../../.."', 'path = "session-server-store"'))

    command = ["cargo-zigbuild", "rustc", "--release", "--locked", "--quiet", "--lib", f"--target={TRIPLE}.{GLIBC}"]
    build.run(*command, "--target-dir", build.cargo, cwd=manifest.parent)
    place = build.work / "nif"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    library = place / f"libsss_nif-v{VERSION}-nif-{NIF_VERSION}-{TRIPLE}.so"
    shutil.copy(build.cargo / TRIPLE / "release" / "libsss_nif.so", library)
    for licence in LICENCES:
        shutil.copy(build.source / licence, place)
    archive = build.tar(f"{library.name}.tar.gz", place, place.iterdir())
    # mix.exs takes it if the platform is this one and the checksum is right.
    precompiled = package / "native" / "precompiled"
    precompiled.mkdir()
    shutil.copy(archive, precompiled)
    (precompiled / "SHA256SUMS").write_text(checksums([archive]))
    build.tar(f"{name}.tar.gz", package.parent, (path for path in package.rglob("*") if path.is_file()))


def make_debian(build: Build) -> None:
    say("Debian packages")
    place = build.work / "debian"
    install(build, place, PREFIX="/usr", LIBDIR=f"/usr/lib/{deb.MULTIARCH}", DOCDIR="/usr/share/doc/libsss")
    packages = deb.make(place, build.work, build.out, VERSION, build.epoch, build.environment)
    # They are no upload to Debian, which would close the bug that announces a package.
    lintian = ["lintian", "--fail-on=error,warning", "--suppress-tags=initial-upload-closes-no-bugs"]
    build.run(*lintian, "--allow-root", *packages, cwd=build.work)


def make_lists(build: Build) -> None:
    os.environ["SOURCE_DATE_EPOCH"] = str(build.epoch)
    (build.out / f"libsss-{VERSION}.cdx.json").write_text(third_party.sbom())
    (build.out / "SHA256SUMS").write_text(checksums(build.out.iterdir()))


def checksums(paths: Iterable[Path]) -> str:
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(paths))


def main() -> None:
    arguments = argparse.ArgumentParser(description="Makes everything that is published.")
    arguments.add_argument("--work", type=Path, default=ROOT / "target" / "dist")
    arguments.add_argument("--out", type=Path, default=ROOT / "dist")
    given = arguments.parse_args()
    os.umask(0o022)
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    given.work.mkdir(parents=True, exist_ok=True)
    build = Build(given.work.resolve(), given.out.resolve())
    make_source(build)
    make_libraries(build)
    make_binary(build)
    crate = make_crate(build)
    make_python(build)
    make_elixir(build, crate)
    make_debian(build)
    make_lists(build)
    say(f"done: {build.out}")


if __name__ == "__main__":
    main()
