"""``Store``: one method for each function of the library, which has all rules about sessions."""

from __future__ import annotations

import builtins
import sys
from ctypes import byref, c_int64, c_size_t, c_ubyte, c_uint64, sizeof
from types import TracebackType
from typing import Any, Callable, Final, Literal, NoReturn, Optional, overload

from ._arguments import (
    NOT_GIVEN,
    Duration,
    Id,
    Label,
    MaybeLabel,
    MaybePrincipal,
    MaybeTimeout,
    NotGiven,
    Principal,
    id_bytes,
    invalid_argument,
    is_empty,
    label_bytes,
    milliseconds,
    principal_bytes,
    ref_bytes,
    timeout_ms,
    uint64,
    url_bytes,
)
from ._ffi import (
    CLEAR_PRINCIPAL,
    LIB_NOGIL,
    NO_FLAGS,
    NO_STORE,
    PEEK,
    REAUTHENTICATED,
    REF_LEN,
    ZERO_LENGTH,
    EntryStruct,
    StatsStruct,
    failure,
    id_length,
    length,
    libs_for,
    may_block,
    options_pointer,
)
from ._scratch import Scratch, acquire, release, unpack
from .errors import CorruptError, SessionStoreError, Status
from .records import Blocking, Session, SessionInfo, Stats
from .serializers import JSON, RAW, Serializer

_NOT_FOUND: Final = int(Status.NOT_FOUND)
_TOO_SMALL: Final = int(Status.TOO_SMALL)
# In a forked child the parent's store is not this process's to close.
_CLOSED: Final = (Status.OK, Status.HANDLE, Status.FORKED)
_INITIAL_ENTRIES: Final = 16


