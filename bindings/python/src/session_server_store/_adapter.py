"""What the adapters for web frameworks share: the id, what is written, when it is renewed.

Knows no framework. All calls are synchronous; an event loop asks ``may_block`` and uses a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Callable, Final, Literal, Optional, TypeVar, Union

from ._arguments import NOT_GIVEN, MaybePrincipal, MaybeTimeout, NotGiven, Principal
from ._ffi import REF_LEN
from .errors import ConflictError, CorruptError, SessionStoreError, Status
from .records import Session, SessionInfo
from .serializers import JSON, RAW, Serializer
from .store import Store, StoreView

logger: Final = logging.getLogger("session_server_store")

Conflict = Literal["merge", "last", "error"]
CookieChange = Literal["keep", "set", "delete"]
Data = dict[str, Any]

_Result = TypeVar("_Result")

RETRY_AFTER_SECONDS: Final = 5
# Of the cookies with the name of the session's. A client that sends more is not a browser.
_MAX_SIDS: Final = 8
# Each failed attempt is the success of another request.
_MAX_ATTEMPTS: Final = 100


class SessionEnded(Exception):  # noqa: N818 - not a failure: another request has logged out
    """The session has ended since the request read it. Nothing was written."""


@dataclass
class Renewal:
    """What a request asks of ``renew``."""

    principal: MaybePrincipal = NOT_GIVEN
    reauthenticated: bool = False


@dataclass
class Stored:
    """A session as the request has read or written it last."""

    sid: str = field(repr=False)
    payload: bytes = field(repr=False)
    principal: Optional[Principal]  # in the payload
    session: Session

    @property
    def version(self) -> int:
        return self.session.version

    @property
    def created(self) -> datetime:
        return self.session.created

    @property
    def authenticated(self) -> Optional[datetime]:
        return self.session.authenticated


def _no_label() -> Optional[str]:
    return None


class Device:
    """One entry of a page that shows users their sessions."""

    __slots__ = ("_info", "current")

    def __init__(self, info: SessionInfo, *, current: bool) -> None:
        self._info = info
        self.current = current

    @property
    def ref(self) -> str:
        """Names the session in a form. Gives no access to it."""
        return self._info.ref.hex()

    @property
    def created(self) -> datetime:
        return self._info.created

    @property
    def last_seen(self) -> datetime:
        return self._info.last_seen

    @property
    def expires(self) -> Optional[datetime]:
        return self._info.expires

    @property
    def authenticated(self) -> Optional[datetime]:
        """When the user logged in, or proved their identity again."""
        return self._info.authenticated

    @property
    def label(self) -> Optional[str]:
        """For example "Firefox on Linux, 127.0.0.1"."""
        return self._info.label

    def __repr__(self) -> str:
        return f"<Device created={self.created} last_seen={self.last_seen} current={self.current}>"


class SessionManager:
    """Reads and writes the sessions of an application, which are dictionaries.

    ``store`` is the URL of a store, or an open one. The value under ``principal_key`` says whose
    session it is: when it changes, the session gets a new id and this principal in one step.

    ``conflict`` is for a session that another request has written since it was read: "merge"
    writes only what this request changed, key by key; "last" overwrites everything; "error" raises
    ``ConflictError``.
    """

    def __init__(
        self,
        store: Union[str, Store],
        *,
        serializer: Serializer = JSON,
        principal_key: Optional[str] = None,
        conflict: Conflict = "merge",
    ) -> None:
        if conflict not in ("merge", "last", "error"):
            raise ValueError(f"conflict must be 'merge', 'last' or 'error', not {conflict!r}")
        if isinstance(store, str):
            store = Store(store, serializer=serializer)
        elif not isinstance(store, Store):
            raise TypeError(f"store must be a URL or a Store, not {type(store).__name__}")
        self.store: Final = store
        self.principal_key: Final = principal_key
        self.conflict: Final = conflict
        self.reads_block, self.writes_block = store.may_block()
        self._raw: Final = StoreView(RAW, store)
        self._decoding: Final = StoreView(serializer, store)

    def load(self, sids: Iterable[Optional[str]]) -> Optional[tuple[Stored, Data]]:
        """The first session that lives: an ended or forged id must not hide another one."""
        for sid in [sid for sid in sids if sid][:_MAX_SIDS]:
            session = self._raw.get(sid)
            if session is not None:
                data = self.decode(session.payload)
                return self._stored(sid, session, session.payload, data), data
        return None

    def exists(self, sid: str) -> bool:
        return self._raw.get(sid, peek=True) is not None

    def create(
        self,
        data: Mapping[str, Any],
        *,
        idle_timeout: MaybeTimeout,
        renewal: Optional[Renewal] = None,
        label: Callable[[], Optional[str]] = _no_label,
    ) -> Stored:
        payload, owner = self.encode(data), self.principal(data)
        if renewal is not None and not isinstance(renewal.principal, NotGiven):
            owner = renewal.principal
        sid, session = self._raw.create(
            payload,
            idle_timeout=idle_timeout,
            principal=owner,
            label=None if owner is None else label(),
            return_session=True,
        )
        return self._stored(sid, session, payload, data)

    def save(
        self,
        stored: Stored,
        data: MutableMapping[str, Any],
        *,
        idle_timeout: MaybeTimeout,
        renewal: Optional[Renewal] = None,
        label: Callable[[], Optional[str]] = _no_label,
    ) -> Stored:
        """Writes the session. Raises ``SessionEnded`` if it has ended: it is never revived.

        The result has another id if one of ``renewal`` and the principal's key asks for it. What
        other requests have written is added to ``data``.
        """
        if renewal is not None or self.principal(data) != stored.principal:
            return self._renew(stored, data, idle_timeout, renewal or Renewal(), label)
        payload = self.encode(data)
        if payload == stored.payload:
            _living(self._raw.touch(stored.sid))
            return stored
        if self.conflict == "last":
            written = _living(self._raw.put(stored.sid, payload, idle_timeout=idle_timeout))
            return self._stored(stored.sid, written, payload, data)
        for _ in range(_MAX_ATTEMPTS):
            try:
                session = self._raw.put_if(stored.sid, stored.version, payload, idle_timeout=idle_timeout)
            except ConflictError:
                if self.conflict == "error":
                    raise
            else:
                return self._stored(stored.sid, _living(session), payload, data)
            stored = self._merge(stored, data)
            payload = self.encode(data)
        raise ConflictError(Status.CONFLICT, f"other requests have written this session {_MAX_ATTEMPTS} times")

    def rotate(self, stored: Stored) -> Stored:
        """Gives the session a new id and changes nothing else."""
        return replace(stored, sid=_living(self._raw.renew(stored.sid)))

    def delete(self, sid: str) -> bool:
        return self._raw.delete(sid)

    def devices(self, principal: Principal, current: Optional[str] = None) -> list[Device]:
        """The sessions of a principal, the last used first. ``current`` is the id of this one."""
        this = None if current is None else self._raw.ref(current)
        infos = sorted(self._raw.list(principal), key=lambda info: info.last_seen, reverse=True)
        return [Device(info, current=info.ref == this) for info in infos]

    def end_device(self, principal: Principal, ref: str) -> bool:
        """Ends the session with this reference if it is one of the principal's."""
        try:
            reference = bytes.fromhex(ref)
        except ValueError:
            return False
        return len(reference) == REF_LEN and self._raw.delete_ref(reference, principal=principal)

    def revoke(self, principal: Principal, except_sid: Optional[str] = None) -> int:
        return self._raw.revoke(principal, except_sid=except_sid)

    def principal(self, data: Mapping[str, Any]) -> Optional[Principal]:
        """The value under ``principal_key``. Without one, or if it is None or empty: None."""
        value = None if self.principal_key is None else data.get(self.principal_key)
        if value is None or value == "":
            return None
        return value if isinstance(value, (str, bytes)) else str(value)

    def encode(self, data: Mapping[str, Any]) -> bytes:
        return self._decoding._dump(dict(data))

    def decode(self, payload: bytes) -> Data:
        data = self._decoding._load(payload)
        if not isinstance(data, dict):
            raise CorruptError(Status.CORRUPT, f"the stored payload is not a dictionary but {type(data).__name__}")
        return data

    def _renew(
        self,
        stored: Stored,
        data: MutableMapping[str, Any],
        idle_timeout: MaybeTimeout,
        renewal: Renewal,
        label: Callable[[], Optional[str]],
    ) -> Stored:
        owner = renewal.principal
        if isinstance(owner, NotGiven) and self.principal(data) != stored.principal:
            owner = self.principal(data)
        has_owner = not isinstance(owner, NotGiven) and owner is not None
        try:
            if self.conflict != "last":
                current = _living(self._raw.get(stored.sid, peek=True))
                if current.version != stored.version and self.conflict == "error":
                    raise ConflictError(Status.CONFLICT, "another request has written the session")
                if current.version != stored.version:
                    stored = self._merge(stored, data)
            payload = self.encode(data)
            sid, session = _living(
                self._raw.renew(
                    stored.sid,
                    payload,
                    idle_timeout=idle_timeout,
                    principal=owner,
                    label=label() if has_owner else NOT_GIVEN,
                    reauthenticated=renewal.reauthenticated and owner is not None,
                    return_session=True,
                )
            )
        except SessionEnded:
            if stored.principal is not None or not has_owner:
                raise
            # A login does not need the session from before it, and gets none of its data.
            changed, _ = _changes(self.decode(stored.payload), data)
            _replace(data, changed)
            return self.create(data, idle_timeout=idle_timeout, renewal=renewal, label=label)
        return self._stored(sid, session, payload, data)

    def _merge(self, stored: Stored, data: MutableMapping[str, Any]) -> Stored:
        """Reads the session again and applies to it what was changed in ``data``."""
        current = _living(self._raw.get(stored.sid, peek=True))
        theirs = self.decode(current.payload)
        changed, removed = _changes(self.decode(stored.payload), data)
        merged = {key: value for key, value in theirs.items() if key not in removed}
        _replace(data, {**merged, **changed})
        return self._stored(stored.sid, current, current.payload, theirs)

    def _stored(self, sid: str, session: Session, payload: bytes, data: Mapping[str, Any]) -> Stored:
        return Stored(sid, payload, self.principal(data), session)


