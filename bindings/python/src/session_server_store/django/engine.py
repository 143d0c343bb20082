"""``SessionStore``, the class that Django's settings name by ``SESSION_ENGINE``."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Callable, Final, Optional, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils import timezone
from django.utils.module_loading import import_string

from .._adapter import Renewal, SessionEnded, SessionManager, Stored
from .._arguments import NOT_GIVEN, MaybePrincipal
from ..errors import SessionStoreError
from ..labels import device_label
from ..store import Store

T = TypeVar("T")

URL_SETTING: Final = "SESSION_SERVER_STORE_URL"
CONFLICT_SETTING: Final = "SESSION_SERVER_STORE_CONFLICT"
LABEL_SETTING: Final = "SESSION_SERVER_STORE_LABEL"
DEFAULT_LABEL: Final = "session_server_store.django.engine.default_label"

_SWEEP_STEP: Final = 1000

# By URL, with the process that opened it. They stay open: a test that overrides the settings and
# ends must find the sessions from before.
_stores: Final[dict[str, tuple[int, Store]]] = {}
_managers: Final[dict[tuple[Any, ...], SessionManager]] = {}


def session_manager() -> SessionManager:
    """The sessions of the present settings."""
    url = getattr(settings, URL_SETTING, None)
    if not url:
        raise ImproperlyConfigured(f"{URL_SETTING} must be the URL of a store, such as lmdb:/var/lib/app/sessions")
    store = _open(url)
    conflict: Any = getattr(settings, CONFLICT_SETTING, "merge")
    key = (id(store), settings.SESSION_SERIALIZER, conflict)
    manager = _managers.get(key)
    if manager is None:
        serializer = _LenientSerializer(import_string(settings.SESSION_SERIALIZER)())
        manager = SessionManager(store, serializer=serializer, principal_key=USER_KEY, conflict=conflict)
        _managers[key] = manager
    return manager


def _open(url: str) -> Store:
    pid, store = _stores.get(url, (0, None))
    # A memory: store belongs to the process that opened it. Django's parallel test runner forks by
    # multiprocessing, and each of its processes gets a store of its own, as it gets a database. A
    # server that forks must not: its workers would not see each other's sessions.
    if store is None or (pid != os.getpid() and url.startswith("memory:") and multiprocessing.parent_process()):
        store = Store(url)
        _stores[url] = (os.getpid(), store)
    return store


class _LenientSerializer:
    """Django's rule: what the serializer (since changed) cannot read is an empty session."""

    def __init__(self, serializer: Any) -> None:
        self.dumps = serializer.dumps
        self._loads = serializer.loads

    def loads(self, data: bytes) -> Any:
        try:
            return self._loads(data)
        except Exception:
            logging.getLogger("django.security.SuspiciousSession").warning("Session data corrupted")
            return {}


