"""The statuses of the library, and the exceptions that they become.

The numbers are those of sss.h. A session that does not exist is not an exception but None or False.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Status(IntEnum):
    """The statuses of the library. Later versions may add some; no number is reused."""

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
    """A failure of the store.

    ``code`` is the status, ``name`` its name ("FULL"), and ``message`` one line for a log, which
    never contains an id, a payload or a password. ``temporary``: the same call may succeed later,
    so a web server responds with 503.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(int(code), message)  # in args, which pickle keeps

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

    @property
    def temporary(self) -> bool:
        return self.code in _TEMPORARY


class InvalidError(SessionStoreError, ValueError):
    """An argument has a value that is not allowed."""


class ConflictError(SessionStoreError):
    """``put_if``: the session no longer has the version that was read."""


class TooLargeError(SessionStoreError):
    """The payload is larger than ``max_payload``."""


class FullError(SessionStoreError):
    """The store is at ``max_sessions`` or ``max_bytes``, or its memory or disk is full."""


class ClosedError(SessionStoreError):
    """The store is closed."""


class UrlError(SessionStoreError, ValueError):
    """The URL of the store is wrong. The message names the part that is."""


class UnsupportedError(SessionStoreError):
    """The engine does not have this operation."""


class UnavailableError(SessionStoreError):
    """The engine cannot answer (UNAVAILABLE, TIMEOUT, BUSY, IO). The session may exist or not."""


class CorruptError(SessionStoreError):
    """The library or the serializer cannot read what is stored."""


class ForkedError(SessionStoreError):
    """The store belongs to the parent process. The message names an engine that can be shared."""


_TEMPORARY: Final = frozenset(
    (Status.UNAVAILABLE, Status.TIMEOUT, Status.FULL, Status.BUSY, Status.NOMEM, Status.RANDOM)
)

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
    """The exception for a status."""
    return _CLASSES.get(code, SessionStoreError)(code, message)
