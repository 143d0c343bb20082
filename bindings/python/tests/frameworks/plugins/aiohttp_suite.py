"""A plugin for aiohttp_session's tests of its Redis storage: the storage is that of the adapter.

The tests plant sessions under keys of their own, which the store does not allow: here, a key that a
test has chosen stands for the id that the store has made.
"""

from __future__ import annotations

import asyncio
import datetime
import inspect
import json
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Optional

import aiohttp_session.redis_storage
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from session_server_store import Store
from session_server_store.aiohttp import SessionServerStorage

EXCLUDED = {
    "test_load_bad_session": "a payload that cannot be read is an error, not an empty session",
    "test_create_storage_with_custom_key_factory": "only the store makes ids",
    "test_redis_from_create_pool": "about the Redis client",
    "test_not_redis_provided_to_storage": "about the Redis client",
    "test_no_aioredis_installed": "about the Redis client",
    "test_old_aioredis_version": "about the Redis client",
}
PREFIX = "AIOHTTP_SESSION_"


class Sessions:
    """What the tests use of a Redis client, on a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.planted: dict[str, str] = {}

    def sid(self, name: str) -> str:
        key = name[len(PREFIX) :]
        return self.planted.get(key, key)

    async def set(self, name: str, value: str) -> None:
        self.planted[name[len(PREFIX) :]] = self.store.create(json.loads(value)["session"])

    async def get(self, name: str) -> bytes:
        session = self.store.get(self.sid(name), peek=True)
        if session is None:
            return b"{}"
        return json.dumps({"session": session.payload, "created": int(session.created.timestamp())}).encode()

    async def exists(self, name: str) -> bool:
        return self.store.get(self.sid(name), peek=True) is not None

    async def ttl(self, name: str) -> float:
        session = self.store.get(self.sid(name), peek=True)
        assert session is not None
        assert session.expires is not None
        return (session.expires - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


class StoreStorage(SessionServerStorage):
    def __init__(self, sessions: Sessions, max_age: Optional[int], key_factory: Any) -> None:
        super().__init__(sessions.store, max_age=max_age, secure=False)
        self.sessions = sessions

    def _sids(self, request: web.Request) -> list[str]:
        return [self.sessions.planted.get(sid, sid) for sid in super()._sids(request)]


aiohttp_session.redis_storage.RedisStorage = StoreStorage  # type: ignore[assignment,misc]


sys.modules["pytest_mock"] = ModuleType("pytest_mock")  # imported for a type of an excluded test
sys.modules["pytest_mock"].MockFixture = Any  # type: ignore[attr-defined]
_clients: list[Any] = []


@pytest.fixture
def aiohttp_client() -> Any:
    async def connect(app: web.Application) -> Any:
        client = TestClient(TestServer(app))
        _clients.append(client)
        await client.start_server()
        return client

    return connect


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs asynchronous tests."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def call() -> None:
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            while _clients:
                await _clients.pop().close()

    asyncio.run(call())
    return True


@pytest.fixture
def redis() -> Iterator[Sessions]:
    with Store(os.environ["SSS_SUITE_URL"]) as store:
        yield Sessions(store)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name in EXCLUDED:
            item.add_marker(pytest.mark.skip(reason=EXCLUDED[item.name]))
