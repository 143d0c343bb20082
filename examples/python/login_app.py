"""A web application with visits, login, a page of devices, and logout, on session_server_store.

    python3 login_app.py            runs through it over HTTP and explains each step (walk.py)
    python3 login_app.py --serve    serves it for a browser

Install the package first: pip install ./bindings/python. Apart from it, only the standard library
is used. This file has the WSGI application and a server for one process; pages.py has the HTML, and
wsgi.py runs the application with gunicorn or uWSGI.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import os
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import responses
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Callable, Optional, TextIO
from urllib.parse import parse_qsl
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import pages
import walk

from session_server_store import ConflictError, Session, SessionStoreError, Store, cookie_values, device_label

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Data = dict[str, Any]
Header = tuple[str, str]

STORE_VARIABLE = "SESSION_STORE"
SERVE_URL = "memory:?idle_timeout=10m&timeout=8h&max_sessions=100000&max_per_principal=10"
WALK_URL = "memory:?idle_timeout=10m&timeout=8h&clock=manual"

# Salt and hash. The demo prints the passwords; a real application never does.
PASSWORDS = {
    "alice": "f69984e44141facb426fde66f04593e8:fc2511581dd65afed1e95c13b6a94ce43635abcbc7d29ec17c1cd3ec74e676f7",
    "bob": "943a7545fdb6202686d9d0c183c74e1e:cff9ef2ba5bf63d3595c998e6d09e23a327b4b9b444828e7d83054a5e3bc4990",
}
DEMO_USERS = "alice / wonderland, bob / yellow-submarine"
SCRYPT_SLOTS = threading.BoundedSemaphore(2)  # each takes 16 MiB; also limit the attempts per user

# HttpOnly hides the cookie from scripts, SameSite=Lax from the forms of other sites. With https,
# add "; Secure" and name it "__Host-sid", so that no neighbouring domain can set it.
COOKIE = "sid={}; Path=/; HttpOnly; SameSite=Lax"
DELETE_COOKIE: Header = ("Set-Cookie", COOKIE.format("") + "; Max-Age=0")

POLICY = (
    f"default-src 'none'; style-src '{pages.STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
COMMON_HEADERS: tuple[Header, ...] = (
    ("Cache-Control", "no-store"),  # pages are personal
    ("Content-Security-Policy", POLICY),
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)

MAX_FORM_BYTES = 4096
MAX_FORM_FIELDS = 10
SWEEP_EVERY_SECONDS = 60

STALE_FORM = "This form belongs to a session that has ended, or to another site. Nothing was changed. Please reload it."


@dataclass(frozen=True)
class Request:
    sids: list[str]  # the values of the cookie, which may be anything
    sid: str  # the id of the session, "" without one
    session: Optional[Session]
    form: dict[str, str]
    device: Optional[str] = None  # for the page of devices

    @property
    def data(self) -> Data:
        return self.session.payload if self.session else {}

    @property
    def user(self) -> Optional[str]:
        return self.data.get("user")


@dataclass(frozen=True)
class Response:
    status: int
    page: str = ""
    headers: tuple[Header, ...] = ()


class HTTPError(Exception):
    def __init__(self, status: int, title: str, text: str, *headers: Header) -> None:
        super().__init__(title)
        self.response = Response(status, pages.problem(title, text), headers)


class LoginApp:
    """The application. Has no state of its own, so any process can answer any request.

    A session is a dictionary with `csrf` (the token of its forms), `visits` and `user`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.routes: dict[str, dict[str, Callable[[Request], Response]]] = {
            "/": {"GET": self.home},
            "/visits": {"GET": self.visits},
            "/login": {"GET": self.login_form, "POST": self.log_in},
            "/logout": {"POST": self.log_out},
            "/devices": {"GET": self.devices},
            "/devices/end": {"POST": self.end_device},
            "/devices/end-others": {"POST": self.end_others},
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        try:
            response = self.respond(environ)
        except HTTPError as error:
            response = error.response
        except SessionStoreError as error:
            # The session may exist: keep the cookie, and do not create another session.
            print(f"session store: {error.name}: {error}", file=environ["wsgi.errors"], flush=True)
            text = "The session store cannot be reached. You are not logged out. Please try again in a moment."
            response = Response(503, pages.problem("Please try again", text), (("Retry-After", "5"),))
        except Exception:
            traceback.print_exc(file=environ["wsgi.errors"])
            response = Response(500, pages.problem("Internal error", "The server made an error."))
        headers, body = render(response)
        start_response(f"{response.status} {responses[response.status]}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def respond(self, environ: WSGIEnvironment) -> Response:
        method = environ["REQUEST_METHOD"]
        views = self.routes.get(environ["PATH_INFO"])
        if views is None:
            raise HTTPError(404, "Not found", "There is no such page.")
        view = views.get("GET" if method == "HEAD" else method)
        if view is None:
            allow = ", ".join([*views, "HEAD"] if "GET" in views else views)
            raise HTTPError(405, "Method not allowed", f"This page answers to {allow}.", ("Allow", allow))
        form = read_form(environ) if method == "POST" else {}
        sids = cookie_values(environ.get("HTTP_COOKIE", ""), "sid")
        sid, session = self.find_session(sids)
        device = device_label(environ.get("HTTP_USER_AGENT"), environ.get("REMOTE_ADDR"))
        request = Request(sids, sid, session, form, device)
        if method == "POST" and not equal_secrets(form.get("csrf"), request.data.get("csrf")):
            raise HTTPError(403, "That did not work", STALE_FORM)
        return view(request)

    # Pages.

    def home(self, request: Request) -> Response:
        ref = self.store.ref(request.sid) if request.session else None
        return Response(200, pages.home(request.data, request.session, ref, self.store.stats()))

    def visits(self, request: Request) -> Response:
        data, headers = self.change_or_create(request, lambda data: {**data, "visits": data.get("visits", 0) + 1})
        return Response(200, pages.visits(data), headers)

    def login_form(self, request: Request, *, status: int = 200, problem: str = "") -> Response:
        if request.user:
            return redirect("/")
        # The token needs a session. An existing token stays valid, for other tabs.
        data, headers = self.change_or_create(request, lambda data: {"csrf": secrets.token_urlsafe(), **data})
        return Response(status, pages.login(data, request.form.get("user", ""), problem), headers)

    def log_in(self, request: Request) -> Response:
        if request.user:
            return redirect("/")
        user = request.form.get("user", "")
        if not check_password(user, request.form.get("password", "")):
            return self.login_form(request, status=403, problem="Wrong name or password.")
        # The same session under a new id, in one step that ends the old id, because an attacker may
        # know or have set it (session fixation). The principal makes it one of the user's devices,
        # and the timeouts restart.
        sid = self.store.renew(request.sid, principal=user, label=request.device)
        if sid is None:
            raise HTTPError(403, "That did not work", STALE_FORM)
        token = secrets.token_urlsafe()
        self.change(sid, self.store.get(sid), lambda data: {**data, "user": user, "csrf": token})
        return redirect("/", set_cookie(sid))

    def log_out(self, request: Request) -> Response:
        # Ends the session on the server, so that no copy of the cookie works. Another session whose
        # id the browser sends as well would leave the user logged in, so it ends too.
        for sid in request.sids:
            self.store.delete(sid)
        return redirect("/", DELETE_COOKIE)

    def devices(self, request: Request) -> Response:
        if request.user is None or request.session is None:
            return redirect("/login")
        infos, this = self.store.list(request.user), self.store.ref(request.sid)
        return Response(200, pages.devices(request.data, infos, this, now=request.session.last_seen))

    def end_device(self, request: Request) -> Response:
        if request.user is None:
            return redirect("/login")
        try:
            ref = bytes.fromhex(request.form.get("ref", ""))
        except ValueError:
            raise HTTPError(400, "Bad request", "This is not a reference.") from None
        this = self.store.ref(request.sid)
        # A reference is not secret, so the session must be one of this user's.
        if len(ref) != 32 or not self.store.delete_ref(ref, principal=request.user):
            raise HTTPError(404, "Not found", "You have no such device. It may have been ended already.")
        return redirect("/", DELETE_COOKIE) if ref == this else redirect("/devices")

    def end_others(self, request: Request) -> Response:
        if request.user is None:
            return redirect("/login")
        self.store.revoke(request.user, except_sid=request.sid)
        return redirect("/devices")

    # Sessions.

    def find_session(self, sids: list[str]) -> tuple[str, Optional[Session]]:
        """The first id with a living session. An ended or forged id before it must not hide it."""
        for sid in sids:
            session = self.store.get(sid)
            if session is not None:
                return sid, session
        return "", None

    def change(self, sid: str, session: Optional[Session], update: Callable[[Data], Data]) -> Optional[Session]:
        """Updates the payload. Starts over if another request has written in between."""
        while session is not None:
            try:
                return self.store.put_if(sid, session.version, update(session.payload))
            except ConflictError:
                session = self.store.get(sid)
        return None

    def change_or_create(self, request: Request, update: Callable[[Data], Data]) -> tuple[Data, tuple[Header, ...]]:
        """Changes the session, or creates one under a new id, never under one of the request."""
        session = self.change(request.sid, request.session, update)
        if session is not None:
            return session.payload, ()
        data = update({})
        return data, (set_cookie(self.store.create(data)),)


class Handler(WSGIRequestHandler):
    """HTTP/1.0, so that unread bytes of a form are never taken for the next request."""

    server: Server
    timeout = 10  # seconds until an idle client is disconnected

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """Called by the base class for malformed and oversized requests."""
        self.send_response(code)
        headers, body = render(Response(code, pages.problem(responses[code], "This request cannot be processed.")))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return ServerHandler.server_software

    def get_stderr(self) -> TextIO:
        return sys.stderr if self.server.log else io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.log:
            super().log_message(format, *args)


ServerHandler.server_software = "login_app"  # without versions


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, app: LoginApp, port: int, *, log: bool) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.set_app(app)
        self.app = app
        self.log = log
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.next_sweep = time.monotonic() + SWEEP_EVERY_SECONDS

    def service_actions(self) -> None:
        """Called about twice a second. Reclaims the memory of expired sessions."""
        if time.monotonic() >= self.next_sweep:
            self.next_sweep = time.monotonic() + SWEEP_EVERY_SECONDS
            try:
                self.app.store.sweep()
            except SessionStoreError as error:
                print(f"sweep: {error.name}: {error}", file=sys.stderr)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # the client has disconnected or timed out
            super().handle_error(request, client_address)


def read_form(environ: WSGIEnvironment) -> dict[str, str]:
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPError(415, "Unsupported media type", "Only HTML forms are supported.")
    length = environ.get("CONTENT_LENGTH", "")
    if not length:
        raise HTTPError(411, "Length required", "The request has no Content-Length.")
    if not (length.isascii() and length.isdigit()):
        raise HTTPError(400, "Bad request", "Content-Length is not a number.")
    if len(length) > 9 or int(length) > MAX_FORM_BYTES:
        raise HTTPError(413, "Too large", "No form of this site is that large.")
    try:
        body = environ["wsgi.input"].read(int(length))
    except OSError:  # the client has disconnected or timed out
        body = b""
    if len(body) < int(length):
        raise HTTPError(400, "Bad request", "The form is incomplete.")
    try:
        return dict(parse_qsl(body.decode("ascii"), errors="strict", max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        raise HTTPError(400, "Bad request", "The form is malformed.") from None


def render(response: Response) -> tuple[list[Header], bytes]:
    body = response.page.encode()
    return [*COMMON_HEADERS, *response.headers, ("Content-Length", str(len(body)))], body


def redirect(location: str, *headers: Header) -> Response:
    return Response(303, "", (("Location", location), *headers))


def set_cookie(sid: str) -> Header:
    return ("Set-Cookie", COOKIE.format(sid))


def equal_secrets(given: Optional[str], expected: Optional[str]) -> bool:
    return bool(given and expected) and hmac.compare_digest(str(given).encode(), str(expected).encode())


def check_password(user: str, password: str) -> bool:
    """Takes the same time for an unknown user as for a wrong password."""
    salt, _, expected = PASSWORDS.get(user, "00:00").partition(":")
    with SCRYPT_SLOTS:
        given = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=32)
    return hmac.compare_digest(given, bytes.fromhex(expected))


@contextmanager
def serve_in_thread(url: str) -> Iterator[tuple[str, Store]]:
    """Serves the application from a thread, on a free port, for the walk."""
    with Store(url) as store, Server(LoginApp(store), 0, log=False) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.address, store
        finally:
            server.shutdown()
            thread.join()


def serve(url: str, port: int) -> None:
    with Store(url) as store, Server(LoginApp(store), port, log=True) as server:
        for number in (signal.SIGINT, signal.SIGTERM):  # both end the server cleanly
            signal.signal(number, signal.default_int_handler)
        try:
            print(f"login_app is at {server.address}/ (Ctrl-C ends it)\ndemo users: {DEMO_USERS}", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="A web login on session_server_store. Without --serve, a guided walk through it."
    )
    parser.add_argument("--serve", action="store_true", help="serve it for a browser")
    parser.add_argument("--port", type=int, default=0, help="with --serve: the port on 127.0.0.1 (default: a free one)")
    url = os.environ.get(STORE_VARIABLE, SERVE_URL)
    parser.add_argument(
        "--url", default=url, help=f"with --serve: the URL of the store (default: ${STORE_VARIABLE}, else {SERVE_URL})"
    )
    options = parser.parse_args()
    if options.serve:
        try:
            serve(options.url, options.port)
        except (SessionStoreError, OSError, OverflowError) as error:
            parser.error(str(error))
        return 0
    with serve_in_thread(WALK_URL) as (address, store):
        return walk.run(address, store)


if __name__ == "__main__":
    sys.exit(main())
