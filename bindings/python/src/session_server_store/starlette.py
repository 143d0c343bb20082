"""Starlette and FastAPI sessions in a store.

    app.add_middleware(SessionMiddleware, store="lmdb:/var/lib/app/sessions?timeout=14d")

``request.session`` is a dictionary, as with Starlette's own middleware. docs/starlette.md has the
rest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Callable, Final, Literal, Optional, TypeVar, Union

import anyio
import anyio.lowlevel
import anyio.to_thread
import starlette.middleware.sessions
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from ._adapter import (
    RETRY_AFTER_SECONDS,
    Conflict,
    CookieChange,
    Device,
    Renewal,
    RequestSession,
    SessionManager,
    check_cookie,
    http_status,
    logger,
)
from ._arguments import NOT_GIVEN, MaybePrincipal, Principal
from .cookies import cookie_values
from .errors import SessionStoreError
from .labels import device_label
from .serializers import JSON, Serializer
from .store import Store

T = TypeVar("T")

_TWO_WEEKS: Final = 14 * 24 * 60 * 60
_BEGINS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_TRY_AGAIN_LATER: Final = 1013  # the close code of a WebSocket
_UNAVAILABLE: Final = b"The session store cannot be reached. You are not logged out. Please try again in a moment.\n"
# Since Starlette 1.0, request.session calls mark_accessed.
_MARKS_ACCESS: Final = hasattr(starlette.middleware.sessions, "Session")

# Threads that wait for a store. Of its own, so that a store that does not answer does not take
# those of the application's synchronous endpoints.
_MAX_THREADS: Final = 40
_limiter: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("session_server_store_limiter")


class ServerSession(dict[str, Any]):
    """``request.session``. What has changed is found by comparing, also inside of values."""

    def __init__(self, request: RequestSession, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.accessed = not _MARKS_ACCESS and bool(request.sids)
        self._request = request
        self._can_renew = True

    def renew(self, *, principal: MaybePrincipal = NOT_GIVEN, reauthenticated: bool = False) -> None:
        """Gives the session a new id with the response. Call it when the user's rights change.

        ``principal`` makes it one of the user's devices. Without it, the value under
        ``principal_key`` does. ``reauthenticated``: the user has proved their identity again, so
        that both timeouts restart.
        """
        if not self._can_renew:
            raise RuntimeError("the response has begun, so that it cannot carry a new id")
        self._request.renewal = Renewal(principal, reauthenticated)
        self.accessed = True

    @property
    def authenticated(self) -> Optional[datetime]:
        """When the user logged in or proved their identity again, before this request."""
        return None if self._request.stored is None else self._request.stored.authenticated

    def mark_accessed(self) -> None:
        """Called by ``request.session``."""
        self.accessed = True

    @property
    def modified(self) -> bool:
        if self._request.renewal is not None:
            return True
        if self._request.stored is None:
            return bool(self)
        return self._request.manager.encode(self) != self._request.stored.payload


def default_label(connection: HTTPConnection) -> Optional[str]:
    address = connection.client.host if connection.client else None
    return device_label(connection.headers.get("user-agent"), address)


class SessionMiddleware:
    """The options are those of Starlette's ``SessionMiddleware``, without the secret key.

    ``store``: a URL or a ``Store``. ``max_age``: the idle timeout and the cookie's age; None: the
    store's timeout, and a cookie until the browser is closed. ``https_only``: by default the cookie
    is Secure unless the application is in debug mode. ``principal_key``: the key whose value says
    whose session it is. ``conflict``: "merge", "last" or "error", when parallel requests have
    written the same session. ``label``: a function of the connection that describes the device of a
    login; None: no labels.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Union[str, Store],
        session_cookie: str = "session",
        max_age: Optional[int] = _TWO_WEEKS,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: Optional[bool] = None,
        domain: Optional[str] = None,
        partitioned: bool = False,
        *,
        principal_key: Optional[str] = "user_id",
        conflict: Conflict = "merge",
        serializer: Serializer = JSON,
        label: Optional[Callable[[HTTPConnection], Optional[str]]] = default_label,
    ) -> None:
        if session_cookie.startswith(("__Host-", "__Secure-")) and https_only is None:
            https_only = True
        check_cookie(session_cookie, secure=https_only is not False, path=path, domain=domain)
        self.app = app
        self.manager = SessionManager(store, serializer=serializer, principal_key=principal_key, conflict=conflict)
        self.session_cookie = session_cookie
        self.max_age = max_age
        self.idle_timeout = NOT_GIVEN if max_age is None else max_age
        self.path = path
        self.label = label
        self.https_only = https_only
        self.security_flags = f"httponly; samesite={same_site}"
        if domain is not None:
            self.security_flags += f"; domain={domain}"
        if partitioned:
            self.security_flags += "; partitioned"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        header = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
        sids = cookie_values(header.decode("latin-1"), self.session_cookie)
        label = self.label or (lambda _: None)
        request = RequestSession(self.manager, sids, lambda: label(HTTPConnection(scope)))
        try:
            data = await call(request.load, self.manager.reads_block) if request.sids else {}
        except SessionStoreError as error:
            await self.refuse(error, scope, send)
            return
        session = scope["session"] = ServerSession(request, data)
        responder = _Responder(self, scope, send, session)
        try:
            await self.app(scope, receive, responder.send)
        except WebSocketDisconnect:
            await responder.finish_websocket()
            raise
        except SessionStoreError as error:  # of an application that uses the store itself
            if not http_status(error) or responder.begun:
                raise
            await self.refuse(error, scope, send)
            return
        if scope["type"] == "websocket":
            await responder.finish_websocket()

    async def commit(self, session: ServerSession) -> CookieChange:
        """Writes the session if it has changed."""
        if not session.modified:
            return "keep"
        return await call(session._request.finish, self.manager.writes_block, session, self.idle_timeout)

    def set_headers(self, scope: Scope, message: Message, session: ServerSession, change: CookieChange) -> None:
        message.setdefault("headers", [])
        headers = MutableHeaders(scope=message)
        if session.accessed or change != "keep":
            headers.add_vary_header("Cookie")
        if change == "keep":
            return
        if change == "set":
            assert session._request.stored is not None
            value = session._request.stored.sid
            lifetime = "" if self.max_age is None else f"Max-Age={self.max_age}; "
        else:
            value, lifetime = "null", "expires=Thu, 01 Jan 1970 00:00:00 GMT; "
        secure = self.https_only
        if secure is None:
            secure = not getattr(scope.get("app"), "debug", False)
        flags = self.security_flags + ("; secure" if secure else "")
        headers.append("Set-Cookie", f"{self.session_cookie}={value}; path={self.path}; {lifetime}{flags}")

    async def refuse(self, error: SessionStoreError, scope: Scope, send: Send) -> None:
        """The response while the store cannot answer. The session may exist: no cookie changes."""
        status = http_status(error)
        if status is None:
            raise error
        logger.warning("session store: %s: %s", error.name, error)
        kind = "http"
        if scope["type"] == "websocket":
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "session store"})
                return
            kind = "websocket.http"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_UNAVAILABLE)),
            (b"retry-after", b"%d" % RETRY_AFTER_SECONDS),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": f"{kind}.response.start", "status": status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": b"" if scope.get("method") == "HEAD" else _UNAVAILABLE})


