"""The ctypes declarations match include/sss.h, and a missing or wrong library is reported."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Script

import session_server_store as sss
from session_server_store import Status, _ffi, _scratch
from session_server_store._arguments import timeout_ms
from session_server_store.records import FOREVER

ROOT = Path(__file__).parents[3]
HEADER = re.sub(r"/\*.*?\*/|//[^\n]*", "", (ROOT / "include" / "sss.h").read_text("utf-8"), flags=re.DOTALL)
DEFINES = dict(re.findall(r"^#define (SSS_\w+) (.+?)$", HEADER, re.MULTILINE))

# Python reads payloads with sss_get.
NOT_USED = {"sss_get_buf", "sss_buf_free"}

SCALARS: dict[str, Any] = {
    "uint8_t": ctypes.c_uint8,
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "uint64_t": ctypes.c_uint64,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "sss_store": ctypes.c_uint64,
    "sss_status": ctypes.c_int32,
}
STRUCTS = {
    "sss_options": _ffi.OptionsStruct,
    "sss_meta": _ffi.MetaStruct,
    "sss_entry": _ffi.EntryStruct,
    "sss_stats_t": _ffi.StatsStruct,
}


def number(text: str) -> int:
    text = text.strip("()u ")
    return int(DEFINES.get(text, text).strip("()u "), 0)


def header_functions() -> dict[str, tuple[str, list[str]]]:
    found = re.findall(r"([\w ]+?[ *]+)(sss_\w+)\s*\(([^()]*)\);", HEADER)
    return {
        name: (" ".join(result.split()), [" ".join(p.split()) for p in parameters.split(",") if p.strip() != "void"])
        for result, name, parameters in found
    }


def expected_type(parameter: str) -> Any:
    match = re.fullmatch(r"(const )?(\w+) ?(\*?) ?\w+(\[\w+\])?", parameter)
    assert match, parameter
    const, base, pointer, array = match.groups()
    if not pointer and not array:
        return SCALARS[base]
    if base in STRUCTS:
        return ctypes.POINTER(STRUCTS[base])
    if base in ("char", "void", "uint8_t"):
        return ctypes.c_char_p if const else ctypes.c_void_p
    return ctypes.POINTER(SCALARS[base])


def test_header_parser() -> None:
    functions = header_functions()
    assert len(functions) >= 24
    assert functions["sss_close"] == ("sss_status", ["sss_store store"])
    assert functions["sss_get"][1][1] == "const char *sid"


def test_all_header_functions_declared() -> None:
    assert set(_ffi.FUNCTIONS) == set(header_functions()) - NOT_USED


@pytest.mark.parametrize("name", _ffi.FUNCTIONS)
def test_function_types_match_header(name: str) -> None:
    result, parameters = header_functions()[name]
    declared_result, declared = _ffi.FUNCTIONS[name]
    assert declared_result is (ctypes.c_char_p if result == "const char *" else SCALARS[result])
    assert list(declared) == [expected_type(parameter) for parameter in parameters]
    for library in (_ffi.LIB_GIL, _ffi.LIB_NOGIL):
        assert getattr(library, name).restype is declared_result
    assert list(getattr(_ffi.LIB_NOGIL, name).argtypes) == list(declared)


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_layout_matches_header(name: str) -> None:
    body = re.search(r"typedef struct (?:\w+ )?\{([^{}]*)\} " + name + ";", HEADER)
    assert body, name
    fields: list[tuple[str, Any]] = []
    for declaration in filter(None, (line.strip() for line in body[1].split(";"))):
        match = re.fullmatch(r"(?:const )?(\w+) (\*?)(\w+)(?:\[(\w+)\])?", " ".join(declaration.split()))
        assert match, declaration
        base, pointer, field, count = match.groups()
        kind = ctypes.c_void_p if pointer else SCALARS[base]
        fields.append((field, kind * number(count) if count else kind))
    declared: Any = STRUCTS[name]
    expected: Any = type(name, (ctypes.Structure,), {"_fields_": fields})
    assert [field[0] for field in declared._fields_] == [field for field, _ in fields]
    assert ctypes.sizeof(declared) == ctypes.sizeof(expected)
    for field, _ in fields:
        assert getattr(declared, field).offset == getattr(expected, field).offset, field
        assert getattr(declared, field).size == getattr(expected, field).size, field


def test_statuses_match_header() -> None:
    expected = {
        name.replace("SSS_E_", "").replace("SSS_", ""): number(value)
        for name, value in DEFINES.items()
        if name.startswith("SSS_E_") or name == "SSS_OK"
    }
    assert {status.name: int(status) for status in Status} == expected


def test_constants_match_header() -> None:
    assert number("SSS_SID_LEN") == _ffi.SID_LEN
    assert number("SSS_SID_SIZE") == len(_scratch.Scratch().id_memory)
    assert number("SSS_REF_LEN") == _ffi.REF_LEN
    assert number("SSS_PEEK") == _ffi.PEEK.value
    assert number("SSS_CLEAR_PRINCIPAL") == _ffi.CLEAR_PRINCIPAL
    assert number("SSS_REAUTHENTICATED") == _ffi.REAUTHENTICATED
    assert number("SSS_BLOCKS_READS") == _ffi.BLOCKS_READS
    assert number("SSS_BLOCKS_WRITES") == _ffi.BLOCKS_WRITES
    assert DEFINES["SSS_GLOBAL"].replace(" ", "") == "(~(sss_store)0)"
    assert _ffi.GLOBAL.value == 2**64 - 1
    assert DEFINES["SSS_FOREVER"] == "INT64_MAX"
    assert FOREVER == 2**63 - 1
    assert DEFINES["SSS_INHERIT"] == "INT64_MIN"
    assert timeout_ms(sss.INHERIT, "timeout") == -(2**63)


def test_unpack_matches_meta_struct() -> None:
    scratch = _scratch.Scratch()
    ctypes.c_size_t.from_buffer(scratch.out).value = 7
    meta = _ffi.MetaStruct.from_buffer(scratch.out, 8)
    assert meta.size == ctypes.sizeof(_ffi.MetaStruct)
    meta.version, meta.created_ms, meta.last_seen_ms, meta.expires_ms = 2**64 - 1, -5, 6, FOREVER
    meta.authenticated_ms, meta.timeout_ms, meta.idle_timeout_ms = 8, FOREVER, 9
    assert _scratch.unpack(scratch.out) == (7, 2**64 - 1, -5, 6, FOREVER, 8, FOREVER, 9)


def test_stats_match_struct() -> None:
    assert ["size", "flags", *sss.Stats._fields] == [field[0] for field in _ffi.StatsStruct._fields_]


def test_status_texts_differ() -> None:
    texts = [_ffi.describe(status) for status in Status]
    assert all(texts)
    assert len(set(texts)) == len(texts)
    assert _ffi.describe(-12345)


def test_long_error_message() -> None:
    word = "x" * 2000
    with pytest.raises(sss.UrlError) as caught:
        sss.Store(f"memory:?{word}=1")
    assert len(caught.value.message) < 300 or word in caught.value.message


def test_version_matches_header() -> None:
    assert sss.__version__ == DEFINES["SSS_VERSION_STRING"].strip('"')


def test_version_matches_pyproject() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{sss.__version__}"\n' in text


IMPORT = """
    import sys, types
    {before}
    try:
        import session_server_store
    except ImportError as error:
        print(error)
