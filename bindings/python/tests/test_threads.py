"""Threads on one store, with calls that hold the interpreter lock and with calls that release it.

What the engines guarantee is proved in Rust; here the Python layer is under test.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from session_server_store import RAW, ClosedError, ConflictError, Store


@pytest.fixture(autouse=True)
def frequent_thread_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def run_together(*works: Callable[[], Any]) -> list[Any]:
    """Runs each in a thread. Returns their results, or raises the first exception."""
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


def test_concurrent_put_if_loses_no_update(parallel_store: Store) -> None:
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

    run_together(*[lambda: add(200)] * 4)
    session = store.get(sid)
    assert session is not None
    assert (session.payload, session.version) == ([800], 801)


def test_threads_never_mix_results() -> None:
    with Store(serializer=RAW) as store:

        def work(number: int) -> None:
            payload = bytes([number]) * (number * 3000 + 1)
            sid = store.create(payload)
            for version in range(1, 500 * number):  # the threads' versions drift apart
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

        run_together(*[functools.partial(work, number) for number in range(1, 5)])


def test_get_while_payload_grows(parallel_store: Store) -> None:
    store = parallel_store
    sid = store.create("s")
    stop = threading.Event()

    def grow() -> None:
        size = 1
        while not stop.is_set():
            size = size * 5 % 400_009
            store.put(sid, "s" * (size + 1))

    def read() -> None:
        try:
            for _ in range(100):
                session = store.get(sid)
                assert session is not None
                assert set(session.payload) == {"s"}
        finally:
            stop.set()

    run_together(grow, read)


def test_close_during_calls(parallel_store: Store) -> None:
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

        assert run_together(use, use, use, close) == ["closed"] * 4

    race(parallel_store)
    for _ in range(20):
        race(Store())