class _Responder:
    """Writes the session before the response begins, because the response may carry a new id."""

    def __init__(self, middleware: SessionMiddleware, scope: Scope, send: Send, session: ServerSession) -> None:
        self.middleware = middleware
        self.scope = scope
        self.outer_send = send
        self.session = session
        self.begun = False
        self.refused = False

    async def send(self, message: Message) -> None:
        if self.refused:
            return  # the rest of a response that was replaced
        if message["type"] in _BEGINS:
            self.begun = True
            try:
                change = await self.middleware.commit(self.session)
            except SessionStoreError as error:
                await self.middleware.refuse(error, self.scope, self.outer_send)
                self.refused = True
                return
            self.session._can_renew = False
            self.middleware.set_headers(self.scope, message, self.session, change)
        await self.outer_send(message)

    async def finish_websocket(self) -> None:
        """Writes what has changed since the handshake. The client can be given no id any more."""
        session, request = self.session, self.session._request
        if self.refused or not session.modified:
            return
        if request.stored is None or request.manager.principal(session) != request.stored.principal:
            logger.error("a WebSocket that is open cannot begin a session or change its principal; not written")
            return
        await self.middleware.commit(session)


async def devices(connection: HTTPConnection, principal: Principal) -> list[Device]:
    """The sessions of a user. ``current`` marks the one of this request."""
    request = _request_session(connection)
    sid = request.stored.sid if request.stored else None
    # list may wait for writers on every engine that several processes share
    return await call(request.manager.devices, request.manager.writes_block, principal, sid)


async def end_device(connection: HTTPConnection, principal: Principal, ref: str) -> bool:
    """Ends the session with this ``Device.ref``. False if it is not one of this user's."""
    manager = _request_session(connection).manager
    return await call(manager.end_device, manager.writes_block, principal, ref)


async def revoke(connection: HTTPConnection, principal: Principal, *, except_current: bool = False) -> int:
    """Logs a user out everywhere, or everywhere else, and returns how many sessions ended."""
    request = _request_session(connection)
    sid = request.stored.sid if request.stored and except_current else None
    return await call(request.manager.revoke, request.manager.writes_block, principal, sid)


def _request_session(connection: HTTPConnection) -> RequestSession:
    session = connection.scope.get("session")
    if not isinstance(session, ServerSession):
        raise TypeError("session_server_store.starlette.SessionMiddleware is not installed")
    return session._request


async def call(function: Callable[..., T], blocks: bool, *args: Any) -> T:
    """Calls in a thread what may block, and the rest, which takes microseconds, at once."""
    if not blocks:
        return function(*args)
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_MAX_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *args, limiter=limiter)
