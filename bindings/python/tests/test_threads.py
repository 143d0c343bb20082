"""Races. Each runs with the interpreter lock held during the calls and with it released, when threads collide."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from session_server_store import RAW, ClosedError, ConflictError, Store

ROUNDS = 200


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Runs all at once; returns what they return, raises what the first one raised."""
    barrier = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(index: int, work: Callable[[], Any]) -> None:
        try:
            barrier.wait()
            results[index] = work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def until_missing(call: Callable[[], Any]) -> int:
    count = 0
    while call() is not None:
        count += 1
    return count


def test_nothing_comes_back_when_delete_races_with_put(parallel_store: Store) -> None:
    store = parallel_store

    def race(sid: str) -> None:
        deleted, *_ = together(
            lambda: store.delete(sid),
            lambda: until_missing(lambda: store.put(sid, "y")),
            lambda: until_missing(lambda: store.touch(sid)),
        )
        assert deleted is True
        assert store.get(sid) is None

    for _ in range(ROUNDS):
        race(store.create("x"))
    assert store.stats().sessions == 0


def test_nothing_comes_back_when_delete_races_with_renew(parallel_store: Store) -> None:
    store = parallel_store

    def race(sid: str) -> None:
        deleted, one, two = together(lambda: store.delete(sid), lambda: store.renew(sid), lambda: store.renew(sid, "y"))
        assert [deleted, one is not None, two is not None].count(True) == 1
        assert store.get(sid) is None
        for new in (one, two):
            if new is not None:
                assert store.get(new) is not None
                assert store.delete(new)

    for _ in range(ROUNDS):
        race(store.create("x"))
    assert store.stats().sessions == 0


def test_nothing_comes_back_when_revoke_races_with_writes(parallel_store: Store) -> None:
    store = parallel_store

    def race(sids: list[str]) -> None:
        revoked, *_ = together(
            lambda: store.revoke("alice"),
            lambda: until_missing(lambda: store.put(sids[0], "y")),
            lambda: until_missing(lambda: store.put(sids[1], "y", principal="alice")),
            lambda: until_missing(lambda: store.touch(sids[2])),
        )
        assert revoked == 3
        assert [store.get(sid) for sid in sids] == [None] * 3
        assert store.list("alice") == []

    for _ in range(ROUNDS):
        race([store.create("x", principal="alice") for _ in range(3)])
    assert store.stats().sessions == 0


def test_what_renew_returned_before_revoke_is_dead_after_it(parallel_store: Store) -> None:
    store = parallel_store

    def race(sids: list[str]) -> None:
        def renew() -> None:
            new = store.renew(sids[-1])
            while new is not None:
                sids.append(new)
                new = store.renew(new)

        def revoke() -> bool:
            last = sids[-1]
            store.revoke("alice")
            return store.get(last) is None

        assert together(renew, revoke)[1]
        assert store.get(sids[-1]) is None

    for _ in range(ROUNDS):
        race([store.create("x", principal="alice")])
    assert store.stats().sessions == 0


def test_put_if_loses_no_update(parallel_store: Store) -> None:
    store = parallel_store
    sid = store.create([0])

    def add(times: int) -> None:
        while times:
            session = store.get(sid)
            assert session is not None
            try:
                store.put_if(sid, session.version, [session.payload[0] + 1])
                times -= 1
            except ConflictError:
                pass

    together(*[lambda: add(200)] * 4)
    session = store.get(sid)
    assert session is not None
    assert session.payload == [800]
    assert session.version == 801


def test_each_thread_is_answered_about_its_own_session() -> None:
    with Store(serializer=RAW) as store:

        def work(number: int) -> None:
            payload = bytes([number]) * (number * 3000 + 1)
            sid = store.create(payload)
            for version in range(1, 2000 * number):  # far apart, so that another's answer cannot be right
                written, touched = store.put(sid, payload), store.touch(sid)
                assert written is not None
                assert touched is not None
                assert written.version == touched.version == version + 1
                if version % 100 == 0:
                    new = store.renew(sid)
                    assert new is not None
                    sid = new
                session = store.get(sid)
                assert session is not None
                assert session.payload == payload

        together(*[functools.partial(work, number) for number in range(1, 5)])


def test_payload_that_grows_while_it_is_read_is_read_whole(parallel_store: Store) -> None:
    store = parallel_store
    sid = store.create("s")
    stop = threading.Event()

    def grow() -> None:
        size = 1
        while not stop.is_set():
            size = size * 5 % 400_009
            store.put(sid, "s" * (size + 1))

    def look() -> None:
        try:
            for _ in range(300):
                session = store.get(sid)
                assert session is not None
                assert set(session.payload) == {"s"}
        finally:
            stop.set()

    together(grow, look)


def test_store_can_be_closed_while_others_use_it(parallel_store: Store) -> None:
    def race(store: Store) -> None:
        sid = store.create("x")
        started = threading.Semaphore(0)

        def use() -> str:
            started.release()
            while True:
                try:
                    assert store.get(sid) is not None
                    assert store.put(sid, "y") is not None
                    store.create("z")
                    store.list("alice")
                    store.sweep()
                except ClosedError:
                    return "closed"

        def close() -> str:
            for _ in range(3):
                started.acquire()
            store.close()
            return "closed"

        assert together(use, use, use, close) == ["closed"] * 4

    race(parallel_store)
    for _ in range(50):
        race(Store())


def test_memory_keeps_the_interpreter_lock() -> None:
    """No thread runs during a thousand calls: with a switch interval of a minute only a released lock would let one."""
    turns = 0
    stop = False

    def work() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            time.sleep(0)

    with Store() as store:
        sid = store.create("x")
        thread = threading.Thread(target=work)
        thread.start()
        while turns == 0:
            time.sleep(0)
        sys.setswitchinterval(60)
        time.sleep(0.01)  # after this the other thread waits by the new interval, and has asked for nothing
        try:
            before = turns
            for _ in range(1000):
                store.get(sid)
                store.put(sid, "y")
                store.touch(sid)
            assert turns == before
        finally:
            stop = True
            thread.join()
