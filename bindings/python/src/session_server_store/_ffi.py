"""Finds libsss, loads it, checks its version and declares its functions from one table.

Tests compare the table, the structs and the constants with sss.h.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_ubyte,
    c_uint32,
    c_uint64,
    c_void_p,
    sizeof,
)
from pathlib import Path
from typing import Any, Final, Optional

from ._version import __version__
from .errors import SessionStoreError, Status, from_status

LIBRARY_VARIABLE: Final = "SESSION_SERVER_STORE_LIBRARY"

SID_LEN: Final = 128
REF_LEN: Final = 32


class OptionsStruct(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("timeout_ms", c_int64),
        ("idle_timeout_ms", c_int64),
        ("principal", c_char_p),
        ("principal_len", c_size_t),
        ("grace_ms", c_int64),
        ("label", c_char_p),
        ("label_len", c_size_t),
    ]


class MetaStruct(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("version", c_uint64),
        ("created_ms", c_int64),
        ("last_seen_ms", c_int64),
        ("expires_ms", c_int64),
        ("authenticated_ms", c_int64),
        ("timeout_ms", c_int64),
        ("idle_timeout_ms", c_int64),
    ]


class EntryStruct(Structure):
    _fields_ = [
        ("ref", c_ubyte * REF_LEN),
        ("version", c_uint64),
        ("payload_len", c_uint64),
        ("created_ms", c_int64),
        ("last_seen_ms", c_int64),
        ("expires_ms", c_int64),
        ("authenticated_ms", c_int64),
        ("label_len", c_uint32),
        ("label", c_ubyte * 256),
        ("reserved", c_uint64 * 4),
    ]


class StatsStruct(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("sessions", c_uint64),
        ("bytes", c_uint64),
        ("created", c_uint64),
        ("hits", c_uint64),
        ("misses", c_uint64),
        ("puts", c_uint64),
        ("deleted", c_uint64),
        ("renewed", c_uint64),
        ("conflicts", c_uint64),
        ("revoked", c_uint64),
        ("expired", c_uint64),
        ("rejected", c_uint64),
        ("errors", c_uint64),
    ]


# Input bytes are c_char_p, followed by their length. Memory that the library fills is c_void_p.
_SID = (c_char_p, c_size_t)
_DATA = (c_char_p, c_size_t)
_OPTIONS = POINTER(OptionsStruct)
_META = POINTER(MetaStruct)

FUNCTIONS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "sss_open": (c_int32, (*_DATA, POINTER(c_uint64))),
    "sss_open_global": (c_int32, _DATA),
    "sss_close": (c_int32, (c_uint64,)),
    "sss_may_block": (c_int32, (c_uint64, POINTER(c_uint32))),
    "sss_create": (c_int32, (c_uint64, *_DATA, _OPTIONS, c_void_p, _META)),
    "sss_get": (c_int32, (c_uint64, *_SID, c_uint32, c_void_p, c_size_t, POINTER(c_size_t), _META)),
    "sss_put": (c_int32, (c_uint64, *_SID, *_DATA, _OPTIONS, _META)),
    "sss_put_if": (c_int32, (c_uint64, *_SID, c_uint64, *_DATA, _OPTIONS, _META)),
    "sss_touch": (c_int32, (c_uint64, *_SID, _META)),
    "sss_renew": (c_int32, (c_uint64, *_SID, *_DATA, _OPTIONS, c_void_p, _META)),
    "sss_delete": (c_int32, (c_uint64, *_SID)),
    "sss_sweep": (c_int32, (c_uint64, c_uint64, POINTER(c_uint64))),
    "sss_list": (c_int32, (c_uint64, *_DATA, POINTER(EntryStruct), c_size_t, POINTER(c_size_t))),
    "sss_revoke": (c_int32, (c_uint64, *_DATA, *_SID, POINTER(c_uint64))),
    "sss_ref": (c_int32, (c_uint64, *_SID, c_void_p)),
    "sss_delete_ref": (c_int32, (c_uint64, c_char_p, *_DATA)),
    "sss_touch_ref": (c_int32, (c_uint64, c_char_p, c_uint32, _META)),
    "sss_revoke_all": (c_int32, (c_uint64, POINTER(c_uint64))),
    "sss_stats": (c_int32, (c_uint64, POINTER(StatsStruct))),
    "sss_advance_clock": (c_int32, (c_uint64, c_int64)),
    "sss_last_error": (c_int32, (c_void_p, c_size_t, POINTER(c_size_t))),
    "sss_strerror": (c_char_p, (c_int32,)),
    "sss_version": (c_uint32, ()),
    "sss_version_string": (c_char_p, ()),
}

# Arguments are ctypes objects of exactly these types, so that both libraries below accept them.
NO_STORE: Final = c_uint64(0)
GLOBAL: Final = c_uint64(2**64 - 1)
NO_FLAGS: Final = c_uint32(0)
PEEK: Final = c_uint32(1)
CLEAR_PRINCIPAL: Final = 1
REAUTHENTICATED: Final = 2
BLOCKS_READS: Final = 1
BLOCKS_WRITES: Final = 2
ZERO_LENGTH: Final = c_size_t(0)
_ID_LENGTH: Final = c_size_t(SID_LEN)


def length(data: bytes) -> c_size_t:
    return c_size_t(len(data))


def id_length(sid: bytes) -> c_size_t:
    return _ID_LENGTH if len(sid) == SID_LEN else c_size_t(len(sid))


def options_pointer(
    timeout_ms: int,
    idle_timeout_ms: int,
    principal: Optional[bytes],
    label: Optional[bytes],
    flags: int,
    grace_ms: int,
) -> Any:
    """A pointer to an sss_options, which lives as long as the pointer."""
    principal_len = 0 if principal is None else len(principal)
    label_len = 0 if label is None else len(label)
    return byref(
        OptionsStruct(
            sizeof(OptionsStruct),
            flags,
            timeout_ms,
            idle_timeout_ms,
            principal,
            principal_len,
            grace_ms,
            label,
            label_len,
        )
    )


def _library_path() -> str:
    configured = os.environ.get(LIBRARY_VARIABLE)
    if configured:
        return str(Path(configured).absolute())
    return str(Path(__file__).absolute().with_name("libsss.dylib" if sys.platform == "darwin" else "libsss.so"))


def _load(path: str) -> tuple[ctypes.PyDLL, ctypes.CDLL]:
    hint = (
        "Installing this package with pip builds the library, which needs cargo."
        f" The environment variable {LIBRARY_VARIABLE} can name another libsss."
    )
    try:
        lib_gil, lib_nogil = ctypes.PyDLL(path), ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"cannot load libsss from {path}: {error}. {hint}") from error
    try:
        version = int(lib_gil.sss_version())
        found = f"{version >> 16}.{version >> 8 & 255}"
        wanted = __version__.rpartition(".")[0]
        if found != wanted:
            raise ImportError(
                f"{path} is libsss {found}.{version & 255},"
                f" but session_server_store {__version__} needs {wanted}.x. {hint}"
            )
        for name, (result, arguments) in FUNCTIONS.items():
            getattr(lib_gil, name).restype = result
            getattr(lib_nogil, name).restype = result
            getattr(lib_nogil, name).argtypes = arguments
    except AttributeError as error:
        raise ImportError(f"{path} is not libsss {__version__}: {error}. {hint}") from error
    return lib_gil, lib_nogil


LIBRARY: Final = _library_path()

# The same library twice. LIB_GIL keeps the interpreter lock during a call. Releasing it costs up to
# a switch interval (5 ms) while another thread computes; a call that does not block takes
# microseconds. It has no argtypes, because checking them takes longer than the call itself.
# LIB_NOGIL releases the lock, for calls that may block.
LIB_GIL, LIB_NOGIL = _load(LIBRARY)


def may_block(store: c_uint64) -> tuple[bool, bool]:
    """Whether reads and writes of a store may block."""
    flags = c_uint32()
    status = LIB_GIL.sss_may_block(store, byref(flags))
    if status:
        raise failure(status)
    return bool(flags.value & BLOCKS_READS), bool(flags.value & BLOCKS_WRITES)


def libs_for(store: c_uint64) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The libraries for reads and for writes of a store."""
    reads, writes = may_block(store)
    return LIB_NOGIL if reads else LIB_GIL, LIB_NOGIL if writes else LIB_GIL


def failure(code: int) -> SessionStoreError:
    """The exception for a status. Call it right after the call that failed.

    Its message is this thread's last error. If a signal handler or a finaliser has called the
    library in between, the message may be that of its failure; the code is right in any case.
    """
    size = c_size_t(256)
    while True:
        text = ctypes.create_string_buffer(size.value)
        status = LIB_GIL.sss_last_error(text, c_size_t(len(text)), byref(size))
        if status != Status.TOO_SMALL:
            break
    message = text.raw[: size.value] if status == Status.OK else b""
    return from_status(code, (message or describe(code)).decode("utf-8", "replace"))


def describe(code: int) -> bytes:
    """The library's general text for a status."""
    return LIB_GIL.sss_strerror(c_int32(code)) or b"unknown status %d" % code
