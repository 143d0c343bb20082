"""``Store``: one Python method for each function of the library. No rule of the contract is decided here."""

from __future__ import annotations

import sys
from ctypes import byref, c_int64, c_size_t, c_ubyte, c_uint64, sizeof
from types import TracebackType
from typing import Any, Callable, NoReturn, Optional, Union

from . import _ffi
from ._arguments import (
    NOT_GIVEN,
    Duration,
    MaybePrincipal,
    MaybeTimeout,
    NotGiven,
    id_bytes,
    invalid,
    is_empty,
    milliseconds,
    principal_bytes,
    ref_bytes,
    timeout_ms,
    unsigned,
)
from ._ffi import borrow, failure, give_back, id_length, length, unpack
from .errors import CorruptError, SessionStoreError, Status, UrlError
from .records import Session, SessionInfo, Stats
from .serializers import JSON, RAW, Serializer

Id = Union[str, bytes]
Infos = list[SessionInfo]  # inside the class, ``list`` is the method

_NOT_FOUND = int(Status.NOT_FOUND)
_TOO_SMALL = int(Status.TOO_SMALL)
_CLOSE_IS_DONE = (Status.OK, Status.HANDLE, Status.FORKED)


class Store:
    """Sessions behind a URL, for as many threads as like to use it. A context manager; ``close`` at any time.

    Missing sessions (unknown, malformed, expired, deleted: the same) are ``None`` or ``False``; every other failure is
    a ``SessionStoreError``. A forked child goes on with an ``lmdb:`` store; if the engine is ``memory:``, it has to
    open its own.
    """

    __slots__ = ("__weakref__", "_dumps", "_get", "_handle", "_loads", "_put", "_raw", "_reading", "_writing")

    def __init__(self, url: str = "memory:", *, serializer: Serializer = JSON) -> None:
        self._handle = _ffi.NO_STORE
        text = url_bytes(url)
        self._prepare(serializer)
        handle = c_uint64()
        status = _ffi.RELEASED.sss_open(text, length(text), byref(handle))
        if status:
            raise failure(status)
        self._use(handle)

    def _prepare(self, serializer: Serializer) -> None:
        if not callable(getattr(serializer, "dumps", None)) or not callable(getattr(serializer, "loads", None)):
            raise TypeError(f"serializer must have dumps and loads; {type(serializer).__name__} has not")
        self._dumps: Callable[[Any], bytes] = serializer.dumps
        self._loads: Callable[[bytes], Any] = serializer.loads
        self._raw = serializer is RAW

    def _use(self, handle: c_uint64) -> None:
        self._handle = handle
        self._reading, self._writing = _ffi.faces(handle)
        self._get = self._reading.sss_get
        self._put = self._writing.sss_put

    def create(
        self,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: Union[str, bytes, None] = None,
    ) -> str:
        """A new session; returns its id. The timeouts are the store's unless given."""
        payload = self._dump(data)
        owner: MaybePrincipal = NOT_GIVEN if principal is None else principal
        options = _options(timeout, idle_timeout, owner)
        scratch = borrow()
        status = self._writing.sss_create(self._handle, payload, length(payload), options, scratch.id, None)
        if status:
            give_back(scratch)
            raise failure(status)
        sid = scratch.take_id()
        give_back(scratch)
        return sid

    def get(self, sid: Id, *, peek: bool = False) -> Optional[Session]:
        """The session, or ``None``. It counts as used, unless this is only a peek."""
        key = id_bytes(sid)
        flags = _ffi.PEEK if peek else _ffi.SLIDE
        scratch = borrow()
        while True:
            status = self._get(
                self._handle, key, id_length(key), flags, scratch.buffer, scratch.capacity, scratch.length, scratch.meta
            )
            if status != _TOO_SMALL:
                break
            scratch = scratch.larger()
        if status:
            give_back(scratch)
            _check_missing(status)
            return None
        size, version, created, last_seen, expires = unpack(scratch.out)
        payload = scratch.take_payload(size)
        give_back(scratch)
        return Session(self._load(payload), version, created, last_seen, expires)

    def put(
        self,
        sid: Id,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
    ) -> Optional[Session]:
        """Replaces the payload of a living session; ``None`` if there is none, for it creates and revives nothing.

        What is not given stays as it was; ``principal=None`` takes the principal away.
        """
        key = id_bytes(sid)
        payload = self._dump(data)
        options = _options(timeout, idle_timeout, principal)
        scratch = borrow()
        status = self._put(self._handle, key, id_length(key), payload, length(payload), options, scratch.meta)
        return _written(status, scratch, data)

    def put_if(
        self,
        sid: Id,
        version: int,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
    ) -> Optional[Session]:
        """``put`` if the session still has the version that was read, else ``ConflictError``."""
        key = id_bytes(sid)
        expected = c_uint64(unsigned(version, "version"))
        payload = self._dump(data)
        options = _options(timeout, idle_timeout, principal)
        scratch = borrow()
        status = self._writing.sss_put_if(
            self._handle, key, id_length(key), expected, payload, length(payload), options, scratch.meta
        )
        return _written(status, scratch, data)

    def touch(self, sid: Id) -> Optional[Session]:
        """Counts as a use. The result has the times and the version, but no payload."""
        key = id_bytes(sid)
        scratch = borrow()
        status = self._reading.sss_touch(self._handle, key, id_length(key), scratch.meta)
        return _written(status, scratch, None)

    def renew(
        self,
        sid: Id,
        data: Any = NOT_GIVEN,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
        grace: Duration = 0,
    ) -> Optional[str]:
        """Gives a session a new id, as every login must; returns it, or ``None``.

        The old id is dead at once, or can still be read, and no more than that, for ``grace``.
        """
        key = id_bytes(sid)
        payload = None if data is NOT_GIVEN else self._dump(data)
        size = _ffi.NOTHING if payload is None else length(payload)
        options = _options(timeout, idle_timeout, principal, milliseconds(grace, "grace"))
        scratch = borrow()
        status = self._writing.sss_renew(self._handle, key, id_length(key), payload, size, options, scratch.id, None)
        if status:
            give_back(scratch)
            _check_missing(status)
            return None
        new = scratch.take_id()
        give_back(scratch)
        return new

    def delete(self, sid: Id) -> bool:
        """Ends a session; ``False`` if there was none."""
        key = id_bytes(sid)
        return _found(self._writing.sss_delete(self._handle, key, id_length(key)))

    def sweep(self, max: int = 1000) -> int:
        """Removes up to ``max`` expired sessions; returns how many. Less than ``max``: nothing is left."""
        removed = c_uint64()
        _check(_ffi.RELEASED.sss_sweep(self._handle, c_uint64(unsigned(max, "max")), byref(removed)))
        return removed.value

    def list(self, principal: Union[str, bytes]) -> Infos:
        """The living sessions of a principal, oldest first. Never their ids."""
        owner = principal_bytes(principal)
        count = c_size_t(16)
        while True:
            room = count.value
            entries = (_ffi.Entry * room)()
            _check(_ffi.RELEASED.sss_list(self._handle, owner, length(owner), entries, c_size_t(room), byref(count)))
            if count.value <= room:
                break
        return [
            SessionInfo(bytes(e.ref), e.version, e.payload_len, e.created_ms, e.last_seen_ms, e.expires_ms)
            for e in entries[: count.value]
        ]

    def revoke(self, principal: Union[str, bytes], *, except_sid: Optional[Id] = None) -> int:
        """Ends all sessions of a principal, or all but one; returns how many."""
        owner = principal_bytes(principal)
        spared = None if except_sid is None else id_bytes(except_sid, "except_sid")
        size = _ffi.NOTHING if spared is None else id_length(spared)
        count = c_uint64()
        _check(_ffi.RELEASED.sss_revoke(self._handle, owner, length(owner), spared, size, byref(count)))
        return count.value

    def ref(self, sid: Id) -> Optional[bytes]:
        """The reference of a session: names it in ``list`` and for ``delete_ref``, and gives no access to it."""
        key = id_bytes(sid)
        reference = (c_ubyte * _ffi.REF_LEN)()
        return bytes(reference) if _found(self._reading.sss_ref(self._handle, key, id_length(key), reference)) else None

    def delete_ref(self, ref: bytes) -> bool:
        """Ends the session that a reference names; ``False`` if there was none."""
        return _found(self._writing.sss_delete_ref(self._handle, ref_bytes(ref, _ffi.REF_LEN)))

    def stats(self) -> Stats:
        numbers = _ffi.Stats(sizeof(_ffi.Stats))
        _check(self._reading.sss_stats(self._handle, byref(numbers)))
        return Stats(*(getattr(numbers, name) for name in Stats._fields))

    def advance_clock(self, seconds: Duration) -> None:
        """Moves the clock of a store that was opened with ``clock=manual``; for tests."""
        _check(_ffi.RELEASED.sss_advance_clock(self._handle, c_int64(milliseconds(seconds, "seconds"))))

    def close(self) -> None:
        """Calls in flight in other threads finish, later ones are ``ClosedError``. A second close does nothing."""
        handle, self._handle = self._handle, _ffi.NO_STORE
        status = _ffi.RELEASED.sss_close(handle)
        if status not in _CLOSE_IS_DONE:  # in a forked child there is nothing of ours to close
            raise failure(status)

    @property
    def closed(self) -> bool:
        return self._handle is _ffi.NO_STORE

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the exit of the interpreter modules may be gone already, and the process takes everything with it anyway.
        if not _is_finalizing() and getattr(self, "_handle", _ffi.NO_STORE) is not _ffi.NO_STORE:
            _ffi.RELEASED.sss_close(self._handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Store cannot be copied or pickled: open one by its URL in each process")

    def __repr__(self) -> str:  # without the URL, which may hold a password
        return f"<{type(self).__name__} {'closed' if self.closed else 'open'}>"

    def _dump(self, data: Any) -> bytes:
        if not self._raw and is_empty(data):
            raise invalid("an empty session is not stored")
        payload = self._dumps(data)
        if not isinstance(payload, bytes):
            raise TypeError(f"the serializer's dumps must return bytes, not {type(payload).__name__}")
        return payload

    def _load(self, payload: bytes) -> Any:
        try:
            return self._loads(payload)
        except Exception as error:
            if _is_process_error(error):
                raise
            name = type(error).__name__
            raise CorruptError(Status.CORRUPT, f"the serializer cannot read the stored payload ({name})") from error


def url_bytes(url: str) -> bytes:
    if not isinstance(url, str):
        raise TypeError(f"url must be str, not {type(url).__name__}")
    try:
        return url.encode()
    except UnicodeEncodeError:
        raise UrlError(Status.URL, "the URL is not valid Unicode") from None


def _options(timeout: MaybeTimeout, idle_timeout: MaybeTimeout, principal: MaybePrincipal, grace: int = 0) -> Any:
    """``None`` if nothing is to be said, which is the usual case."""
    if timeout is NOT_GIVEN and idle_timeout is NOT_GIVEN and principal is NOT_GIVEN and grace == 0:
        return None
    return _ffi.options(
        timeout_ms(timeout, "timeout"),
        timeout_ms(idle_timeout, "idle_timeout"),
        None if principal is None or isinstance(principal, NotGiven) else principal_bytes(principal),
        _ffi.CLEAR_PRINCIPAL if principal is None else 0,
        grace,
    )


def _written(status: int, scratch: _ffi.Scratch, data: Any) -> Optional[Session]:
    _, version, created, last_seen, expires = unpack(scratch.out)
    give_back(scratch)
    if status:
        _check_missing(status)
        return None
    return Session(data, version, created, last_seen, expires)


def _is_process_error(error: Exception) -> bool:
    """Whether an exception of ``loads`` is about this process or machine, and not about the payload."""
    if isinstance(error, OSError):
        return error.errno is not None  # without one it is a decompressor's complaint about its input
    if type(error) is ValueError:
        return "set_int_max_str_digits" in str(error)
    return isinstance(error, (MemoryError, RecursionError, SessionStoreError))


def _check(status: int) -> None:
    if status:
        raise failure(status)


def _check_missing(status: int) -> None:
    if status != _NOT_FOUND:
        raise failure(status)


def _found(status: int) -> bool:
    if status:
        _check_missing(status)
    return not status
