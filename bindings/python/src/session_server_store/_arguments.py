"""Turns what callers give (ids, seconds, principals) into what the library takes, and says clearly when it cannot.

Only types and units are judged here; what the values mean is the library's business.
"""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Union

from .errors import InvalidError, Status
from .records import FOREVER

Timeout = Union[int, float, timedelta, None]
"""Seconds, or a timedelta; ``None`` is never; zero or less is dead at once."""


class NotGiven(Enum):
    """The type of ``NOT_GIVEN``, which stands for an argument that the caller left out."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN

MaybeTimeout = Union[Timeout, NotGiven]
MaybePrincipal = Union[str, bytes, NotGiven, None]
Duration = Union[int, float, timedelta]


def invalid(message: str) -> InvalidError:
    return InvalidError(Status.INVALID, message)


def id_bytes(sid: Union[str, bytes], what: str = "sid") -> bytes:
    """The bytes of an id. What is no ASCII cannot be one: it becomes '?', which is in no id."""
    if isinstance(sid, str):
        return sid.encode("ascii", "replace")
    if isinstance(sid, bytes):
        return sid
    raise TypeError(f"{what} must be str or bytes, not {type(sid).__name__}")


def ref_bytes(ref: bytes, size: int) -> bytes:
    if not isinstance(ref, bytes):
        raise TypeError(f"ref must be bytes, not {type(ref).__name__}")
    if len(ref) != size:
        raise invalid(f"a ref has {size} bytes, not {len(ref)}")
    return ref


def principal_bytes(principal: Union[str, bytes]) -> bytes:
    if isinstance(principal, bytes):
        return principal
    if not isinstance(principal, str):
        raise TypeError(f"principal must be str or bytes, not {type(principal).__name__}")
    try:
        return principal.encode()
    except UnicodeEncodeError:
        raise invalid("the principal is not valid Unicode") from None


def unsigned(value: int, what: str) -> int:
    """An integer that fits 64 bits without a sign; ctypes would cut off the rest silently."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be int, not {type(value).__name__}")
    if not 0 <= value < 2**64:
        raise invalid(f"{what} must be from 0 to 2**64 - 1")
    return value


def milliseconds(value: Duration, what: str) -> int:
    """The nearest whole number, but never 0 for what is not 0, and never beyond 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise TypeError(f"{what} must be seconds or a timedelta, not {type(value).__name__}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, float):
        if math.isnan(seconds):
            raise invalid(f"{what} is not a number")
        seconds = max(-1e16, min(seconds, 1e16))  # further out the limit below decides anyway
    ms = round(seconds * 1000)
    if ms == 0 and seconds != 0:
        ms = 1 if seconds > 0 else -1
    return max(-FOREVER, min(ms, FOREVER))


def timeout_ms(value: MaybeTimeout, what: str) -> int:
    """In the library 0 means "the store's own", or "as it was"; what is dead at once is negative there."""
    if value is NOT_GIVEN:
        return 0
    if value is None:
        return FOREVER
    ms = milliseconds(value, what)
    return ms if ms > 0 else -1


def is_empty(data: Any) -> bool:
    try:
        return len(data) == 0
    except TypeError:  # no container
        return data is None
