"""`make install` into an empty place, and C programs that find the library there with pkg-config or
CMake. Must not build the library: `make all` has done so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "examples" / "c" / "lifecycle.c"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
CMAKE_PROJECT = """
cmake_minimum_required(VERSION 3.13)
project(app C)
find_package(sss 0.1 CONFIG REQUIRED)
add_executable(shared lifecycle.c)
target_link_libraries(shared PRIVATE sss::sss)
add_executable(static lifecycle.c)
target_link_libraries(static PRIVATE sss::static)
add_executable(whole lifecycle.c)
target_link_libraries(whole PRIVATE sss::static)
target_link_options(whole PRIVATE -static)
"""
LIBRARY_DIRECTORIES = ("lib", "lib/x86_64-linux-gnu")


def make(target: str, destination: Path, library_directory: str) -> None:
    # Without cargo: the program that was built is installed as it is.
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "cargo").exists())
    variables = [f"DESTDIR={destination}", "PREFIX=/usr", f"LIBDIR=/usr/{library_directory}"]
    subprocess.run(["make", "--silent", target, *variables], cwd=ROOT, env=os.environ | {"PATH": path}, check=True)


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir())


@pytest.fixture(scope="module", params=LIBRARY_DIRECTORIES)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The prefix and the library directory of an installation that was moved."""
    place = tmp_path_factory.mktemp("installed")
    make("install", place / "first", request.param)
    (place / "first" / "usr").rename(place / "moved")
    return place / "moved", place / "moved" / request.param


def run(program: Path, libraries: Path) -> None:
    subprocess.run([program], env={"LD_LIBRARY_PATH": str(libraries)}, check=True, stdout=subprocess.DEVNULL)


def test_install_puts_each_file_in_its_place(tmp_path: Path) -> None:
    make("install", tmp_path, "lib")
    assert files(tmp_path) == [
        "usr/bin/sss",
        "usr/include/sss.h",
        "usr/lib/cmake/sss/sssConfig.cmake",
        "usr/lib/cmake/sss/sssConfigVersion.cmake",
        "usr/lib/libsss.a",
        "usr/lib/libsss.so",
        "usr/lib/libsss.so.0.1",
        "usr/lib/libsss.so.0.1.0",
        "usr/lib/pkgconfig/sss.pc",
        "usr/share/bash-completion/completions/sss",
        "usr/share/doc/libsss/LICENSE-APACHE",
        "usr/share/doc/libsss/LICENSE-MIT",
        "usr/share/doc/libsss/THIRD-PARTY-NOTICES",
        "usr/share/fish/vendor_completions.d/sss.fish",
        "usr/share/man/man1/sss.1",
        "usr/share/man/man3/sss.h.3",
        "usr/share/zsh/site-functions/_sss",
    ]
    subprocess.run([tmp_path / "usr/bin/sss", "--version"], check=True)
    make("uninstall", tmp_path, "lib")
    assert files(tmp_path) == []
    assert not (tmp_path / "usr/lib/cmake/sss").exists()


def test_manual_pages_are_well_formed() -> None:
    for page in ("sss.1", "sss.h.3"):
        path = ROOT / "target" / "release" / page
        lint = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "error", path], check=False, capture_output=True, text=True
        )
        assert lint.stdout == ""


@pytest.mark.parametrize("options", [[], ["-static"]], ids=["shared", "static"])
def test_pkg_config_finds_the_library(installed: tuple[Path, Path], tmp_path: Path, options: list[str]) -> None:
    _, libraries = installed
    environment = os.environ | {"PKG_CONFIG_LIBDIR": str(libraries / "pkgconfig")}
    query = ["pkg-config", "--cflags", "--libs", *(["--static"] if options else []), "sss"]
    flags = subprocess.run(query, env=environment, check=True, capture_output=True, text=True).stdout.split()
    program = tmp_path / "program"
    subprocess.run(["gcc", *STRICT, PROGRAM, "-o", program, *flags, *options], check=True)
    run(program, libraries)
    version = subprocess.run(
        ["pkg-config", "--modversion", "sss"], env=environment, check=True, capture_output=True, text=True
    )
    assert version.stdout.strip() in (ROOT / "Cargo.toml").read_text()


def test_cmake_finds_the_library(installed: tuple[Path, Path], tmp_path: Path) -> None:
    prefix, libraries = installed
    shutil.copy(PROGRAM, tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_PROJECT)
    configure = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-DCMAKE_PREFIX_PATH={prefix}"]
    # Otherwise CMake does not look below lib/TRIPLET.
    configure.append("-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu")
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, stdout=subprocess.DEVNULL)
    for program in ("shared", "static", "whole"):
        run(tmp_path / "build" / program, libraries)


def test_cmake_refuses_another_minor_version(installed: tuple[Path, Path], tmp_path: Path) -> None:
    prefix, _ = installed
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_PROJECT.split("add_executable")[0].replace("sss 0.1", "sss 0.2"))
    configure = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-DCMAKE_PREFIX_PATH={prefix}"]
    done = subprocess.run(configure, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "sss" in done.stderr
