"""Flask sessions in a store.

    app = Flask(__name__)
    app.config["SESSION_SERVER_STORE_URL"] = "lmdb:/var/lib/app/sessions?timeout=14d"
    SessionServerStore(app)

docs/flask.md has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, Final, Optional, Union

import click
import flask
from flask import Flask, Request, current_app, has_request_context
from flask.cli import AppGroup
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.wrappers import Response

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
from ._arguments import NOT_GIVEN, MaybePrincipal, Principal
from .cookies import cookie_values
from .errors import SessionStoreError
from .labels import device_label
from .serializers import JSON
from .store import Store

EXTENSION: Final = "session_server_store"
FLASK_LOGIN_KEY: Final = "_user_id"

_SWEEP_STEP: Final = 1000
_UNAVAILABLE: Final = "The session store cannot be reached. You are not logged out. Please try again in a moment.\n"


class TaggedJson:
    """Flask's own serializer: JSON that keeps tuples, bytes, dates, UUIDs and Markup.

    Data without any of these need no tags, and are written and read several times as fast without
    looking for them.
    """

    _tagged: Final = TaggedJSONSerializer()

    def dumps(self, obj: Any, /) -> bytes:
        if _needs_no_tag(obj):
            return JSON.dumps(obj)
        return self._tagged.dumps(obj).encode("utf-8", "surrogatepass")

    def loads(self, data: bytes, /) -> Any:
        if _TAG not in data:
            return JSON.loads(data)
        return self._tagged.loads(data.decode("utf-8", "surrogatepass"))


# How an object with a tag begins. Inside of a string, the quote would be escaped.
_TAG: Final = b'{" '


def _needs_no_tag(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        # An object with one key that looks like a tag is itself tagged.
        return not (len(value) == 1 and next(iter(value))[:1] == " ") and all(
            type(key) is str and _needs_no_tag(item) for key, item in value.items()
        )
    if kind is list:
        return all(map(_needs_no_tag, value))
    return kind in _PLAIN


_PLAIN: Final = frozenset((str, int, float, bool, type(None)))


class ServerSession(SessionMixin):
    """``flask.session``. Read from the store at its first use.

    As in Flask's own session, a change inside of a value needs ``session.modified = True``.
    """

    modified = False
    accessed = False

    def __init__(self, request: RequestSession) -> None:
        self._request = request
        self._data: Optional[dict[str, Any]] = None

    def renew(self, *, principal: MaybePrincipal = NOT_GIVEN, reauthenticated: bool = False) -> None:
        """Gives the session a new id with the response. Call it when the user's rights change.

        ``principal`` makes it one of the user's devices. Without it, the value under
        ``principal_key`` does. ``reauthenticated``: the user has proved their identity again, so
        that both timeouts restart.
        """
        self._request.renewal = Renewal(principal, reauthenticated)
        self.accessed = self.modified = True

    @property
    def authenticated(self) -> Optional[datetime]:
        """When the user logged in or proved their identity again, before this request."""
        self._load()
        return None if self._request.stored is None else self._request.stored.authenticated

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether the request came without a living session."""
        self._load()
        return self._request.stored is None

    def _load(self) -> dict[str, Any]:
        if self._data is None:
            self._data = self._request.load()
        return self._data

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        return self._load()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.accessed = self.modified = True
        self._load()[key] = value

    def __delitem__(self, key: str) -> None:
        self.accessed = True
        del self._load()[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return iter(self._load())

    def __len__(self) -> int:
        self.accessed = True
        return len(self._load())

    def __contains__(self, key: object) -> bool:
        self.accessed = True
        return key in self._load()

    def clear(self) -> None:
        self.accessed = self.modified = True
        self._load().clear()

    def __repr__(self) -> str:  # without the data
        return f"<{type(self).__name__}{' not read' if self._data is None else ''}>"


def default_label(request: Request) -> Optional[str]:
    return device_label(request.headers.get("User-Agent"), request.remote_addr)


class ServerSessionInterface(SessionInterface):
    def __init__(
        self,
        manager: SessionManager,
        *,
        secure: Optional[bool] = None,
        label: Optional[Callable[[Request], Optional[str]]] = default_label,
    ) -> None:
        self.manager = manager
        self.secure = secure
        self.label = label

    def get_cookie_secure(self, app: Flask) -> bool:
        """True unless in debug mode; ``secure`` of ``SessionServerStore`` decides otherwise."""
        if app.config["SESSION_COOKIE_SECURE"] or self.get_cookie_name(app).startswith(("__Host-", "__Secure-")):
            return True
        return not app.debug if self.secure is None else self.secure

    def open_session(self, app: Flask, request: Request) -> ServerSession:
        # Nothing is read here: an exception would be a 500, whatever the error handlers say.
        sids = cookie_values(request.headers.get("Cookie", ""), self.get_cookie_name(app))
        label = self.label or (lambda _: None)
        return ServerSession(RequestSession(self.manager, sids, partial(label, request)))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert isinstance(session, ServerSession)
        accessed = session.accessed
        try:
            self._save(app, session, response)
        except SessionStoreError as error:
            if not http_status(error):
                raise
            # An exception would be a 500 here, too. The response of its handler is sent instead.
            replacement = app.make_response(app.handle_user_exception(error))
            response.close()
            response.status = replacement.status
            response.headers.clear()
            response.headers.extend(replacement.headers)
            response.direct_passthrough = False
            response.response = replacement.response
        finally:
            session.accessed = accessed  # by the view

    def _save(self, app: Flask, session: ServerSession, response: Response) -> None:
        request = session._request
        if session._data is None and request.renewal is None and not self._must_refresh(app, session):
            return
        data = session._load()
        if session.accessed:
            response.vary.add("Cookie")
        if session.modified:
            change = request.finish(data, app.permanent_session_lifetime)
        else:
            change = "set" if data and self.should_set_cookie(app, session) else "keep"
        if change == "keep":
            return
        name, options = self.get_cookie_name(app), self._cookie_options(app)
        if change == "delete":
            response.delete_cookie(name, **options)
        elif request.stored is not None:
            expires = self.get_expiration_time(app, session)
            response.set_cookie(name, request.stored.sid, expires=expires, **options)
        response.vary.add("Cookie")

    def _must_refresh(self, app: Flask, session: ServerSession) -> bool:
        """Whether a view that did not use the session restarts its timeout, as in Flask."""
        if not session._request.sids or not app.config["SESSION_REFRESH_EACH_REQUEST"]:
            return False
        try:
            session._load()
        except SessionStoreError as error:
            logger.warning("session store: %s: %s", error.name, error)
            return False
        return True

    def _cookie_options(self, app: Flask) -> dict[str, Any]:
        options = {
            "path": self.get_cookie_path(app),
            "domain": self.get_cookie_domain(app),
            "secure": self.get_cookie_secure(app),
            "httponly": self.get_cookie_httponly(app),
            "samesite": self.get_cookie_samesite(app),
        }
        if "SESSION_COOKIE_PARTITIONED" in app.config:  # since Flask 3.1
            options["partitioned"] = self.get_cookie_partitioned(app)
        return options


class SessionServerStore:
    """The extension.

    ``store``: a URL or a ``Store``, instead of the configuration's ``SESSION_SERVER_STORE_URL``.
    ``principal_key``: the key whose value says whose session it is; by default Flask-Login's.
    ``conflict``: "merge", "last" or "error", when parallel requests have written the same session.
    ``secure``: the cookie's attribute; by default it is left out only in debug mode.
    ``label``: a function of the request that describes the device of a login; None: no labels.
    """

    def __init__(
        self,
        app: Optional[Flask] = None,
        store: Union[str, Store, None] = None,
        *,
        principal_key: Optional[str] = FLASK_LOGIN_KEY,
        conflict: Conflict = "merge",
        secure: Optional[bool] = None,
        label: Optional[Callable[[Request], Optional[str]]] = default_label,
    ) -> None:
        self._store = store
        self._principal_key = principal_key
        self._conflict: Conflict = conflict
        self._secure = secure
        self._label = label
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Opens the store. Workers may be forked before it, and except with ``memory:`` after."""
        store = self._store or app.config.get("SESSION_SERVER_STORE_URL")
        if not store:
            raise RuntimeError("SESSION_SERVER_STORE_URL is not set: for example lmdb:/var/lib/app/sessions")
        manager = SessionManager(
            store, serializer=TaggedJson(), principal_key=self._principal_key, conflict=self._conflict
        )
        if app.config["SESSION_COOKIE_SAMESITE"] is None:  # Flask's default
            app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
        interface = ServerSessionInterface(manager, secure=self._secure, label=self._label)
        check_cookie(
            interface.get_cookie_name(app),
            secure=interface.get_cookie_secure(app),
            path=interface.get_cookie_path(app),
            domain=interface.get_cookie_domain(app),
        )
        app.session_interface = interface
        app.extensions[EXTENSION] = manager
        app.register_error_handler(SessionStoreError, _handle_error)
        app.cli.add_command(_commands)

    @property
    def store(self) -> Store:
        """The store of the current application."""
        return _manager().store

    def devices(self, principal: Principal) -> list[Device]:
        """The sessions of a user. ``current`` marks the one of this request."""
        return _manager().devices(principal, _current_sid())

    def end_device(self, principal: Principal, ref: str) -> bool:
        """Ends the session with this ``Device.ref``. False if it is not one of this user's."""
        return _manager().end_device(principal, ref)

    def revoke(self, principal: Principal, *, except_current: bool = False) -> int:
        """Logs a user out everywhere, or everywhere else, and returns how many sessions ended."""
        return _manager().revoke(principal, except_sid=_current_sid() if except_current else None)


def _manager() -> SessionManager:
    manager = current_app.extensions[EXTENSION]
    assert isinstance(manager, SessionManager)
    return manager


def _current_sid() -> Optional[str]:
    session = flask.session._get_current_object() if has_request_context() else None  # type: ignore[attr-defined]
    if not isinstance(session, ServerSession):
        return None
    session._load()
    return session._request.stored.sid if session._request.stored else None


def _handle_error(error: SessionStoreError) -> Response:
    """The response while the store cannot answer. The session may exist: no cookie changes."""
    status = http_status(error)
    if status is None:
        raise error
    logger.warning("session store: %s: %s", error.name, error)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}
    return current_app.response_class(_UNAVAILABLE, status, headers, mimetype="text/plain")


_commands = AppGroup("sessions", help="The sessions of the application's users.")


@_commands.command("sweep")
def _sweep() -> None:
    """Remove expired sessions. From a timer, once a minute."""
    store, removed = _manager().store, 0
    while True:
        step = store.sweep(_SWEEP_STEP)
        removed += step
        if step < _SWEEP_STEP:
            break
    click.echo(f"{removed} removed")


@_commands.command("list")
@click.argument("principal")
def _list(principal: str) -> None:
    """Show the sessions of a user."""
    for device in _manager().devices(principal):
        times = f"created {device.created:%Y-%m-%d %H:%M}  used {device.last_seen:%Y-%m-%d %H:%M}"
        click.echo(f"{device.ref}  {times}  {device.label or ''}".rstrip())


@_commands.command("revoke")
@click.argument("principal")
def _revoke(principal: str) -> None:
    """End all sessions of a user."""
    click.echo(f"{_manager().revoke(principal)} ended")
