"""Finds libsss, loads it, checks its version and declares its functions from one table. The only place with C types.

It knows nothing of sessions. Tests compare the table and the structs with sss.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char,
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


class Options(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("timeout_ms", c_int64),
        ("idle_timeout_ms", c_int64),
        ("principal", c_char_p),
        ("principal_len", c_size_t),
        ("grace_ms", c_int64),
    ]


class Meta(Structure):
    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("version", c_uint64),
        ("created_ms", c_int64),
        ("last_seen_ms", c_int64),
        ("expires_ms", c_int64),
    ]


class Entry(Structure):
    _fields_ = [
        ("ref", c_ubyte * REF_LEN),
        ("version", c_uint64),
        ("payload_len", c_uint64),
        ("created_ms", c_int64),
        ("last_seen_ms", c_int64),
        ("expires_ms", c_int64),
        ("reserved", c_uint64 * 4),
    ]


class Stats(Structure):
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


# Inputs that are bytes are c_char_p, always followed by their length; memory that the library fills is c_void_p.
_SID = (c_char_p, c_size_t)
_DATA = (c_char_p, c_size_t)
_OPTIONS = POINTER(Options)
_META = POINTER(Meta)

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
    "sss_list": (c_int32, (c_uint64, *_DATA, POINTER(Entry), c_size_t, POINTER(c_size_t))),
    "sss_revoke": (c_int32, (c_uint64, *_DATA, *_SID, POINTER(c_uint64))),
    "sss_ref": (c_int32, (c_uint64, *_SID, c_void_p)),
    "sss_delete_ref": (c_int32, (c_uint64, c_char_p)),
    "sss_stats": (c_int32, (c_uint64, POINTER(Stats))),
    "sss_advance_clock": (c_int32, (c_uint64, c_int64)),
    "sss_last_error": (c_int32, (c_void_p, c_size_t, POINTER(c_size_t))),
    "sss_strerror": (c_char_p, (c_int32,)),
    "sss_version": (c_uint32, ()),
    "sss_version_string": (c_char_p, ()),
}

# Arguments are handed over as ctypes objects of exactly these types: then both faces of the library below take them.
NO_STORE: Final = c_uint64(0)
GLOBAL: Final = c_uint64(2**64 - 1)
SLIDE: Final = c_uint32(0)
PEEK: Final = c_uint32(1)
CLEAR_PRINCIPAL: Final = 1
WAITS_READS: Final = 1
WAITS_WRITES: Final = 2
NOTHING: Final = c_size_t(0)
_ID_LENGTH: Final = c_size_t(SID_LEN)


def length(data: bytes) -> c_size_t:
    return c_size_t(len(data))


def id_length(sid: bytes) -> c_size_t:
    return _ID_LENGTH if len(sid) == SID_LEN else c_size_t(len(sid))


def _find() -> str:
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        return str(Path(named).absolute())
    return str(Path(__file__).absolute().with_name("libsss.dylib" if sys.platform == "darwin" else "libsss.so"))


def _open(path: str) -> tuple[ctypes.PyDLL, ctypes.CDLL]:
    hint = (
        "Installing this package with pip builds the library (cargo is needed) and puts it there;"
        f" the environment variable {LIBRARY_VARIABLE} can name another one."
    )
    try:
        held, released = ctypes.PyDLL(path), ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"cannot load libsss from {path}: {error}. {hint}") from error
    try:
        number = int(held.sss_version())
        found = f"{number >> 16}.{number >> 8 & 255}"
        wanted = __version__.rpartition(".")[0]
        if found != wanted:
            raise ImportError(
                f"{path} is libsss {found}.{number & 255},"
                f" but session_server_store {__version__} needs {wanted}.x. {hint}"
            )
        for library in (held, released):
            for name, (result, arguments) in FUNCTIONS.items():
                function = getattr(library, name)
                function.restype = result
                if library is released:
                    function.argtypes = arguments
    except AttributeError as error:
        raise ImportError(f"{path} is not libsss {__version__}: {error}. {hint}") from error
    return held, released


# One library, two faces. HELD keeps the interpreter lock during a call: letting it go and getting it back costs up to a
# switch interval (5 ms) as soon as another thread computes, a call that waits for nobody a few microseconds at most. It
# does without argtypes because checking them takes longer than the call. RELEASED is for everything that may wait.
LIBRARY: Final = _find()
HELD, RELEASED = _open(LIBRARY)


def faces(store: c_uint64) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The faces for the reads and for the writes of a store; which of them may wait, the library knows."""
    waits = c_uint32()
    status = HELD.sss_may_block(store, byref(waits))
    if status:
        raise failure(status)
    reads, writes = (RELEASED if waits.value & flag else HELD for flag in (WAITS_READS, WAITS_WRITES))
    return reads, writes


