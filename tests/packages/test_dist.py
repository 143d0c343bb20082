"""The files that `make dist` has left in dist/, each installed in an empty place by the tool of its
ecosystem, and used. What compiles does so outside of the repository, from the file alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import version

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
VERSION = max(version.found()["Cargo.toml"])
TRIPLE = "x86_64-unknown-linux-gnu"
NOTICES = {"LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY-NOTICES"}
PYTHON_SESSION = """
import pathlib
from session_server_store import Store
with Store(f"lmdb:{pathlib.Path.cwd() / 'sessions'}") as store:
    sid = store.create({"cart": 3}, principal="alice")
    assert store.get(sid).payload == {"cart": 3}
    assert store.revoke("alice") == 1 and store.get(sid) is None
"""
ELIXIR_SESSION = """
{:ok, sid, _} = SessionServerStore.Store.create(%{cart: 3}, principal: "alice")
{:ok, %{data: %{cart: 3}}} = SessionServerStore.Store.get(sid)
{:ok, 1} = SessionServerStore.Store.revoke("alice")
{:error, :not_found} = SessionServerStore.Store.get(sid)
"""


def environment(**more: str) -> dict[str, str]:
    """As a user has it, without what is set for these tests."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "TMPDIR") if name in os.environ
    }
    return kept | {"LC_ALL": "C.UTF-8"} | more


def path_without(*programs: str) -> str:
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not any(Path(f, program).exists() for program in programs))


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment(**more), check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


def one(pattern: str) -> Path:
    (path,) = DIST.glob(pattern)
    return path


def unpack(archive: Path, place: Path) -> None:
    place.mkdir(parents=True)
    subprocess.run(["tar", "-xf", archive, "-C", place], check=True)


def unpacked(archive: Path, place: Path) -> Path:
    unpack(archive, place)
    (folder,) = place.iterdir()
    return folder


def built_dependencies(source: Path, target: Path) -> str:
    """A target directory for cargo that has the dependencies which the other tests have built."""

    def link_or_copy(path: str, copy: str) -> None:
        try:
            os.link(path, copy)
        except OSError:  # another file system
            shutil.copy2(path, copy)

    if source.is_dir():
        shutil.copytree(source, target / source.name, copy_function=link_or_copy, symlinks=True)
    return str(target)


def glibc(binary: Path) -> tuple[int, ...]:
    symbols = subprocess.run(["objdump", "-T", binary], check=True, capture_output=True, text=True).stdout
    return max(tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+)", symbols))


def test_every_file_has_its_checksum() -> None:
    lines = (DIST / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in DIST.iterdir()}
    files.pop("SHA256SUMS")
    assert sums == files
    assert {f"libsss-{VERSION}.tar.gz", f"libsss-{VERSION}.cdx.json"} <= set(files)


def test_binaries_run_with_glibc_2_17_and_name_no_path_of_the_builder(tmp_path: Path) -> None:
    binaries = unpacked(one(f"libsss-*-{TRIPLE}.tar.gz"), tmp_path / "binary")
    nif = tmp_path / "nif"
    unpack(one("libsss_nif-*.tar.gz"), nif)
    paths = [binaries / "bin/sss", binaries / f"lib/libsss.so.{VERSION}", *nif.glob("*.so")]
    assert len(paths) == 3
    for path in paths:
        assert glibc(path) <= (2, 17), path
        content = path.read_bytes()
        for builder in (ROOT, Path.home() / ".cargo"):
            assert str(builder).encode() not in content, path


def test_every_binary_package_has_the_licences(tmp_path: Path) -> None:
    names = zipfile.ZipFile(one("*.whl")).namelist()
    assert {Path(name).name for name in names if ".dist-info/licenses/" in name and not name.endswith("/")} == NOTICES
    for pattern in (f"libsss-*-{TRIPLE}.tar.gz", "libsss_nif-*.tar.gz", "*-hex.tar.gz", "*.crate"):
        with tarfile.open(one(pattern)) as files:
            assert {Path(name).name for name in files.getnames()} >= NOTICES, pattern
    for package in DIST.glob("*.deb"):
        listing = run("dpkg-deb", "--contents", package, cwd=tmp_path)
        assert "/copyright\n" in listing, package
        assert "/THIRD-PARTY-NOTICES.gz\n" in listing, package


