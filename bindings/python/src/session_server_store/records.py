"""The results of a store: ``Session``, ``SessionInfo``, ``Stats``. Immutable.

Times are stored as milliseconds and converted to datetimes on access.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, Optional

FOREVER: Final = 2**63 - 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _to_datetime(ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:  # beyond the range of datetime
        return (datetime.max if ms > 0 else datetime.min).replace(tzinfo=timezone.utc)


def _to_timedelta(ms: int) -> Optional[timedelta]:
    if ms == FOREVER:
        return None
    try:
        return timedelta(milliseconds=ms)
    except OverflowError:
        return timedelta.max


class _Timestamps:
    """The times that sessions and list entries have in common. In UTC, with time zone."""

    __slots__ = ("_authenticated", "_created", "_expires", "_last_seen")

    def __init__(self, created: int, last_seen: int, expires: int, authenticated: int) -> None:
        self._created = created
        self._last_seen = last_seen
        self._expires = expires
        self._authenticated = authenticated

    @property
    def created(self) -> datetime:
        return _to_datetime(self._created)

    @property
    def last_seen(self) -> datetime:
        return _to_datetime(self._last_seen)

    @property
    def expires(self) -> Optional[datetime]:
        """When the session ends unless it is used before. None: never."""
        return None if self._expires == FOREVER else _to_datetime(self._expires)

    @property
    def authenticated(self) -> Optional[datetime]:
        """When the user last proved their identity: at a login or reauthentication. None: never."""
        return None if self._authenticated == 0 else _to_datetime(self._authenticated)

    def _key(self) -> tuple[Any, ...]:
        return (self._created, self._last_seen, self._expires, self._authenticated)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


class Session(_Timestamps):
    """A session as it was when it was read or written. ``repr`` does not show the payload."""

    __slots__ = ("_idle_timeout", "_payload", "_timeout", "_version")

    def __init__(
        self,
        payload: Any,
        version: int,
        created: int,
        last_seen: int,
        expires: int,
        authenticated: int,
        timeout: int,
        idle_timeout: int,
    ) -> None:
        super().__init__(created, last_seen, expires, authenticated)
        self._payload = payload
        self._version = version
        self._timeout = timeout
        self._idle_timeout = idle_timeout

    @property
    def payload(self) -> Any:
        return self._payload

    @property
    def version(self) -> int:
        """1 after ``create``; every new payload adds 1. The argument of ``put_if``."""
        return self._version

    @property
    def timeout(self) -> Optional[timedelta]:
        """The absolute timeout in force, the session's own or its store's. None: never.

        It counts from the later of ``created`` and ``authenticated``.
        """
        return _to_timedelta(self._timeout)

    @property
    def idle_timeout(self) -> Optional[timedelta]:
        """The idle timeout in force, the session's own or its store's. None: never."""
        return _to_timedelta(self._idle_timeout)

    def _key(self) -> tuple[Any, ...]:
        return (self._payload, self._version, self._timeout, self._idle_timeout, *super()._key())

    def __repr__(self) -> str:
        return f"<Session version={self._version} created={self.created} expires={self.expires}>"


class SessionInfo(_Timestamps):
    """One entry of ``list``. ``ref`` is for ``delete_ref`` and gives no access to the session."""

    __slots__ = ("_label", "_ref", "_size", "_version")

    def __init__(
        self,
        ref: bytes,
        version: int,
        size: int,
        created: int,
        last_seen: int,
        expires: int,
        authenticated: int,
        label: bytes,
    ) -> None:
        super().__init__(created, last_seen, expires, authenticated)
        self._ref = ref
        self._version = version
        self._size = size
        self._label = label

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

    @property
    def label(self) -> Optional[str]:
        """What ``label`` has set, with a replacement character for what is not UTF-8."""
        return self._label.decode("utf-8", "replace") if self._label else None

    @property
    def label_bytes(self) -> bytes:
        """The label as it was set. Empty: none."""
        return self._label

    def _key(self) -> tuple[Any, ...]:
        return (self._ref, self._version, self._size, self._label, *super()._key())

    def __repr__(self) -> str:  # without the label, which may name a person or an address
        return (
            f"<SessionInfo ref={self._ref.hex()} version={self._version} size={self._size}"
            f" created={self.created} last_seen={self.last_seen} expires={self.expires}>"
        )


class Blocking(NamedTuple):
    """Whether calls on one session may block on another process, a disk or a network.

    ``reads`` are get, touch, touch_ref, ref and stats; ``writes`` are create, put, put_if, renew,
    delete and delete_ref.
    """

    reads: bool
    writes: bool


class Stats(NamedTuple):
    """Counters since the store was opened. ``sessions`` and ``bytes`` are the present contents."""

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