def failure(status: int) -> SessionStoreError:
    """The exception for a status, worded by this thread's last error: to be made right after the call that failed.

    Should a signal handler or finaliser fail in between, the words are those of its failure. The status never is.
    """
    size = c_size_t(256)
    while True:
        text = ctypes.create_string_buffer(size.value)
        told = HELD.sss_last_error(text, c_size_t(len(text)), byref(size))
        if told != Status.TOO_SMALL:
            break
    message = text.raw[: size.value] if told == Status.OK else b""
    return from_status(status, (message or describe(status)).decode("utf-8", "replace"))


def describe(status: int) -> bytes:
    """The library's general text for a status."""
    return HELD.sss_strerror(c_int32(status)) or b"unknown status %d" % status


def options(timeout_ms: int, idle_timeout_ms: int, principal: Optional[bytes], flags: int, grace_ms: int) -> Any:
    """A pointer to an sss_options, which lives as long as the pointer does."""
    size = 0 if principal is None else len(principal)
    return byref(Options(sizeof(Options), flags, timeout_ms, idle_timeout_ms, principal, size, grace_ms))


class Scratch:
    """Everything that one call can write to, made once and used again.

    Between ``borrow`` and ``give_back`` it belongs to one call alone. So no other thread, signal handler, finaliser,
    greenlet or nested call of the store can meet another's bytes, which buffers kept per thread would not promise.
    Whoever has read a payload or an id from it wipes it. If an exception passes, it is simply not given back.
    """

    __slots__ = ("buffer", "capacity", "id", "id_memory", "length", "memory", "meta", "out", "size", "view")

    def __init__(self, size: int = 16 * 1024) -> None:
        self.size = size
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)
        self.out = bytearray(8 + sizeof(Meta))  # a size_t, then an sss_meta: see unpack
        self.id_memory = bytearray(SID_LEN + 1)
        meta = Meta.from_buffer(self.out, 8)
        meta.size = sizeof(Meta)
        self.capacity = c_size_t(size)
        self.buffer = byref((c_char * size).from_buffer(self.memory))
        self.length = byref(c_size_t.from_buffer(self.out))
        self.meta = byref(meta)
        self.id = byref((c_char * (SID_LEN + 1)).from_buffer(self.id_memory))

    def larger(self) -> Scratch:
        """For a payload that did not fit. The session may have grown again by the next try, hence the doubling."""
        return Scratch(max(2 * self.size, unpack(self.out)[0]))

    def take_payload(self, size: int) -> bytes:
        payload = self.view[:size].tobytes()
        self.memory[:size] = bytearray(size)  # bytes would be copied once more
        return payload

    def take_id(self) -> str:
        sid = self.id_memory[:SID_LEN].decode("ascii")
        self.id_memory[:] = bytearray(SID_LEN + 1)
        return sid


# Of Scratch.out: length, version, created, last_seen, expires (size and flags of the sss_meta are passed over).
unpack: Final = struct.Struct("=" + ("Q" if sizeof(c_size_t) == 8 else "I4x") + "8xQqqq").unpack_from

_pool: Final[list[Scratch]] = []
_LARGEST_KEPT: Final = 256 * 1024


def borrow() -> Scratch:
    try:
        return _pool.pop()  # one atomic step, as is append
    except IndexError:
        return Scratch()


def give_back(scratch: Scratch) -> None:
    if scratch.size <= _LARGEST_KEPT:
        _pool.append(scratch)