class RequestSession:
    """The session of one request: what it has read, and what it asks of the store."""

    def __init__(
        self, manager: SessionManager, sids: Iterable[str], label: Callable[[], Optional[str]] = _no_label
    ) -> None:
        """``sids``: the values of the cookie, which may be anything. ``label``: of a login."""
        self.manager = manager
        self.sids = list(sids)
        self.stored: Optional[Stored] = None
        self.renewal: Optional[Renewal] = None
        self.label = label

    def load(self) -> Data:
        """The data, empty if there is no session."""
        found = self.manager.load(self.sids)
        self.stored, data = found or (None, {})
        return data

    def finish(self, data: MutableMapping[str, Any], idle_timeout: MaybeTimeout) -> CookieChange:
        """Writes the session and says what happens to the cookie.

        A session without data is ended, and without an id it is not stored. If the session has
        ended, another request has ended or renewed it, and the browser may have a new cookie, so
        that this response changes none.
        """
        renewal, self.renewal = self.renewal, None
        if not data and (renewal is None or renewal.principal in (NOT_GIVEN, None)):
            return "delete" if self.stored is not None and self.end() else "keep"
        try:
            if self.stored is None:
                self.stored = self.manager.create(data, idle_timeout=idle_timeout, renewal=renewal, label=self.label)
            else:
                self.stored = self.manager.save(
                    self.stored, data, idle_timeout=idle_timeout, renewal=renewal, label=self.label
                )
        except SessionEnded:
            logger.info("the session has ended during the request; its changes are dropped")
            return "keep"
        return "set"

    def end(self) -> bool:
        """Ends the session, and others that the browser sends, which would take its place."""
        sids = {*self.sids, *([self.stored.sid] if self.stored else [])}
        self.stored = None
        ended = [self.manager.delete(sid) for sid in sids]  # all of them, not only the first
        return any(ended)


def http_status(error: Exception) -> Optional[int]:
    """The status of a response to this failure. None: it is an error of the program."""
    if isinstance(error, SessionStoreError) and error.temporary:
        return 503
    return 409 if isinstance(error, ConflictError) else None


def check_cookie(name: str, *, secure: bool, path: str, domain: Optional[str]) -> None:
    """Refuses what browsers would ignore: see RFC 6265bis, section 4.1.3."""
    if name.startswith(("__Host-", "__Secure-")) and not secure:
        raise ValueError(f"the cookie {name} must be Secure")
    if name.startswith("__Host-") and (path != "/" or domain):
        raise ValueError(f"the cookie {name} must have the path / and no domain")


def _changes(base: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[Data, set[str]]:
    """What a request has set, and the keys that it has removed."""
    changed = {key: value for key, value in data.items() if key not in base or not _same(base[key], value)}
    return changed, base.keys() - data.keys()


def _same(a: Any, b: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are different values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _replace(data: MutableMapping[str, Any], content: Mapping[str, Any]) -> None:
    data.clear()
    data.update(content)


def _living(result: Optional[_Result]) -> _Result:
    if result is None:
        raise SessionEnded
    return result
