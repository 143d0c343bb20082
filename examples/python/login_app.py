"""A web login on session_server_store: visits, login, my devices, logout. Only the standard library otherwise.

    python3 login_app.py            walks through it over real HTTP and explains every step (walk.py)
    python3 login_app.py --serve    keeps it running for your browser (pages.py has the HTML)

Needs the package: pip install ./bindings/python
This file is the site, a WSGI application: how a cookie becomes a session, and what each page does with it. It runs
here in one process with threads; wsgi.py is for gunicorn and uWSGI.
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

from session_server_store import ConflictError, Session, SessionStoreError, Store, cookie_values

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Data = dict[str, Any]
Header = tuple[str, str]

STORE_VARIABLE = "SESSION_STORE"
SERVE_URL = "memory:?idle_timeout=10m&timeout=8h&max_sessions=100000&max_per_principal=10"
WALK_URL = "memory:?idle_timeout=10m&timeout=8h&clock=manual"

# Salt and hash: what a server keeps instead of passwords. The demo prints the passwords; nobody else should.
PASSWORDS = {
    "alice": "f69984e44141facb426fde66f04593e8:fc2511581dd65afed1e95c13b6a94ce43635abcbc7d29ec17c1cd3ec74e676f7",
    "bob": "943a7545fdb6202686d9d0c183c74e1e:cff9ef2ba5bf63d3595c998e6d09e23a327b4b9b444828e7d83054a5e3bc4990",
}
DEMO_USERS = "alice / wonderland, bob / yellow-submarine"
SCRYPT_SLOTS = threading.BoundedSemaphore(2)  # each takes 16 MiB; a real login page also limits the attempts per user

# HttpOnly: no script reads it. SameSite=Lax: other sites' forms do not bring it along. A real login is https: add
# "; Secure" and call it "__Host-sid", which no neighbouring domain can plant. Here it is plain http on loopback.
COOKIE = "sid={}; Path=/; HttpOnly; SameSite=Lax"
FORGET: Header = ("Set-Cookie", COOKIE.format("") + "; Max-Age=0")

POLICY = (
    f"default-src 'none'; style-src '{pages.STYLE_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
ALWAYS: tuple[Header, ...] = (
    ("Cache-Control", "no-store"),  # every page is somebody's
    ("Content-Security-Policy", POLICY),
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)

MAX_FORM_BYTES = 4096
MAX_FORM_FIELDS = 10
SWEEP_EVERY_SECONDS = 60

STALE = (
    "This form belongs to a session that has ended, or was not made here. Nothing was changed; load it anew, please."
)


@dataclass(frozen=True)
class Request:
    sids: list[str]  # the values of the cookie, which may be anything
    sid: str  # the id of the session, "" without one
    session: Optional[Session]
    form: dict[str, str]

    @property
    def data(self) -> Data:
        return self.session.payload if self.session else {}

    @property
    def user(self) -> Optional[str]:
        return self.data.get("user")


@dataclass(frozen=True)
class Answer:
    status: int
    page: str = ""
    headers: tuple[Header, ...] = ()


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    def __init__(self, status: int, title: str, text: str, *headers: Header) -> None:
        super().__init__(title)
        self.answer = Answer(status, pages.problem(title, text), headers)


class LoginApp:
    """What the site does. A session is a dictionary: `csrf` (token of its forms), `visits`, and after login `user`.

    It keeps nothing itself, so that any of its processes can answer any request.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.routes: dict[str, dict[str, Callable[[Request], Answer]]] = {
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
            answer = self.answer(environ)
        except Refusal as refusal:
            answer = refusal.answer
        except SessionStoreError as error:
            # Not "no session": nobody is logged out, no cookie changes, no empty session takes the place of a full one.
            print(f"session store: {error.name}: {error}", file=environ["wsgi.errors"], flush=True)
            text = "The sessions cannot be reached right now. Nobody was logged out; please try again in a moment."
            answer = Answer(503, pages.problem("Please try again", text), (("Retry-After", "5"),))
        except Exception:
            traceback.print_exc(file=environ["wsgi.errors"])
            answer = Answer(500, pages.problem("Internal error", "This is our fault. Nothing more is known."))
        headers, body = rendered(answer)
        start_response(f"{answer.status} {responses[answer.status]}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def answer(self, environ: WSGIEnvironment) -> Answer:
        method = environ["REQUEST_METHOD"]
        views = self.routes.get(environ["PATH_INFO"])
        if views is None:
            raise Refusal(404, "Not found", "There is no such page.")
        view = views.get("GET" if method == "HEAD" else method)
        if view is None:
            allow = ", ".join([*views, "HEAD"] if "GET" in views else views)
            raise Refusal(405, "Method not allowed", f"This page answers to {allow}.", ("Allow", allow))
        form = read_form(environ) if method == "POST" else {}
        sids = cookie_values(environ.get("HTTP_COOKIE", ""), "sid")
        sid, session = self.find_session(sids)
        request = Request(sids, sid, session, form)
        if method == "POST" and not same(form.get("csrf"), request.data.get("csrf")):
            raise Refusal(403, "That did not work", STALE)
        return view(request)

    # Pages.

    def home(self, request: Request) -> Answer:
        ref = self.store.ref(request.sid) if request.session else None
        return Answer(200, pages.home(request.data, request.session, ref, self.store.stats()))

    def visits(self, request: Request) -> Answer:
        data, headers = self.keep(request, lambda data: {**data, "visits": data.get("visits", 0) + 1})
        return Answer(200, pages.visits(data), headers)

    def login_form(self, request: Request, *, status: int = 200, problem: str = "") -> Answer:
        if request.user:
            return redirect("/")
        # The token is something to keep, so this may begin a session. One that is there already stays valid.
        data, headers = self.keep(request, lambda data: {"csrf": secrets.token_urlsafe(), **data})
        return Answer(status, pages.login(data, request.form.get("user", ""), problem), headers)

    def log_in(self, request: Request) -> Answer:
        if request.user:
            return redirect("/")
        user = request.form.get("user", "")
        if not password_is(user, request.form.get("password", "")):
            return self.login_form(request, status=403, problem="Wrong name or password.")
        # Same session, new id, and the old id is dead in the same step: whoever planted it or saw it on the way has
        # nothing (session fixation). So no `grace` here. The principal makes the session one of this user's devices.
        sid = self.store.renew(request.sid, principal=user)
        if sid is None:
            raise Refusal(403, "That did not work", STALE)
        token = secrets.token_urlsafe()
        self.change(sid, self.store.get(sid), lambda data: {**data, "user": user, "csrf": token})
        return redirect("/", carry(sid))

    def log_out(self, request: Request) -> Answer:
        # On the server, so that copies of the cookies do not work either. All of them: after a logout none may log in.
        for sid in request.sids:
            self.store.delete(sid)
        return redirect("/", FORGET)

    def devices(self, request: Request) -> Answer:
        if request.user is None or request.session is None:
            return redirect("/login")
        infos, this = self.store.list(request.user), self.store.ref(request.sid)
        return Answer(200, pages.devices(request.data, infos, this, now=request.session.last_seen))

    def end_device(self, request: Request) -> Answer:
        if request.user is None:
            return redirect("/login")
        try:
            ref = bytes.fromhex(request.form.get("ref", ""))
        except ValueError:
            raise Refusal(400, "Bad request", "That is no reference.") from None
        # A reference is no secret. It ends a session only if it stands in the user's own list.
        if all(info.ref != ref for info in self.store.list(request.user)):
            raise Refusal(404, "Not found", "You have no such device. Perhaps it has ended already.")
        this = self.store.ref(request.sid)
        self.store.delete_ref(ref)
        return redirect("/", FORGET) if ref == this else redirect("/devices")

    def end_others(self, request: Request) -> Answer:
        if request.user is None:
            return redirect("/login")
        self.store.revoke(request.user, except_sid=request.sid)
        return redirect("/devices")

    # Sessions.

    def find_session(self, sids: list[str]) -> tuple[str, Optional[Session]]:
        """The first cookie that names a living session. An ended or planted id in front must not hide it."""
        for sid in sids:
            session = self.store.get(sid)
            if session is not None:
                return sid, session
        return "", None

    def change(self, sid: str, session: Optional[Session], update: Callable[[Data], Data]) -> Optional[Session]:
        """Read, compute, write if nobody else did in between, else again: parallel requests lose nothing."""
        while session is not None:
            try:
                return self.store.put_if(sid, session.version, update(session.payload))
            except ConflictError:
                session = self.store.get(sid)
        return None

    def keep(self, request: Request, update: Callable[[Data], Data]) -> tuple[Data, tuple[Header, ...]]:
        """Changes the session. If there is none, begins one: with an id of the store's, never the one that came."""
        session = self.change(request.sid, request.session, update)
        if session is not None:
            return session.payload, ()
        data = update({})
        return data, (carry(self.store.create(data)),)


class Handler(WSGIRequestHandler):
    """HTTP/1.0: one request per connection, so nothing unread is ever mistaken for the next one."""

    server: Server
    timeout = 10  # seconds for a silent client

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """The base class calls it for what is no HTTP, or too long."""
        self.send_response(code)
        headers, body = rendered(Answer(code, pages.problem(responses[code], "This request makes no sense here.")))
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


ServerHandler.server_software = "login_app"  # versions are nobody's business


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
        """Called about twice a second. Expired sessions are refused anyway; this gives their memory back."""
        if time.monotonic() >= self.next_sweep:
            self.next_sweep = time.monotonic() + SWEEP_EVERY_SECONDS
            try:
                self.app.store.sweep()
            except SessionStoreError as error:
                print(f"sweep: {error.name}: {error}", file=sys.stderr)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that hangs up or sleeps is no news
            super().handle_error(request, client_address)


def read_form(environ: WSGIEnvironment) -> dict[str, str]:
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "Unsupported media type", "Only ordinary forms are understood.")
    length = environ.get("CONTENT_LENGTH", "")
    if not length:
        raise Refusal(411, "Length required", "The form does not say how long it is.")
    if not (length.isascii() and length.isdigit()):
        raise Refusal(400, "Bad request", "The length of the form is no number.")
    if len(length) > 9 or int(length) > MAX_FORM_BYTES:
        raise Refusal(413, "Too large", "No form of this site is that long.")
    try:
        body = environ["wsgi.input"].read(int(length))
    except OSError:  # the client has gone, or sleeps
        body = b""
    if len(body) < int(length):
        raise Refusal(400, "Bad request", "The form ends early.")
    try:
        return dict(parse_qsl(body.decode("ascii"), errors="strict", max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        raise Refusal(400, "Bad request", "This form cannot be read.") from None


def rendered(answer: Answer) -> tuple[list[Header], bytes]:
    body = answer.page.encode()
    return [*ALWAYS, *answer.headers, ("Content-Length", str(len(body)))], body


def redirect(location: str, *headers: Header) -> Answer:
    return Answer(303, "", (("Location", location), *headers))


def carry(sid: str) -> Header:
    return ("Set-Cookie", COOKIE.format(sid))


def same(given: Optional[str], expected: Optional[str]) -> bool:
    return bool(given and expected) and hmac.compare_digest(str(given).encode(), str(expected).encode())


def password_is(user: str, password: str) -> bool:
    """An unknown user costs the same time as a wrong password."""
    salt, _, expected = PASSWORDS.get(user, "00:00").partition(":")
    with SCRYPT_SLOTS:
        given = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=32)
    return hmac.compare_digest(given, bytes.fromhex(expected))


@contextmanager
def running(url: str) -> Iterator[tuple[str, Store]]:
    """The site on a free port, served by a thread, for the walk."""
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
        for number in (signal.SIGINT, signal.SIGTERM):  # `kill` ends it as cleanly as Ctrl-C, in the background too
            signal.signal(number, signal.default_int_handler)
        try:
            print(f"login_app is at {server.address}/ (Ctrl-C ends it)\ndemo users: {DEMO_USERS}", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="A web login on session_server_store. Without --serve: a guided walk.")
    parser.add_argument("--serve", action="store_true", help="keep it running for a browser")
    parser.add_argument("--port", type=int, default=0, help="with --serve: the port on 127.0.0.1 (a free one)")
    url = os.environ.get(STORE_VARIABLE, SERVE_URL)
    parser.add_argument("--url", default=url, help=f"with --serve: the store ({STORE_VARIABLE}, or %(default)s)")
    options = parser.parse_args()
    if options.serve:
        try:
            serve(options.url, options.port)
        except (SessionStoreError, OSError, OverflowError) as error:
            parser.error(str(error))
        return 0
    with running(WALK_URL) as (address, store):
        return walk.run(address, store)


if __name__ == "__main__":
    sys.exit(main())
