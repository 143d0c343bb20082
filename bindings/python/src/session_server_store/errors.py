"""The statuses of the library and the exceptions that they become.

The numbers are those of sss.h and never change. Missing sessions are no exceptions: they are ``None`` or ``False``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Status(IntEnum):
    """What the library answers. Later versions may know more numbers; none is ever reused."""

    OK = 0
    INVALID = -1
    HANDLE = -2
    NOT_FOUND = -3
    CONFLICT = -4
    TOO_SMALL = -5
    TOO_LARGE = -6
    FULL = -7
    EXISTS = -8
    URL = -9
    UNSUPPORTED = -10
    IO = -11
    UNAVAILABLE = -12
    TIMEOUT = -13
    BUSY = -14
    CORRUPT = -15
    RANDOM = -16
    NOMEM = -17
    FORKED = -18
    PANIC = -19


class SessionStoreError(Exception):
    """A failure of the store. ``code`` is its number, ``name`` its name ("FULL"), ``message`` one line for a log."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(int(code), message)  # both in args, so that it survives pickling

    def __str__(self) -> str:
        return self.message

    @property
    def code(self) -> int:
        return int(self.args[0])

    @property
    def name(self) -> str:
        try:
            return Status(self.code).name
        except ValueError:
            return "UNKNOWN"

    @property
    def message(self) -> str:
        return str(self.args[1])


class InvalidError(SessionStoreError, ValueError):
    """An argument has a value that the store does not take."""


class ConflictError(SessionStoreError):
    """``put_if``: the session is no longer the version that was read."""


class TooLargeError(SessionStoreError):
    """The payload is larger than the store's ``max_payload``."""


class FullError(SessionStoreError):
    """The store is at ``max_sessions`` or ``max_bytes``, and nothing in it has expired."""


class ClosedError(SessionStoreError):
    """The store was closed."""


class UrlError(SessionStoreError, ValueError):
    """The URL of the store is wrong; the message names the culprit."""


class UnsupportedError(SessionStoreError):
    """This engine cannot do that."""


class UnavailableError(SessionStoreError):
    """The engine cannot answer now (unavailable, timeout, busy, input or output). It says nothing about the session."""


class CorruptError(SessionStoreError):
    """What is stored cannot be read back, by the library or by the serializer."""


class ForkedError(SessionStoreError):
    """The store belongs to the parent process; the message says what to use instead."""


_CLASSES: Final[dict[int, type[SessionStoreError]]] = {
    Status.INVALID: InvalidError,
    Status.CONFLICT: ConflictError,
    Status.TOO_LARGE: TooLargeError,
    Status.FULL: FullError,
    Status.HANDLE: ClosedError,
    Status.URL: UrlError,
    Status.UNSUPPORTED: UnsupportedError,
    Status.IO: UnavailableError,
    Status.UNAVAILABLE: UnavailableError,
    Status.TIMEOUT: UnavailableError,
    Status.BUSY: UnavailableError,
    Status.CORRUPT: CorruptError,
    Status.FORKED: ForkedError,
}


def from_status(code: int, message: str) -> SessionStoreError:
    """The exception for a status, ready to be raised."""
    return _CLASSES.get(code, SessionStoreError)(code, message)
