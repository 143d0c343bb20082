"""The library for C as `make library` leaves it in target/release. Must not build anything with
cargo."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release"
SHARED = RELEASE / "libsss.so"
STATIC = RELEASE / "static" / "libsss.a"
EXPORTS = {line for line in (ROOT / "tests" / "exports.txt").read_text().splitlines() if not line.startswith("#")}
# What `rustc --print native-static-libs` names.
SYSTEM_LIBRARIES = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]

# Has functions of the same names as LMDB and as Rust's own library.
CLASHING_PROGRAM = """
#include <sss.h>

int mdb_env_create(void **env);
int rust_eh_personality(void);
int mdb_env_create(void **env) { *env = 0; return 77; }
int rust_eh_personality(void) { return 77; }

int main(int argc, char **argv)
{
    sss_store store = 0;
    char sid[SSS_SID_SIZE];
    void *env = argv;
    if (argc != 2 || sss_open(argv[1], strlen(argv[1]), &store) != SSS_OK) return 1;
    if (sss_create(store, "x", 1, NULL, sid, NULL) != SSS_OK) return 2;
    if (sss_close(store) != SSS_OK) return 3;
    return mdb_env_create(&env) == 77 ? 0 : 4;
}
"""


# Arguments: URL, and two copies of the library.
OPEN_TWICE = """
import ctypes, sys

def opened(library):
    library.sss_close.argtypes = [ctypes.c_uint64]
    store = ctypes.c_uint64()
    return library.sss_open(url, ctypes.c_size_t(len(url)), ctypes.byref(store)), store

url = sys.argv[1].encode()
first, second = map(ctypes.CDLL, sys.argv[2:])
status, store = opened(first)
assert status == 0, status
status, _ = opened(second)
assert status < 0, "a second copy has opened the store"
text = ctypes.create_string_buffer(1000)
second.sss_last_error(text, ctypes.c_size_t(1000), None)
print(text.value.decode())
assert first.sss_close(store) == 0
status, store = opened(second)
assert status == 0 and second.sss_close(store) == 0, status
"""


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(*options: str, library: Path) -> set[str]:
    return set(re.findall(r" [A-Z] (\S+)$", output_of("nm", *options, library), re.MULTILINE))


def test_whole_program_is_optimized_at_once() -> None:
    # With LTO, all Rust code but rustc's own helpers is in one object, in the shared library too,
    # which the same run of rustc links. Without it, each crate has its objects.
    members = output_of("ar", "t", RELEASE / "libsss.a").split()
    crates = {member.split("-")[0].split(".")[0] for member in members if member.endswith(".rcgu.o")}
    assert crates - {"compiler_builtins"} == {"sss"}
    assert sum(member.startswith("sss.") for member in members) == 1


def test_shared_library_exports_the_listed_functions_only() -> None:
    assert symbols("-D", "--defined-only", library=SHARED) == EXPORTS


def test_shared_library_has_the_soname_of_its_version() -> None:
    version = re.search(r'^version = "(\d+)\.(\d+)\.', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version
    soname = "libsss.so." + ("0." + version[2] if version[1] == "0" else version[1])
    assert f"Library soname: [{soname}]" in output_of("readelf", "--dynamic", SHARED)
    # A program that is linked in target/release runs there.
    assert (RELEASE / soname).resolve() == SHARED


def test_shared_library_is_stripped() -> None:
    assert ".symtab" not in output_of("readelf", "--sections", "--wide", SHARED)


def test_static_library_is_one_object_with_the_listed_functions() -> None:
    assert output_of("ar", "t", STATIC).split() == ["libsss.o"]
    assert symbols("-g", "--defined-only", library=STATIC) == EXPORTS


def test_static_library_links_beside_functions_of_the_same_names(tmp_path: Path) -> None:
    source, program = tmp_path / "clash.c", tmp_path / "clash"
    source.write_text(f"#include <string.h>\n{CLASHING_PROGRAM}")
    compiler = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT / 'include'}"]
    subprocess.run([*compiler, source, "-o", program, STATIC, *SYSTEM_LIBRARIES], check=True)
    subprocess.run([program, f"lmdb:{tmp_path / 'sessions'}"], check=True)


def test_second_copy_in_one_process_is_refused(tmp_path: Path) -> None:
    copies = [tmp_path / "a.so", tmp_path / "b.so"]
    for copy in copies:
        shutil.copy(SHARED, copy)
    error = output_of(sys.executable, "-c", OPEN_TWICE, f"lmdb:{tmp_path / 'sessions'}", *copies)
    assert "another copy of this library" in error


def test_third_party_notices_are_those_of_the_lock_files() -> None:
    notices = output_of(sys.executable, ROOT / "packaging" / "third_party.py", "notices")
    assert notices == (ROOT / "THIRD-PARTY-NOTICES").read_text(), "run `make notices`"
    for name in ("LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY-NOTICES"):
        assert (ROOT / "bindings" / "python" / name).read_text() == (ROOT / name).read_text(), "run `make notices`"