"""


def test_missing_library_error_gives_advice(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(_ffi.LIBRARY_VARIABLE, str(tmp_path / "nowhere.so"))
    printed = script(IMPORT.format(before=""))
    for word in (str(tmp_path / "nowhere.so"), "pip", "cargo", _ffi.LIBRARY_VARIABLE):
        assert word in printed


def test_foreign_library_is_refused(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sys.modules["_ctypes"].__file__
    assert other
    monkeypatch.setenv(_ffi.LIBRARY_VARIABLE, other)
    printed = script(IMPORT.format(before=""))
    assert "is not libsss" in printed
    assert other in printed


def test_library_of_other_version_is_refused(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_ffi.LIBRARY_VARIABLE, _ffi.LIBRARY)
    fake = "sys.modules['session_server_store._version'] = types.SimpleNamespace(__version__='0.99.0')"
    printed = script(IMPORT.format(before=fake))
    for word in (_ffi.LIBRARY, f"libsss {sss.__version__}", "0.99.0", "needs 0.99.x"):
        assert word in printed


def test_library_from_environment(script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "libanother.so"
    copy.write_bytes(Path(_ffi.LIBRARY).read_bytes())
    monkeypatch.setenv(_ffi.LIBRARY_VARIABLE, os.path.relpath(copy))
    printed = script("""
        import session_server_store as sss
        assert sss.get(sss.create("x"))
        print(sss._ffi.LIBRARY)
    """)
    assert Path(printed.strip()).samefile(copy)