class Store:
    """The sessions behind a URL. A context manager. Any number of threads may use and close it.

    A session that does not exist (an unknown, malformed, expired or deleted id) is None or False.
    Every other failure is a ``SessionStoreError``. A forked child can use an ``lmdb:`` or
    ``redis:`` store of its parent; with ``memory:`` it must open its own.
    """

    __slots__ = ("__weakref__", "_dumps", "_get", "_handle", "_loads", "_put", "_raw", "_read_lib", "_write_lib")

    def __init__(self, url: str = "memory:", *, serializer: Serializer = JSON) -> None:
        self._handle = NO_STORE
        text = url_bytes(url)
        self._set_serializer(serializer)
        handle = c_uint64()
        status = LIB_NOGIL.sss_open(text, length(text), byref(handle))
        if status:
            raise failure(status)
        self._attach(handle)

    def _set_serializer(self, serializer: Serializer) -> None:
        if not callable(getattr(serializer, "dumps", None)) or not callable(getattr(serializer, "loads", None)):
            raise TypeError(f"serializer must have dumps and loads; {type(serializer).__name__} does not")
        self._dumps: Callable[[Any], bytes] = serializer.dumps
        self._loads: Callable[[bytes], Any] = serializer.loads
        self._raw = serializer is RAW

    def _attach(self, handle: c_uint64) -> None:
        self._handle = handle
        self._read_lib, self._write_lib = libs_for(handle)
        self._get = self._read_lib.sss_get
        self._put = self._write_lib.sss_put

    @overload
    def create(
        self,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: Optional[Principal] = None,
        label: Optional[Label] = None,
        return_session: Literal[False] = False,
    ) -> str: ...

    @overload
    def create(
        self,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: Optional[Principal] = None,
        label: Optional[Label] = None,
        return_session: Literal[True],
    ) -> tuple[str, Session]: ...

    def create(
        self,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: Optional[Principal] = None,
        label: Optional[Label] = None,
        return_session: bool = False,
    ) -> Any:
        """Creates a session and returns its id. Timeouts that are not given are the store's.

        A principal makes it a login. ``label``, up to 255 bytes, is what ``list`` shows of it.
        Empty data is refused except by ``RAW``: a session without an id has nothing to keep yet.
        With ``return_session``, returns the id and the session: its version and times.
        """
        if not self._raw and is_empty(data):
            raise invalid_argument("an empty session is not stored")
        payload = self._dump(data)
        owner: MaybePrincipal = NOT_GIVEN if principal is None else principal
        options = _options(timeout, idle_timeout, owner, NOT_GIVEN if label is None else label)
        scratch = acquire()
        meta = scratch.meta if return_session else None
        status = self._write_lib.sss_create(self._handle, payload, length(payload), options, scratch.id, meta)
        if status:
            release(scratch)
            raise failure(status)
        new_sid = scratch.take_id()
        if return_session:
            return new_sid, _session_result(status, scratch, data)
        release(scratch)
        return new_sid

    def get(self, sid: Id, *, peek: bool = False) -> Optional[Session]:
        """Returns the session, or None. Restarts its idle timeout unless ``peek`` is true."""
        key = id_bytes(sid)
        flags = PEEK if peek else NO_FLAGS
        scratch = acquire()
        while True:
            status = self._get(
                self._handle,
                key,
                id_length(key),
                flags,
                scratch.payload,
                scratch.capacity,
                scratch.length,
                scratch.meta,
            )
            if status != _TOO_SMALL:
                break
            scratch = scratch.larger()
        if status:
            release(scratch)
            _check_missing(status)
            return None
        size, *meta = unpack(scratch.out)
        payload = scratch.take_payload(size)
        release(scratch)
        return Session(self._load(payload), *meta)

    def put(
        self,
        sid: Id,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
        label: MaybeLabel = NOT_GIVEN,
    ) -> Optional[Session]:
        """Replaces the payload. None if the session has ended: it is never created or revived.

        Timeouts and principal stay as they are unless given. ``principal=None`` removes the
        principal. The label belongs to the principal: it can be given only with it, stays with the
        same principal, and goes with it.
        """
        key = id_bytes(sid)
        payload = self._dump(data)
        options = _options(timeout, idle_timeout, principal, label)
        scratch = acquire()
        status = self._put(self._handle, key, id_length(key), payload, length(payload), options, scratch.meta)
        return _session_result(status, scratch, data)

    def put_if(
        self,
        sid: Id,
        version: int,
        data: Any,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
        label: MaybeLabel = NOT_GIVEN,
    ) -> Optional[Session]:
        """``put`` if the session still has this version; otherwise raises ``ConflictError``."""
        key = id_bytes(sid)
        expected = c_uint64(uint64(version, "version"))
        payload = self._dump(data)
        options = _options(timeout, idle_timeout, principal, label)
        scratch = acquire()
        status = self._write_lib.sss_put_if(
            self._handle, key, id_length(key), expected, payload, length(payload), options, scratch.meta
        )
        return _session_result(status, scratch, data)

    def touch(self, sid: Id) -> Optional[Session]:
        """Restarts the idle timeout. The payload of the result is None."""
        key = id_bytes(sid)
        scratch = acquire()
        status = self._read_lib.sss_touch(self._handle, key, id_length(key), scratch.meta)
        return _session_result(status, scratch, None)

    @overload
    def renew(
        self,
        sid: Id,
        data: Any = NOT_GIVEN,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
        label: MaybeLabel = NOT_GIVEN,
        reauthenticated: bool = False,
        grace: Duration = 0,
        return_session: Literal[False] = False,
    ) -> Optional[str]: ...

    @overload
    def renew(
        self,
        sid: Id,
        data: Any = NOT_GIVEN,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
        label: MaybeLabel = NOT_GIVEN,
        reauthenticated: bool = False,
        grace: Duration = 0,
        return_session: Literal[True],
    ) -> Optional[tuple[str, Session]]: ...

    def renew(
        self,
        sid: Id,
        data: Any = NOT_GIVEN,
        *,
        timeout: MaybeTimeout = NOT_GIVEN,
        idle_timeout: MaybeTimeout = NOT_GIVEN,
        principal: MaybePrincipal = NOT_GIVEN,
        label: MaybeLabel = NOT_GIVEN,
        reauthenticated: bool = False,
        grace: Duration = 0,
        return_session: bool = False,
    ) -> Any:
        """Gives the session a new id and returns it, or None. Call it at every login.

        A principal that the session did not have makes it a login, and ``reauthenticated`` says
        that the user has proved their identity again. Both restart the timeouts and set
        ``authenticated``; a mere new id does not move the absolute deadline.

        The old id ends at once, or with ``grace`` it can be read, but not written, for that long.
        ``grace`` with a login or reauthentication is an error, for an attacker may know the old id.
        Payload, timeouts and principal stay as they are unless given. With ``return_session``,
        returns the id and the session, whose payload is None if none was given.
        """
        key = id_bytes(sid)
        payload = None if data is NOT_GIVEN else self._dump(data)
        size = ZERO_LENGTH if payload is None else length(payload)
        flags = REAUTHENTICATED if reauthenticated else 0
        options = _options(timeout, idle_timeout, principal, label, milliseconds(grace, "grace"), flags)
        scratch = acquire()
        meta = scratch.meta if return_session else None
        status = self._write_lib.sss_renew(self._handle, key, id_length(key), payload, size, options, scratch.id, meta)
        if status:
            release(scratch)
            _check_missing(status)
            return None
        new_sid = scratch.take_id()
        if return_session:
            return new_sid, _session_result(status, scratch, None if payload is None else data)
        release(scratch)
        return new_sid

    def delete(self, sid: Id) -> bool:
        """Ends the session. False if there was none."""
        key = id_bytes(sid)
        return _found(self._write_lib.sss_delete(self._handle, key, id_length(key)))

    def sweep(self, max: int = 1000) -> int:
        """Removes up to ``max`` expired sessions. Returns how many; if fewer, none is left."""
        removed = c_uint64()
        _check(LIB_NOGIL.sss_sweep(self._handle, c_uint64(uint64(max, "max")), byref(removed)))
        return removed.value

    def list(self, principal: Principal) -> builtins.list[SessionInfo]:
        """The living sessions of a principal, oldest first, without their ids."""
        owner = principal_bytes(principal)
        count = c_size_t(_INITIAL_ENTRIES)
        while True:
            capacity = count.value
            entries = (EntryStruct * capacity)()
            _check(LIB_NOGIL.sss_list(self._handle, owner, length(owner), entries, c_size_t(capacity), byref(count)))
            if count.value <= capacity:
                break
        return [
            SessionInfo(
                bytes(e.ref),
                e.version,
                e.payload_len,
                e.created_ms,
                e.last_seen_ms,
                e.expires_ms,
                e.authenticated_ms,
                bytes(e.label[: e.label_len]),
            )
            for e in entries[: count.value]
        ]

    def revoke(self, principal: Principal, *, except_sid: Optional[Id] = None) -> int:
        """Ends all sessions of a principal, or all but one, and returns how many."""
        owner = principal_bytes(principal)
        excluded = None if except_sid is None else id_bytes(except_sid, "except_sid")
        excluded_length = ZERO_LENGTH if excluded is None else id_length(excluded)
        count = c_uint64()
        _check(LIB_NOGIL.sss_revoke(self._handle, owner, length(owner), excluded, excluded_length, byref(count)))
        return count.value

    def ref(self, sid: Id) -> Optional[bytes]:
        """The reference of the session, or None. It gives no access to the session."""
        key = id_bytes(sid)
        reference = (c_ubyte * REF_LEN)()
        return (
            bytes(reference) if _found(self._read_lib.sss_ref(self._handle, key, id_length(key), reference)) else None
        )

    def delete_ref(self, ref: bytes, *, principal: Optional[Principal] = None) -> bool:
        """Ends the session with this reference. False if there was none.

        With ``principal``, False and nothing else if the session is not one of this principal's.
        """
        reference = ref_bytes(ref, REF_LEN)
        owner = None if principal is None else principal_bytes(principal)
        size = ZERO_LENGTH if owner is None else length(owner)
        return _found(self._write_lib.sss_delete_ref(self._handle, reference, owner, size))

    def touch_ref(self, ref: bytes, *, peek: bool = False) -> Optional[Session]:
        """Restarts the idle timeout of the session with this reference. None if it has ended.

        With ``peek``, only looks. For what outlives a request, such as a WebSocket. The reference
        of a session ends when the session is renewed. The payload of the result is None.
        """
        reference = ref_bytes(ref, REF_LEN)
        scratch = acquire()
        flags = PEEK if peek else NO_FLAGS
        status = self._read_lib.sss_touch_ref(self._handle, reference, flags, scratch.meta)
        return _session_result(status, scratch, None)

    def revoke_all(self) -> int:
        """Ends every session of the store, and returns how many: after a leak of keys, say."""
        count = c_uint64()
        _check(LIB_NOGIL.sss_revoke_all(self._handle, byref(count)))
        return count.value

    def stats(self) -> Stats:
        """Counters of this store, and how much is in it."""
        counters = StatsStruct(sizeof(StatsStruct))
        _check(self._read_lib.sss_stats(self._handle, byref(counters)))
        return Stats(*(getattr(counters, name) for name in Stats._fields))

    def may_block(self) -> Blocking:
        """Which calls may block, so that an event loop has to make them in a thread."""
        return Blocking(*may_block(self._handle))

    def advance_clock(self, seconds: Duration) -> None:
        """Advances the clock of a store opened with ``clock=manual``, for tests."""
        _check(LIB_NOGIL.sss_advance_clock(self._handle, c_int64(milliseconds(seconds, "seconds"))))

    def close(self) -> None:
        """Waits for calls in other threads. Later calls raise ``ClosedError``.

        A second close does nothing.
        """
        handle, self._handle = self._handle, NO_STORE
        status = LIB_NOGIL.sss_close(handle)
        if status not in _CLOSED:
            raise failure(status)

    @property
    def closed(self) -> bool:
        return self._handle is NO_STORE

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
        # At interpreter exit modules may be gone, and the end of the process closes everything.
        if not _is_finalizing() and getattr(self, "_handle", NO_STORE) is not NO_STORE:
            LIB_NOGIL.sss_close(self._handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Store cannot be copied or pickled: open its URL in each process")

    def __repr__(self) -> str:  # without the URL, which may hold a password
        return f"<{type(self).__name__} {'closed' if self.closed else 'open'}>"

    def _dump(self, data: Any) -> bytes:
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


class StoreView(Store):
    """A store that something else closes, with a serializer of its own."""

    __slots__ = ()

    def __init__(self, serializer: Serializer, store: Optional[Store] = None) -> None:
        self._handle = NO_STORE
        self._set_serializer(serializer)
        if store is not None:
            self._attach(store._handle)

    def close(self) -> None:
        pass

    def __del__(self, *_: Any) -> None:
        pass


def _options(
    timeout: MaybeTimeout,
    idle_timeout: MaybeTimeout,
    principal: MaybePrincipal,
    label: MaybeLabel,
    grace: int = 0,
    flags: int = 0,
) -> Any:
    """None if nothing is given, which is the usual case."""
    if (
        timeout is NOT_GIVEN
        and idle_timeout is NOT_GIVEN
        and principal is NOT_GIVEN
        and label is NOT_GIVEN
        and grace == flags == 0
    ):
        return None
    return options_pointer(
        timeout_ms(timeout, "timeout"),
        timeout_ms(idle_timeout, "idle_timeout"),
        None if principal is None or isinstance(principal, NotGiven) else principal_bytes(principal),
        label_bytes(label),
        flags | (CLEAR_PRINCIPAL if principal is None else 0),
        grace,
    )


def _session_result(status: int, scratch: Scratch, payload: Any) -> Optional[Session]:
    """The result of a call that wrote an sss_meta. Releases ``scratch``."""
    _, *meta = unpack(scratch.out)
    release(scratch)
    if status:
        _check_missing(status)
        return None
    return Session(payload, *meta)


def _is_process_error(error: Exception) -> bool:
    """Whether an exception of ``loads`` is due to this process or machine, not to the payload."""
    if isinstance(error, OSError):
        return error.errno is not None  # bz2 and gzip raise it without one for invalid data
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