@pytest.mark.parametrize("options", [[], ["-static"]], ids=["shared", "static"])
def test_binary_tarball_is_an_installation(tmp_path: Path, options: list[str]) -> None:
    prefix = unpacked(one(f"libsss-*-{TRIPLE}.tar.gz"), tmp_path / "anywhere")
    query = ["pkg-config", "--cflags", "--libs", *(["--static"] if options else []), "sss"]
    flags = run(*query, cwd=tmp_path, PKG_CONFIG_LIBDIR=str(prefix / "lib/pkgconfig"))
    program = tmp_path / "program"
    run("gcc", ROOT / "examples/c/lifecycle.c", "-o", program, *flags.split(), *options, cwd=tmp_path)
    run(program, cwd=tmp_path, LD_LIBRARY_PATH=str(prefix / "lib"))
    assert VERSION in run(prefix / "bin/sss", "--version", cwd=tmp_path)


def test_wheel_works_without_cargo(tmp_path: Path) -> None:
    install_and_use(one("*.whl"), tmp_path)


def test_sdist_builds_a_wheel_alone(tmp_path: Path) -> None:
    # The tools of the build are those of the tests.
    source = unpacked(one(f"session_server_store-{VERSION}.tar.gz"), tmp_path / "source")
    target = built_dependencies(ROOT / "target" / "release", tmp_path / "target")
    build = ("-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps")
    run(sys.executable, *build, "-w", tmp_path, source, cwd=tmp_path, CARGO_TARGET_DIR=target)
    (wheel,) = tmp_path.glob("*.whl")
    install_and_use(wheel, tmp_path)


def install_and_use(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    path = path_without("cargo", "gcc")
    run(python, "-m", "pip", "install", "--quiet", "--no-index", wheel, cwd=tmp_path, PATH=path)
    run(python, "-c", PYTHON_SESSION, cwd=tmp_path, PATH=path)


def test_debian_packages_install_and_go(tmp_path: Path) -> None:
    # dpkg's own data base in an empty root; the C library is that of this machine.
    root, data = tmp_path / "root", tmp_path / "dpkg"
    for folder in (root, data / "info", data / "updates"):
        folder.mkdir(parents=True)
    status = Path("/var/lib/dpkg/status").read_text().split("\n\n")
    libc = [entry for entry in status if re.match(r"Package: (libc6|libgcc-s1|gcc-12-base|libcrypt1)\n", entry)]
    (data / "status").write_text("\n\n".join(libc) + "\n\n")
    dpkg: list[str | Path] = [
        "dpkg",
        f"--admindir={data}",
        f"--instdir={root}",
        f"--log={tmp_path / 'log'}",
        "--force-not-root",
    ]
    run(*dpkg, "--install", *sorted(DIST.glob("*.deb")), cwd=tmp_path, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")

    libraries = root / "usr/lib/x86_64-linux-gnu"
    flags = run("pkg-config", "--cflags", "--libs", "sss", cwd=tmp_path, PKG_CONFIG_LIBDIR=str(libraries / "pkgconfig"))
    program = tmp_path / "program"
    run("gcc", ROOT / "examples/c/lifecycle.c", "-o", program, *flags.split(), cwd=tmp_path)
    run(program, cwd=tmp_path, LD_LIBRARY_PATH=str(libraries))
    assert VERSION in run(root / "usr/bin/sss", "--version", cwd=tmp_path)

    names = [path.name.split("_")[0] for path in DIST.glob("*.deb")]
    run(*dpkg, "--purge", *names, cwd=tmp_path, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert [path for path in root.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("build", ["0", "1"], ids=["precompiled", "compiled"])
def test_elixir_package_compiles_alone(tmp_path: Path, build: str) -> None:
    package = unpacked(one("*-hex.tar.gz"), tmp_path / "package")
    more = {"MIX_ENV": "prod", "SSS_NIF_BUILD": build}
    if build == "0":
        more["PATH"] = path_without("cargo")
    else:
        nif = ROOT / "bindings/elixir/native/sss_nif/target/release"
        more["CARGO_TARGET_DIR"] = built_dependencies(nif, tmp_path / "target")
    run("mix", "compile", "--warnings-as-errors", cwd=package, **more)
    run("mix", "run", "-e", ELIXIR_SESSION, cwd=package, **more)


def test_crate_passes_its_tests_alone(tmp_path: Path) -> None:
    crate = unpacked(one("*.crate"), tmp_path / "crate")
    target = built_dependencies(ROOT / "target" / "debug", tmp_path / "target")
    for kind in ("--lib", "--doc"):
        output = run("cargo", "test", "--locked", "--quiet", kind, cwd=crate, CARGO_TARGET_DIR=target)
        assert re.search(r"test result: ok\. [1-9]\d* passed", output), output
