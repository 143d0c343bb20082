"""The pooled buffers of calls: no call sees the bytes of another, and no secret stays in them."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import session_server_store.store
from session_server_store import RAW, Store, _scratch


@pytest.fixture(autouse=True)
def fresh_pool() -> Iterator[None]:
    _scratch._pool.clear()
    yield
    _scratch._pool.clear()


def read(store: Store, sid: str) -> Any:
    session = store.get(sid)
    assert session is not None
    return session.payload


def test_released_buffer_is_wiped() -> None:
    with Store(serializer=RAW) as store:
        sid = store.create(b"secret" * 1000)
        read(store, sid)
        new = store.renew(sid)
        assert new is not None
        read(store, new)
        assert len(_scratch._pool) == 1
        assert not any(_scratch._pool[0].memory)
        assert not any(_scratch._pool[0].id_memory)


def test_buffer_is_reused() -> None:
    with Store(serializer=RAW) as store:
        sid = store.create(b"x")
        kept = _scratch._pool[0]
        for _ in range(10):
            read(store, sid)
            store.put(sid, b"y")
            store.touch(sid)
        assert _scratch._pool == [kept]


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 300_000, 1024 * 1024])
def test_payload_around_buffer_size(size: int) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    with Store(serializer=RAW) as store:
        sid, small = store.create(payload), store.create(b"small")
        for _ in range(2):  # the second time with a buffer that may have grown
            assert read(store, sid) == payload
            assert read(store, small) == b"small"


def test_get_with_small_buffer_counts_once() -> None:
    with Store() as store:
        assert read(store, store.create("x" * 200_000))
        assert store.stats().hits == 1


def test_pool_drops_huge_buffers() -> None:
    with Store(serializer=RAW) as store:
        read(store, store.create(b"x" * 100_000))
        assert [scratch.size >= 100_000 for scratch in _scratch._pool] == [True]
        read(store, store.create(b"x" * 1_000_000))
        assert _scratch._pool == []


def test_released_buffer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def reused_at_once(scratch: _scratch.Scratch) -> None:
        for memory in (scratch.out, scratch.memory, scratch.id_memory):
            memory[:] = b"\x5a" * len(memory)

    monkeypatch.setattr(session_server_store.store, "release", reused_at_once)
    with Store(serializer=RAW) as store:
        sid = store.create(b"mine")
        assert read(store, sid) == b"mine"
        new = store.renew(sid)
        assert new is not None
        for number, written in enumerate([store.put(new, b"my"), store.put_if(new, 2, b"my"), store.touch(new)], 2):
            assert written is not None
            assert written.version == min(number, 3)
            assert written.created <= written.last_seen
        assert read(store, new) == b"my"


def test_store_call_inside_serializer() -> None:
    class Linked:
        """The stored bytes are the id of another session, three deep."""

        def dumps(self, obj: bytes) -> bytes:
            if len(obj) < 3:
                return self.store.create(obj + b"x").encode()
            return obj

        def loads(self, data: bytes) -> Any:
            return read(self.store, data.decode()) if len(data) == 128 else data

        store: Store

    serializer = Linked()
    with Store(serializer=serializer) as store:
        serializer.store = store
        sid = store.create(b"x")
        for _ in range(3):
            assert read(store, sid) == b"xxx"
            assert store.put(sid, b"xx") is not None


def test_store_call_inside_signal_handler() -> None:
    with Store(serializer=RAW) as store:
        mine, theirs = store.create(b"mine" * 100), store.create(b"theirs" * 200)
        ran = 0

        def handler(*_: object) -> None:
            nonlocal ran
            ran += 1
            assert read(store, theirs) == b"theirs" * 200
            assert store.put(theirs, b"theirs" * 200) is not None

        previous = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            while ran < 300:
                assert read(store, mine) == b"mine" * 100
                written = store.put(mine, b"mine" * 100)
                assert written is not None
                session = store.get(mine, peek=True)
                assert session is not None
                assert session.version == written.version
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def test_store_call_inside_finaliser() -> None:
    ran: list[bool] = []

    class Noisy:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            ran.append(read(store, theirs) == b"theirs" * 200)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with Store(serializer=RAW) as store:
            mine, theirs = store.create(b"mine" * 100), store.create(b"theirs" * 200)
            for _ in range(1000):
                Noisy()
                assert read(store, mine) == b"mine" * 100
            gc.collect()
    finally:
        gc.set_threshold(*threshold)
    assert ran == [True] * 1000


def test_exception_during_get_drops_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(serializer=RAW) as store:
        sid = store.create(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(_scratch.Scratch, "take_payload", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                store.get(sid)
        assert _scratch._pool == []
        assert read(store, sid) == b"x"