class SessionStore(SessionBase):
    """The session of a request.

    ``failure`` is the last error of the store, which the middleware turns into a response.
    ``flushed`` is true if this request has ended the session, so that the cookie is to go.
    """

    def __init__(self, session_key: Optional[str] = None, *, other_keys: Iterable[str] = ()) -> None:
        """``other_keys`` are the values of other cookies with the same name."""
        super().__init__(session_key)
        self.failure: Optional[SessionStoreError] = None
        self.flushed = False
        self._first_key = self.session_key
        self._other_keys = list(other_keys)
        self._stored: Optional[Stored] = None
        self._renewal: Optional[Renewal] = None
        self.label: Callable[[], Optional[str]] = lambda: None

    def renew(self, *, principal: MaybePrincipal = NOT_GIVEN, reauthenticated: bool = False) -> None:
        """Gives the session a new id when it is saved; ``cycle_key`` does it at once.

        ``reauthenticated``: the user has proved their identity again, so that both timeouts
        restart. Logins by django.contrib.auth need no call.
        """
        self._renewal = Renewal(principal, reauthenticated)
        self.accessed = self.modified = True

    @property
    def authenticated(self) -> Optional[datetime]:
        """When the user logged in or proved their identity again, before this request."""
        self._get_session()
        return None if self._stored is None else self._stored.authenticated

    @property
    def has_new_key(self) -> bool:
        """Whether the client does not know the key yet."""
        return self.session_key not in (None, self._first_key)

    def load(self) -> dict[str, Any]:
        found = self._do(session_manager().load, [self.session_key, *self._other_keys])
        if found is not None and _has_expired(found[1]):
            self._do(session_manager().delete, found[0].sid)
            found = None
        if found is None:
            self._session_key = None
            return {}
        self._stored, data = found
        self._session_key = self._stored.sid
        return data

    def exists(self, session_key: Optional[str]) -> bool:
        return bool(session_key) and self._do(session_manager().exists, session_key)

    def create(self) -> None:
        """Gives the session a key and stores it, even if it is empty."""
        data = self._get_session(no_load=True)
        renewal, self._renewal = self._renewal, None
        self._stored = self._do(
            session_manager().create,
            data,
            idle_timeout=self.get_expiry_age(),
            renewal=renewal,
            label=self.label,
        )
        self._session_key = self._stored.sid
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        if must_create and self.exists(self.session_key):
            raise CreateError
        if must_create or self.session_key is None:
            self.create()  # the store makes the key
            return
        data = self._session
        if self.session_key is None:  # it was unknown
            self.create()
            return
        try:
            self._stored = self._do(
                session_manager().save,
                self._base(),
                data,
                idle_timeout=self.get_expiry_age(),
                renewal=self._renewal,
                label=self.label,
            )
        except SessionEnded:
            raise UpdateError from None
        self._renewal = None
        self._session_key = self._stored.sid

    def delete(self, session_key: Optional[str] = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            self._do(session_manager().delete, key)

    def flush(self) -> None:
        self.clear()
        keys = [key for key in (self.session_key, *self._other_keys) if key]
        ended = [self._do(session_manager().delete, key) for key in keys]
        # If the session was gone already, a parallel login may have renewed it, and the browser
        # have a new cookie.
        self.flushed = any(ended) or not keys
        self._session_key = None
        self._stored = self._renewal = None
        self._other_keys = []

    def cycle_key(self) -> None:
        data = self._session
        if self.session_key is None:
            self.create()
            return
        try:
            self._stored = self._do(session_manager().rotate, self._base())
        except SessionEnded:
            # Another request has ended it: its data must not come back under a new key.
            data.clear()
            self.create()
            return
        self._session_key = self._stored.sid
        self.modified = True

    @classmethod
    def clear_expired(cls) -> None:
        store = session_manager().store
        while store.sweep(_SWEEP_STEP) == _SWEEP_STEP:
            pass

    # Django's own versions of these use a thread for every engine.

    async def aload(self) -> dict[str, Any]:
        return await run(self.load, session_manager().reads_block)

    async def aexists(self, session_key: Optional[str]) -> bool:
        return await run(self.exists, session_manager().reads_block, session_key)

    async def acreate(self) -> None:
        await run(self.create, session_manager().writes_block)

    async def asave(self, must_create: bool = False) -> None:
        await run(self.save, session_manager().writes_block, must_create)

    async def adelete(self, session_key: Optional[str] = None) -> None:
        await run(self.delete, session_manager().writes_block, session_key)

    async def aflush(self) -> None:
        await run(self.flush, session_manager().writes_block)

    async def acycle_key(self) -> None:
        await run(self.cycle_key, session_manager().writes_block)

    @classmethod
    async def aclear_expired(cls) -> None:
        await run(cls.clear_expired, True)

    def _base(self) -> Stored:
        """What the changes of this request are relative to."""
        if self._stored is None:  # the data were set without being read, by clear()
            found = self._do(session_manager().load, [self.session_key])
            if found is None:
                raise SessionEnded
            self._stored = found[0]
        return self._stored

    def _do(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return function(*args, **kwargs)
        except SessionStoreError as error:
            self.failure = error
            raise


def label_of(request: HttpRequest) -> Optional[str]:
    """By the setting ``SESSION_SERVER_STORE_LABEL``, the path of a function of the request."""
    function = getattr(settings, LABEL_SETTING, DEFAULT_LABEL)
    return None if function is None else import_string(function)(request)


def default_label(request: HttpRequest) -> Optional[str]:
    return device_label(request.META.get("HTTP_USER_AGENT"), request.META.get("REMOTE_ADDR"))


def _describe_login(sender: Any, request: Optional[HttpRequest] = None, **_: Any) -> None:
    """For sessions that the middleware has not made."""
    session = getattr(request, "session", None)
    if isinstance(session, SessionStore):
        session.label = lambda: label_of(request)


user_logged_in.connect(_describe_login, dispatch_uid="session_server_store")


async def run(function: Callable[..., T], blocks: bool, *args: Any) -> T:
    """Calls in a thread what may block, and the rest, which takes microseconds, at once."""
    if blocks:
        # Not in the thread of the request: a store that does not answer must not stop others.
        return await sync_to_async(function, thread_sensitive=False)(*args)
    return function(*args)


def _has_expired(data: dict[str, Any]) -> bool:
    """Whether a date that ``set_expiry`` has fixed is over. Reads restart the idle timeout only."""
    expiry = data.get("_session_expiry")
    return isinstance(expiry, str) and datetime.fromisoformat(expiry) <= timezone.now()
