"""The same small site in Django, Flask, Starlette and aiohttp, each on a real server.

Its pages: /get, /set (keys of the query), /remove, /nested, /login, /logout, /clear, /renew, /plain
(does not use the session), /devices, /end-device, /end-others; ``hold`` in the query stops them
after they have read the session. Responses are JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import hold
from browser import Browser

from session_server_store import Store

FRAMEWORKS = ("django", "flask", "starlette", "aiohttp")
HIDDEN = ("_auth_user_backend", "_auth_user_hash", "_session_expiry")
USER_KEYS = {"django": "_auth_user_id", "flask": "_user_id", "starlette": "user_id", "aiohttp": "user_id"}
COOKIE = "sid"

_numbers = itertools.count()


class Site:
    """A running server. ``user_key`` is where the framework keeps the user."""

    def __init__(self, framework: str, url: str, port: int) -> None:
        self.framework = framework
        self.user_key = USER_KEYS[framework]
        self.url = url
        self.port = port

    def browser(self, sid: str = "") -> Browser:
        return Browser(self.port, COOKIE, sid)

    def store(self) -> Store:
        """The same sessions. ``memory:NAME`` is shared in the process."""
        return Store(self.url)


@contextmanager
def serving(framework: str, url: str, **options: Any) -> Iterator[Site]:
    """``options``: conflict and secure."""
    start: Callable[..., Any] = {
        "django": serve_django,
        "flask": serve_flask,
        "starlette": serve_starlette,
        "aiohttp": serve_aiohttp,
    }[framework]
    with start(url, **options) as port:
        yield Site(framework, url, port)


def free_socket() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


@contextmanager
def serve_wsgi(application: Any) -> Iterator[int]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Django.


def setup_django() -> None:
    """Settings for the whole process; tests override them."""
    import django
    from django.conf import settings

    if settings.configured:
        return
    directory = Path(tempfile.mkdtemp(prefix="sss-django-"))
    settings.configure(
        SECRET_KEY="of a test",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="django_site",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "session_server_store.django",
        ],
        MIDDLEWARE=[
            "session_server_store.django.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                        "django.template.context_processors.request",
                    ]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "db"}},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        SESSION_ENGINE="session_server_store.django",
        SESSION_SERVER_STORE_URL="memory:",
        SESSION_COOKIE_NAME=COOKIE,
        USE_TZ=True,
        LOGIN_URL="/login",
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        LOGGING_CONFIG=None,
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    for name in ("alice", "bob"):
        User.objects.create_user(name, password=f"{name}'s")
    connection.close()


@contextmanager
def serve_django(url: str, *, conflict: str = "merge", secure: Optional[bool] = None) -> Iterator[int]:
    setup_django()
    from django.core.wsgi import get_wsgi_application
    from django.test import override_settings

    settings = {"SESSION_SERVER_STORE_URL": url, "SESSION_SERVER_STORE_CONFLICT": conflict}
    if secure is not None:
        settings["SESSION_COOKIE_SECURE"] = secure  # type: ignore[assignment]
    with override_settings(**settings), serve_wsgi(get_wsgi_application()) as port:
        yield port


# Flask.


@contextmanager
def serve_flask(url: str, **options: Any) -> Iterator[int]:
    with serve_wsgi(flask_app(url, **options)) as port:
        yield port


def flask_app(url: str, **options: Any) -> Any:
    from flask import Flask, jsonify, request, session

    from session_server_store.flask import SessionServerStore

    app = Flask(__name__)
    app.config.update(SESSION_SERVER_STORE_URL=url, SESSION_COOKIE_NAME=COOKIE)
    sessions = SessionServerStore(app, **options)

    def read() -> dict[str, Any]:
        query = request.args.to_dict()
        data = dict(session)
        if "hold" in query:
            hold.wait(query.pop("hold"))
        return data | {"query": query}

    @app.get("/get")
    def get() -> Any:
        data = read()
        del data["query"]
        return data

    @app.get("/plain")
    def plain() -> Any:
        return {}

    @app.get("/crash")
    def crash() -> Any:
        session["crashed"] = "yes"
        raise RuntimeError("on purpose")

    @app.post("/set")
    def set_keys() -> Any:
        session.update(read()["query"])
        return {}

    @app.post("/remove")
    def remove() -> Any:
        for key in read()["query"]:
            session.pop(key, None)
        return {}

    @app.post("/nested")
    def nested() -> Any:
        session["cart"].append(read()["query"]["item"])
        session.modified = True
        return {}

    @app.post("/cart")
    def cart() -> Any:
        session["cart"] = []
        return {}

    @app.post("/login")
    def login() -> Any:
        session["_user_id"] = read()["query"]["user"]
        return {}

    @app.post("/logout")
    def logout() -> Any:
        read()
        session.clear()
        return {}

    @app.post("/renew")
    def renew() -> Any:
        session.renew(reauthenticated="again" in read()["query"])  # type: ignore[attr-defined]
        return {}

    @app.get("/devices")
    def devices() -> Any:
        return jsonify([describe(device) for device in sessions.devices(session["_user_id"])])

    @app.post("/end-device")
    def end_device() -> Any:
        return {"ended": sessions.end_device(session["_user_id"], read()["query"]["ref"])}

    @app.post("/end-others")
    def end_others() -> Any:
        return {"ended": sessions.revoke(session["_user_id"], except_current=True)}

    return app


def describe(device: Any) -> dict[str, Any]:
    return {"ref": device.ref, "current": device.current, "label": device.label}


# Starlette.


@contextmanager
def serve_starlette(url: str, *, conflict: str = "merge", secure: Optional[bool] = None) -> Iterator[int]:
    import uvicorn

    app = starlette_app(url, conflict=conflict, secure=secure)
    listener = free_socket()
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def starlette_app(url: str, *, conflict: str = "merge", secure: Optional[bool] = None) -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    from session_server_store.starlette import SessionMiddleware, devices, end_device, revoke

    async def read(request: Request) -> dict[str, Any]:
        query = dict(request.query_params)
        data = dict(request.session)
        if "hold" in query:
            await hold.wait_in_loop(query.pop("hold"))
        return data | {"query": query}

    async def get(request: Request) -> JSONResponse:
        data = await read(request)
        del data["query"]
        return JSONResponse(data)

    async def plain(request: Request) -> JSONResponse:
        return JSONResponse({})

    async def crash(request: Request) -> JSONResponse:
        request.session["crashed"] = "yes"
        raise RuntimeError("on purpose")

    async def set_keys(request: Request) -> JSONResponse:
        request.session.update((await read(request))["query"])
        return JSONResponse({})

    async def remove(request: Request) -> JSONResponse:
        for key in (await read(request))["query"]:
            request.session.pop(key, None)
        return JSONResponse({})

    async def nested(request: Request) -> JSONResponse:
        request.session["cart"].append((await read(request))["query"]["item"])
        return JSONResponse({})

    async def cart(request: Request) -> JSONResponse:
        request.session["cart"] = []
        return JSONResponse({})

    async def login(request: Request) -> JSONResponse:
        request.session["user_id"] = (await read(request))["query"]["user"]
        return JSONResponse({})

    async def logout(request: Request) -> JSONResponse:
        await read(request)
        request.session.clear()
        return JSONResponse({})

    async def renew(request: Request) -> JSONResponse:
        query = (await read(request))["query"]
        request.session.renew(reauthenticated="again" in query)  # type: ignore[attr-defined]
        return JSONResponse({})

    async def list_devices(request: Request) -> JSONResponse:
        return JSONResponse([describe(device) for device in await devices(request, request.session["user_id"])])

    async def end_one(request: Request) -> JSONResponse:
        ref = request.query_params["ref"]
        return JSONResponse({"ended": await end_device(request, request.session["user_id"], ref)})

    async def end_others(request: Request) -> JSONResponse:
        return JSONResponse({"ended": await revoke(request, request.session["user_id"], except_current=True)})

    async def socket_echo(websocket: WebSocket) -> None:
        websocket.session["before"] = "accept"
        await websocket.accept()
        async for text in websocket.iter_text():
            websocket.session["heard"] = text
            await websocket.send_json(dict(websocket.session))

    routes = [
        Route("/get", get),
        Route("/plain", plain),
        Route("/crash", crash),
        Route("/set", set_keys, methods=["POST"]),
        Route("/remove", remove, methods=["POST"]),
        Route("/nested", nested, methods=["POST"]),
        Route("/cart", cart, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/renew", renew, methods=["POST"]),
        Route("/devices", list_devices),
        Route("/end-device", end_one, methods=["POST"]),
        Route("/end-others", end_others, methods=["POST"]),
        WebSocketRoute("/socket", socket_echo),
    ]
    options: dict[str, Any] = {"session_cookie": COOKIE, "conflict": conflict, "https_only": secure}
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, store=url, **options)])


# aiohttp.


@contextmanager
def serve_aiohttp(url: str, **options: Any) -> Iterator[int]:
    from aiohttp import web

    listener = free_socket()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(aiohttp_app(url, **options), access_log=None)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, listener).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(hold.HANG_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def aiohttp_app(url: str, **options: Any) -> Any:
    from aiohttp import web
    from aiohttp_session import get_session

    from session_server_store.aiohttp import SessionServerStorage, setup

    app = web.Application()
    storage = SessionServerStorage(url, cookie_name=COOKIE, max_age=3600, **options)
    setup(app, storage)

    async def read(request: web.Request) -> tuple[Any, dict[str, str]]:
        session = await get_session(request)
        query = dict(request.query)
        if "hold" in query:
            await hold.wait_in_loop(query.pop("hold"))
        return session, query

    async def get(request: web.Request) -> web.Response:
        session, _ = await read(request)
        return web.json_response(dict(session))

    async def plain(request: web.Request) -> web.Response:
        return web.json_response({})

    async def crash(request: web.Request) -> web.Response:
        (await get_session(request))["crashed"] = "yes"
        raise RuntimeError("on purpose")

    async def set_keys(request: web.Request) -> web.Response:
        session, query = await read(request)
        session.update(query)
        return web.json_response({})

    async def remove(request: web.Request) -> web.Response:
        session, query = await read(request)
        for key in query:
            session.pop(key, None)
        return web.json_response({})

    async def nested(request: web.Request) -> web.Response:
        session, query = await read(request)
        session["cart"].append(query["item"])
        session.changed()
        return web.json_response({})

    async def cart(request: web.Request) -> web.Response:
        session, _ = await read(request)
        session["cart"] = []
        return web.json_response({})

    async def login(request: web.Request) -> web.Response:
        session, query = await read(request)
        session["user_id"] = query["user"]
        return web.json_response({})

    async def logout(request: web.Request) -> web.Response:
        session, _ = await read(request)
        session.invalidate()
        return web.json_response({})

    async def renew(request: web.Request) -> web.Response:
        session, query = await read(request)
        session.renew(reauthenticated="again" in query)
        return web.json_response({})

    async def list_devices(request: web.Request) -> web.Response:
        session, _ = await read(request)
        return web.json_response([describe(d) for d in await storage.devices(request, session["user_id"])])

    async def end_one(request: web.Request) -> web.Response:
        session, query = await read(request)
        return web.json_response({"ended": await storage.end_device(session["user_id"], query["ref"])})

    async def end_others(request: web.Request) -> web.Response:
        session, _ = await read(request)
        return web.json_response({"ended": await storage.revoke(session["user_id"], except_request=request)})

    app.add_routes(
        [
            web.get("/get", get),
            web.get("/plain", plain),
            web.get("/crash", crash),
            web.post("/set", set_keys),
            web.post("/remove", remove),
            web.post("/nested", nested),
            web.post("/cart", cart),
            web.post("/login", login),
            web.post("/logout", logout),
            web.post("/renew", renew),
            web.get("/devices", list_devices),
            web.post("/end-device", end_one),
            web.post("/end-others", end_others),
        ]
    )
    return app
