"""Programs that were compiled with an older header of the same SONAME run with today's library."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import abi
import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "sss.h"
# Before the release of its minor version the header may still change.
IS_RELEASED = re.search(r"^## \S+ - (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] != "unreleased"  # type: ignore[index]


def same_soname(header: Path) -> bool:
    old, new = abi.version(header), abi.version(HEADER)
    return old == new if new.startswith("0.") else old.split(".")[0] == new.split(".")[0]


RECORDED = sorted(
    header
    for header in abi.RECORDED.glob("*/sss.h")
    if same_soname(header) and (IS_RELEASED or abi.version(header) != abi.version(HEADER))
)


def changed(tmp_path: Path, before: str, after: str) -> str:
    """What abidiff says if a part of the header is replaced."""
    text = HEADER.read_text()
    assert before in text
    header, old, new = tmp_path / "sss.h", tmp_path / "old.abi", tmp_path / "new.abi"
    header.write_text(text.replace(before, after, 1))
    abi.describe(HEADER, old)
    abi.describe(header, new)
    return abi.compare(old, new)


def test_removed_function_is_a_change(tmp_path: Path) -> None:
    assert "sss_version" in changed(tmp_path, "uint32_t sss_version(void);\n", "\n")


def test_other_parameter_is_a_change(tmp_path: Path) -> None:
    assert "sss_close" in changed(
        tmp_path, "sss_status sss_close(sss_store store);", "sss_status sss_close(int store);"
    )


def test_moved_member_is_a_change(tmp_path: Path) -> None:
    assert "created_ms" in changed(tmp_path, "    int64_t created_ms;", "    int32_t created_ms, moved;")


def test_new_function_is_no_change(tmp_path: Path) -> None:
    new = "uint32_t sss_version(void);\nuint32_t sss_more(void);\n"
    assert changed(tmp_path, "uint32_t sss_version(void);\n", new) == ""


@pytest.mark.parametrize("header", RECORDED, ids=lambda header: header.parent.name)
def test_abi_is_that_of_the_release(header: Path, tmp_path: Path) -> None:
    abi.describe(HEADER, tmp_path / "new.abi")
    assert abi.compare(header.with_name("libsss.abi"), tmp_path / "new.abi") == ""


@pytest.mark.skipif(not RECORDED, reason="no version with this SONAME has been released")
def test_c_tests_compiled_with_the_oldest_header_pass(tmp_path: Path) -> None:
    # Without layout.c, which compares the library with its own header.
    for source in ("api.c", "args.c", "errors.c", "principals.c"):
        program = tmp_path / source.removesuffix(".c")
        compiler = ["gcc", "-std=c99", "-pthread", f"-I{RECORDED[0].parent}", str(ROOT / "tests" / "c" / source)]
        release = ROOT / "target" / "release"
        link = [f"-L{release}", "-lsss", f"-Wl,-rpath,{release}"]
        subprocess.run([*compiler, "-o", str(program), *link], check=True)
        subprocess.run([program], check=True, env={"SSS_TEST_SCALE": "10"})
