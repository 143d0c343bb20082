"""What the aiohttp adapter adds to the promises of test_adapters.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp_session
import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer

from session_server_store import Store
from session_server_store.aiohttp import SessionServerStorage, setup


def use(url: str, handlers: dict[str, Any], test: Callable[[Any], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        app = web.Application()
        setup(app, SessionServerStorage(url, secure=False, **options))
        app.add_routes([web.get(path, handler) for path, handler in handlers.items()])
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as client:
            await test(client)

    asyncio.run(run())


def test_new_session_ends_the_one_before() -> None:
    async def set_key(request: web.Request) -> web.Response:
        (await aiohttp_session.get_session(request))["cart"] = 1
        return web.Response()

    async def login(request: web.Request) -> web.Response:
        (await aiohttp_session.new_session(request))["user_id"] = "alice"
        return web.Response()

    async def test(client: Any) -> None:
        first = (await client.get("/set")).cookies["AIOHTTP_SESSION"].value
        second = (await client.get("/login")).cookies["AIOHTTP_SESSION"].value
        with Store("memory:new-session") as store:
            assert store.get(first) is None
            session = store.get(second)
            assert session is not None
            assert session.payload == {"user_id": "alice"}
            assert len(store.list("alice")) == 1

    use("memory:new-session", {"/set": set_key, "/login": login}, test)


def test_created_is_that_of_the_store() -> None:
    created: list[int] = []

    async def view(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        created.append(session.created)
        session["a"] = 1
        return web.Response()

    async def test(client: Any) -> None:
        sid = (await client.get("/")).cookies["AIOHTTP_SESSION"].value
        await client.get("/")
        with Store("memory:created") as store:
            session = store.get(sid)
            assert session is not None
            assert created[1] == int(session.created.timestamp())

    use("memory:created", {"/": view}, test)


def test_identity_cannot_be_chosen() -> None:
    async def view(request: web.Request) -> web.Response:
        session = await aiohttp_session.new_session(request)
        with pytest.raises(RuntimeError, match="makes the ids"):
            session.set_new_identity("chosen")
        return web.Response()

    async def test(client: Any) -> None:
        assert (await client.get("/")).status == 200

    use("memory:", {"/": view}, test)


def test_max_age_of_one_session() -> None:
    async def view(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session.max_age = 60
        session["a"] = 1
        return web.Response()

    async def test(client: Any) -> None:
        morsel = (await client.get("/")).cookies["AIOHTTP_SESSION"]
        assert morsel["max-age"] == "60"
        with Store("memory:max-age?timeout=1d") as store:
            session = store.get(morsel.value, peek=True)
            assert session is not None
            assert session.expires is not None
            assert (session.expires - session.last_seen).total_seconds() == 60

    use("memory:max-age?timeout=1d", {"/": view}, test)


@pytest.mark.parametrize("options", [{"domain": "a.example"}, {"path": "/app"}, {"secure": False}])
def test_host_prefix_is_checked(options: dict[str, Any]) -> None:
    SessionServerStorage("memory:", cookie_name="__Host-sid")
    with pytest.raises(ValueError, match="__Host-sid"):
        SessionServerStorage("memory:", cookie_name="__Host-sid", **options)
