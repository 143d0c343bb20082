"""What the Starlette and FastAPI adapter adds to the promises of test_adapters.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sites import free_socket, starlette_app
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from temporary_store import TemporaryStore

from session_server_store import Store
from session_server_store.starlette import ServerSession, SessionMiddleware

DOWN = "redis://127.0.0.1:1?deadline=200ms"
HTTPS = "https://site.example"


@pytest.fixture
def url() -> Iterator[str]:
    with TemporaryStore() as temporary:
        yield temporary.url("timeout=90d")


def client(url: str, **options: Any) -> TestClient:
    return TestClient(starlette_app(url, **options), base_url=HTTPS)


def test_websocket_reads_and_writes_session(url: str) -> None:
    browser = client(url)
    browser.post("/set?a=1")
    with browser.websocket_connect("wss://site.example/socket") as socket:
        socket.send_text("hello")
        assert socket.receive_json() == {"a": "1", "before": "accept", "heard": "hello"}
    assert browser.get("/get").json() == {"a": "1", "before": "accept", "heard": "hello"}


def test_websocket_begins_session_with_handshake(url: str) -> None:
    browser = client(url)
    with browser.websocket_connect("wss://site.example/socket") as socket:
        (cookie,) = [value for name, value in socket.extra_headers or [] if name == b"set-cookie"]
        socket.send_text("hello")
        socket.receive_json()
    sid = cookie.decode().partition(";")[0].partition("=")[2]
    with Store(url) as store:
        session = store.get(sid)
        assert session is not None
        assert session.payload == {"before": "accept", "heard": "hello"}


def test_websocket_is_refused_while_store_is_down() -> None:
    browser = client(DOWN)
    browser.cookies.set("sid", "A" * 128)
    with pytest.raises(WebSocketDenialResponse) as refused, browser.websocket_connect("wss://site.example/socket"):
        pass
    assert refused.value.status_code == 503


def test_websocket_is_closed_where_server_has_no_denial_response() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "headers": [(b"cookie", b"session=" + b"A" * 128)]}
    asyncio.run(SessionMiddleware(Starlette(), DOWN)(scope, None, send))  # type: ignore[arg-type]
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1013)]


def test_refused_response_is_sent_once() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["a"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the page"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": []}
    asyncio.run(SessionMiddleware(app, DOWN)(scope, None, send))  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503
    assert b"not logged out" in sent[1]["body"]


def test_renew_after_response_has_begun_is_an_error() -> None:
    with Store() as store:
        middleware = SessionMiddleware(Starlette(), store)
        from session_server_store._adapter import RequestSession

        session = ServerSession(RequestSession(middleware.manager, []), {})
        session._can_renew = False
        with pytest.raises(RuntimeError, match="has begun"):
            session.renew()


def test_store_that_cannot_block_uses_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a thread was used")

    monkeypatch.setattr("anyio.to_thread.run_sync", fail)
    browser = client("memory:")
    assert browser.post("/set?a=1").status_code == 200
    assert browser.get("/get").json() == {"a": "1"}


def test_store_that_blocks_uses_threads_of_its_own() -> None:
    threads = set()

    async def view(request: Request) -> JSONResponse:
        threads.add(threading.current_thread())
        return JSONResponse({})

    app = Starlette(routes=[Route("/", view)], middleware=[Middleware(SessionMiddleware, store=DOWN)])
    browser = TestClient(app, base_url=HTTPS)
    browser.cookies.set("session", "A" * 128)
    assert browser.get("/").status_code == 503
    assert not threads


def test_event_loop_runs_while_store_is_slow() -> None:
    """A store that does not answer stops only the requests that need it."""

    async def use() -> int:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("the session was not loaded")

        # An address that answers nothing: the connection waits until the deadline.
        server = free_socket()
        port = server.getsockname()[1]
        middleware = SessionMiddleware(app, f"redis://127.0.0.1:{port}?deadline=1s")
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "headers": [(b"cookie", b"session=" + b"A" * 128)]}
        waiting = asyncio.create_task(middleware(scope, None, send))  # type: ignore[arg-type]
        turns = 0
        while not waiting.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert sent[0]["status"] == 503
        server.close()
        return turns

    assert asyncio.run(use()) > 10


@pytest.mark.parametrize("options", [{"domain": "a.example"}, {"path": "/app"}, {"https_only": False}])
def test_host_prefix_is_checked(options: dict[str, Any]) -> None:
    SessionMiddleware(Starlette(), "memory:", "__Host-sid")
    with pytest.raises(ValueError, match="__Host-sid"):
        SessionMiddleware(Starlette(), "memory:", "__Host-sid", **options)


def test_debug_cookie_is_not_secure() -> None:
    app = starlette_app("memory:")
    app.debug = True
    assert "secure" not in TestClient(app).post("/set?a=1").headers["set-cookie"]


def test_max_age_none_follows_store(url: str) -> None:
    async def view(request: Request) -> JSONResponse:
        request.session["a"] = 1
        return JSONResponse({})

    def app(**options: Any) -> Any:
        middleware = [Middleware(SessionMiddleware, store=url, **options)]
        return TestClient(Starlette(routes=[Route("/", view)], middleware=middleware), base_url=HTTPS)

    assert "Max-Age" not in app(max_age=None).get("/").headers["set-cookie"]
    assert "Max-Age=60" in app(max_age=60).get("/").headers["set-cookie"]


def test_wrong_option_is_an_error() -> None:
    with pytest.raises(ValueError, match="conflict"):
        SessionMiddleware(Starlette(), "memory:", conflict="merg")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="store"):
        SessionMiddleware(Starlette(), None)  # type: ignore[arg-type]
