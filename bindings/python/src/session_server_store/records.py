"""What a store returns: ``Session``, ``SessionInfo``, ``Stats``. Immutable, and they hold nothing of the library's.

Times are kept as the milliseconds that the library gave and become datetimes when somebody looks.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, Optional

FOREVER: Final = 2**63 - 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _moment(ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:  # a deadline beyond what a datetime can say
        return (datetime.max if ms > 0 else datetime.min).replace(tzinfo=timezone.utc)


class _Times:
    """The three times that every record has. Aware, in UTC."""

    __slots__ = ("_created", "_expires", "_last_seen")

    _created: int
    _last_seen: int
    _expires: int

    @property
    def created(self) -> datetime:
        return _moment(self._created)

    @property
    def last_seen(self) -> datetime:
        return _moment(self._last_seen)

    @property
    def expires(self) -> Optional[datetime]:
        """When the session dies if nobody uses it; ``None`` is never."""
        return None if self._expires == FOREVER else _moment(self._expires)

    def _key(self) -> tuple[Any, ...]:
        return (self._created, self._last_seen, self._expires)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


class Session(_Times):
    """A living session, as it was when it was read or written. The payload is not shown by ``repr``."""

    __slots__ = ("_payload", "_version")

    def __init__(self, payload: Any, version: int, created: int, last_seen: int, expires: int) -> None:
        self._payload = payload
        self._version = version
        self._created = created
        self._last_seen = last_seen
        self._expires = expires

    @property
    def payload(self) -> Any:
        return self._payload

    @property
    def version(self) -> int:
        """1 after ``create``, one more with every ``put``; what ``put_if`` wants."""
        return self._version

    def _key(self) -> tuple[Any, ...]:
        return (self._payload, self._version, *super()._key())

    def __repr__(self) -> str:
        return f"<Session version={self._version} created={self.created} expires={self.expires}>"


class SessionInfo(_Times):
    """One line of ``list``. ``ref`` names the session for ``delete_ref`` and gives no access to it."""

    __slots__ = ("_ref", "_size", "_version")

    def __init__(self, ref: bytes, version: int, size: int, created: int, last_seen: int, expires: int) -> None:
        self._ref = ref
        self._version = version
        self._size = size
        self._created = created
        self._last_seen = last_seen
        self._expires = expires

    @property
    def ref(self) -> bytes:
        return self._ref

    @property
    def version(self) -> int:
        return self._version

    @property
    def size(self) -> int:
        """The length of the payload in bytes."""
        return self._size

    def _key(self) -> tuple[Any, ...]:
        return (self._ref, self._version, self._size, *super()._key())

    def __repr__(self) -> str:
        return (
            f"<SessionInfo ref={self._ref.hex()} version={self._version} size={self._size}"
            f" created={self.created} last_seen={self.last_seen} expires={self.expires}>"
        )


class Stats(NamedTuple):
    """Counters since the store was opened; ``sessions`` and ``bytes`` are what is in it now."""

    sessions: int
    bytes: int
    created: int
    hits: int
    misses: int
    puts: int
    deleted: int
    renewed: int
    conflicts: int
    revoked: int
    expired: int
    rejected: int
    errors: int
