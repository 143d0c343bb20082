"""A storage for aiohttp_session.

    setup(app, SessionServerStorage("lmdb:/var/lib/app/sessions?timeout=14d"))

docs/aiohttp.md has the rest.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, Callable, Final, Optional, TypeVar, Union

import aiohttp_session
from aiohttp import web
from aiohttp_session import SESSION_KEY, AbstractStorage, Session

from ._adapter import (
    RETRY_AFTER_SECONDS,
    Conflict,
    Device,
    Renewal,
    RequestSession,
    SessionManager,
    check_cookie,
    http_status,
    logger,
)
from ._arguments import NOT_GIVEN, MaybePrincipal, MaybeTimeout, Principal
from .cookies import cookie_values
from .errors import SessionStoreError
from .labels import device_label
from .serializers import JSON, Serializer
from .store import Store

T = TypeVar("T")

_MAX_THREADS: Final = 40
_UNAVAILABLE: Final = "The session store cannot be reached. You are not logged out. Please try again in a moment.\n"


class ServerSession(Session):
    """What ``get_session`` returns. A change inside of a value needs ``changed()``."""

    def __init__(self, request: RequestSession, data: dict[str, Any], max_age: Optional[int]) -> None:
        stored = request.stored
        super().__init__(None if stored is None else stored.sid, data=None, new=stored is None)
        self._request = request
        self._mapping = data
        if stored is not None:
            self._created = int(stored.created.timestamp())
        self.max_age = max_age

    @property
    def authenticated(self) -> Optional[datetime]:
        """When the user logged in or proved their identity again, before this request."""
        return None if self._request.stored is None else self._request.stored.authenticated

    def set_new_identity(self, identity: Any) -> None:
        raise RuntimeError("the store makes the ids")

    def renew(self, *, principal: MaybePrincipal = NOT_GIVEN, reauthenticated: bool = False) -> None:
        """Gives the session a new id with the response. Call it when the user's rights change.

        ``principal`` makes it one of the user's devices. Without it, the value under
        ``principal_key`` does. ``reauthenticated``: the user has proved their identity again, so
        that both timeouts restart.
        """
        self._request.renewal = Renewal(principal, reauthenticated)
        self.changed()


def default_label(request: web.Request) -> Optional[str]:
    return device_label(request.headers.get("User-Agent"), request.remote)


class SessionServerStorage(AbstractStorage):
    """The options of aiohttp_session's storages, and:

    ``store``: a URL or a ``Store``. ``max_age``: the idle timeout and the cookie's age; None: the
    store's timeout, and a cookie until the browser is closed. ``secure``: by default the cookie is
    Secure unless the event loop is in debug mode. ``principal_key``: the key whose value says whose
    session it is. ``conflict``: "merge", "last" or "error", when parallel requests have written the
    same session. ``label``: a function of the request that describes the device of a login;
    None: no labels.
    """

    def __init__(
        self,
        store: Union[str, Store],
        *,
        cookie_name: str = "AIOHTTP_SESSION",
        domain: Optional[str] = None,
        max_age: Optional[int] = None,
        path: str = "/",
        secure: Optional[bool] = None,
        httponly: bool = True,
        samesite: Optional[str] = "Lax",
        principal_key: Optional[str] = "user_id",
        conflict: Conflict = "merge",
        serializer: Serializer = JSON,
        label: Optional[Callable[[web.Request], Optional[str]]] = default_label,
    ) -> None:
        super().__init__(
            cookie_name=cookie_name,
            domain=domain,
            max_age=max_age,
            path=path,
            secure=secure,
            httponly=httponly,
            samesite=samesite,
        )
        check_cookie(cookie_name, secure=secure is not False, path=path, domain=domain)
        self.manager = SessionManager(store, serializer=serializer, principal_key=principal_key, conflict=conflict)
        self._label = label
        # Of its own, so that a store that does not answer does not take the application's threads.
        self._threads: Final = ThreadPoolExecutor(_MAX_THREADS, "session-server-store")

    async def new_session(self) -> Session:
        """For a login: nothing of the session before, and no id of the request, is used."""
        return ServerSession(RequestSession(self.manager, []), {}, self.max_age)

    async def load_session(self, request: web.Request) -> Session:
        loaded = RequestSession(self.manager, self._sids(request))
        data = await self._answer(self.manager.reads_block, loaded.load) if loaded.sids else {}
        return ServerSession(loaded, data, self.max_age)

    async def save_session(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        if not isinstance(session, ServerSession):
            raise TypeError("the session is not one of this storage")
        idle_timeout: MaybeTimeout = NOT_GIVEN if session.max_age is None else session.max_age
        own = session._request
        own.label = partial(self._label or (lambda _: None), request)
        # The id of the session that new_session replaces ends after the new one exists.
        replaced = [] if own.stored is not None or own.sids else self._sids(request)
        change = await self._answer(self.manager.writes_block, own.finish, session._mapping, idle_timeout)
        for sid in replaced:
            await self._answer(self.manager.writes_block, self.manager.delete, sid)
        if change == "set" and own.stored is not None:
            self.save_cookie(response, own.stored.sid, max_age=session.max_age)
        elif change == "delete":
            self.save_cookie(response, "", max_age=session.max_age)

    async def devices(self, request: web.Request, principal: Principal) -> list[Device]:
        """The sessions of a user. ``current`` marks the one of this request."""
        return await self._call(self.manager.writes_block, self.manager.devices, principal, _current_sid(request))

    async def end_device(self, principal: Principal, ref: str) -> bool:
        """Ends the session with this ``Device.ref``. False if it is not one of this user's."""
        return await self._call(self.manager.writes_block, self.manager.end_device, principal, ref)

    async def revoke(self, principal: Principal, *, except_request: Optional[web.Request] = None) -> int:
        """Logs a user out everywhere, or everywhere else, and returns how many sessions ended."""
        sid = None if except_request is None else _current_sid(except_request)
        return await self._call(self.manager.writes_block, self.manager.revoke, principal, sid)

    def save_cookie(self, response: web.StreamResponse, cookie_data: str, *, max_age: Optional[int] = None) -> None:
        params = self.cookie_params.copy()
        if params["secure"] is None:
            params["secure"] = not asyncio.get_running_loop().get_debug() or self.cookie_name.startswith("__")
        if cookie_data:
            params["max_age"] = max_age
        else:
            params["max_age"], params["expires"] = 0, "Thu, 01 Jan 1970 00:00:00 GMT"
        response.set_cookie(self.cookie_name, cookie_data, **params)
        response.headers.add("Vary", "Cookie")

    def _sids(self, request: web.Request) -> list[str]:
        return cookie_values("; ".join(request.headers.getall("Cookie", [])), self.cookie_name)

    async def _call(self, blocks: bool, function: Callable[..., T], *args: Any) -> T:
        """Calls in a thread what may block, and the rest, which takes microseconds, at once."""
        if not blocks:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def _answer(self, blocks: bool, function: Callable[..., T], *args: Any) -> T:
        """An error of the store as a response. The session may exist: no cookie changes."""
        try:
            return await self._call(blocks, function, *args)
        except SessionStoreError as error:
            status = http_status(error)
            if status is None:
                raise
            logger.warning("session store: %s: %s", error.name, error)
            refusal = web.HTTPConflict if status == 409 else web.HTTPServiceUnavailable
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}
            raise refusal(text=_UNAVAILABLE, headers=headers) from error


def setup(app: web.Application, storage: SessionServerStorage) -> None:
    """``aiohttp_session.setup``, and ``Vary: Cookie`` where a session was only read."""
    aiohttp_session.setup(app, storage)
    app.on_response_prepare.append(_add_vary)


async def _add_vary(request: web.Request, response: web.StreamResponse) -> None:
    if request.get(SESSION_KEY) is not None and "Cookie" not in response.headers.getall("Vary", []):
        response.headers.add("Vary", "Cookie")


def _current_sid(request: web.Request) -> Optional[str]:
    session = request.get(SESSION_KEY)
    if not isinstance(session, ServerSession) or session._request.stored is None:
        return None
    return session._request.stored.sid
