"""Memory that calls write their results to. Allocated once, pooled, and wiped after each use.

Between ``acquire`` and ``release`` a ``Scratch`` belongs to one call. Thread-local buffers would
not be enough: during a call, a signal handler, finaliser, greenlet or serializer may make another.
"""

from __future__ import annotations

import struct
from ctypes import byref, c_char, c_size_t, sizeof
from typing import Final

from ._ffi import SID_LEN, MetaStruct

INITIAL_SIZE: Final = 16 * 1024
MAX_POOLED_SIZE: Final = 256 * 1024


class Scratch:
    """Room for a payload, an id and an sss_meta, and the pointers to them.

    After an exception it is not released but left to the garbage collector.
    """

    __slots__ = ("capacity", "id", "id_memory", "length", "memory", "meta", "out", "payload", "size", "view")

    def __init__(self, size: int = INITIAL_SIZE) -> None:
        self.size = size
        self.memory = bytearray(size)
        self.view = memoryview(self.memory)
        self.out = bytearray(8 + sizeof(MetaStruct))  # a size_t, then an sss_meta: see unpack
        self.id_memory = bytearray(SID_LEN + 1)
        meta = MetaStruct.from_buffer(self.out, 8)
        meta.size = sizeof(MetaStruct)
        self.capacity = c_size_t(size)
        self.payload = byref((c_char * size).from_buffer(self.memory))
        self.length = byref(c_size_t.from_buffer(self.out))
        self.meta = byref(meta)
        self.id = byref((c_char * (SID_LEN + 1)).from_buffer(self.id_memory))

    def larger(self) -> Scratch:
        """For a payload that did not fit. Doubled, because it may grow before the next try."""
        return Scratch(max(2 * self.size, unpack(self.out)[0]))

    def take_payload(self, size: int) -> bytes:
        """Copies the payload and wipes it here."""
        payload = self.view[:size].tobytes()
        self.memory[:size] = bytearray(size)  # assigning bytes would copy them first
        return payload

    def take_id(self) -> str:
        """Copies the id and wipes it here."""
        sid = self.id_memory[:SID_LEN].decode("ascii")
        self.id_memory[:] = bytearray(SID_LEN + 1)
        return sid


# Of Scratch.out: the length, and the sss_meta from its version on.
unpack: Final = struct.Struct("=" + ("Q" if sizeof(c_size_t) == 8 else "I4x") + "8xQqqqqqq").unpack_from

_pool: Final[list[Scratch]] = []


def acquire() -> Scratch:
    try:
        return _pool.pop()  # atomic, like append
    except IndexError:
        return Scratch()


def release(scratch: Scratch) -> None:
    if scratch.size <= MAX_POOLED_SIZE:
        _pool.append(scratch)
