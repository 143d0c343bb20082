"""Converts arguments of the public API (ids, timeouts, principals) to what the library takes.

Checks types and units only. What a value means is decided by the library.
"""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Optional, Union

from .errors import InvalidError, Status, UrlError
from .records import FOREVER

Id = Union[str, bytes]
Principal = Union[str, bytes, int]
Duration = Union[int, float, timedelta]
Label = Union[str, bytes]


class Inherit(Enum):
    """The type of ``INHERIT``."""

    INHERIT = "inherit"

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final = Inherit.INHERIT
"""As a timeout of a session: none of its own, so that it has the store's from now on."""

Timeout = Union[int, float, timedelta, None, Inherit]
"""Seconds or a timedelta. None: never. Zero or less: the session has ended at once. ``INHERIT``."""


class NotGiven(Enum):
    """The type of ``NOT_GIVEN``, the default of arguments for which None has a meaning."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN

MaybeTimeout = Union[Timeout, NotGiven]
MaybePrincipal = Union[Principal, NotGiven, None]
MaybeLabel = Union[Label, NotGiven, None]


def invalid_argument(message: str) -> InvalidError:
    return InvalidError(Status.INVALID, message)


def url_bytes(url: str) -> bytes:
    if not isinstance(url, str):
        raise TypeError(f"url must be str, not {type(url).__name__}")
    try:
        return url.encode()
    except UnicodeEncodeError:
        raise UrlError(Status.URL, "the URL is not valid Unicode") from None


def id_bytes(sid: Id, name: str = "sid") -> bytes:
    """The bytes of an id. Other characters than ASCII become '?', which no id contains."""
    if isinstance(sid, str):
        return sid.encode("ascii", "replace")
    if isinstance(sid, bytes):
        return sid
    raise TypeError(f"{name} must be str or bytes, not {type(sid).__name__}")


def ref_bytes(ref: bytes, size: int) -> bytes:
    if not isinstance(ref, bytes):
        raise TypeError(f"ref must be bytes, not {type(ref).__name__}")
    if len(ref) != size:
        raise invalid_argument(f"ref must have {size} bytes, not {len(ref)}")
    return ref


def principal_bytes(principal: Principal) -> bytes:
    """An integer is the same principal as its decimal digits in a str."""
    if isinstance(principal, bytes):
        return principal
    if isinstance(principal, bool) or not isinstance(principal, (str, int)):
        raise TypeError(f"principal must be str, bytes or int, not {type(principal).__name__}")
    try:
        return (principal if isinstance(principal, str) else int.__repr__(principal)).encode()
    except UnicodeEncodeError:
        raise invalid_argument("principal is not valid Unicode") from None
    except ValueError:  # Python's limit on the digits of an int
        raise invalid_argument("principal has too many digits") from None


def label_bytes(label: MaybeLabel) -> Optional[bytes]:
    """In the C API, NULL stands for no change, and no bytes remove the label."""
    if isinstance(label, NotGiven):
        return None
    if label is None:
        return b""
    if isinstance(label, bytes):
        return label
    if not isinstance(label, str):
        raise TypeError(f"label must be str or bytes, not {type(label).__name__}")
    try:
        return label.encode()
    except UnicodeEncodeError:
        raise invalid_argument("label is not valid Unicode") from None


def uint64(value: int, name: str) -> int:
    """Checks the range, because ctypes truncates silently."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    if not 0 <= value < 2**64:
        raise invalid_argument(f"{name} must be from 0 to 2**64 - 1")
    return value


def milliseconds(value: Duration, name: str) -> int:
    """Rounded to the nearest, except that only 0 becomes 0. Saturates at 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, float):
        if math.isnan(seconds):
            raise invalid_argument(f"{name} is not a number")
        seconds = max(-1e16, min(seconds, 1e16))  # round() cannot take infinity
    ms = round(seconds * 1000)
    if ms == 0 and seconds != 0:
        ms = 1 if seconds > 0 else -1
    return max(-FOREVER, min(ms, FOREVER))


def timeout_ms(value: MaybeTimeout, name: str) -> int:
    """In the C API, 0 stands for the store's own timeout, or in put and renew for no change."""
    if value is NOT_GIVEN:
        return 0
    if value is None:
        return FOREVER
    if isinstance(value, Inherit):
        return -FOREVER - 1
    ms = milliseconds(value, name)
    return ms if ms > 0 else -1


def is_empty(data: Any) -> bool:
    try:
        return len(data) == 0
    except TypeError:  # not a container
        return data is None
