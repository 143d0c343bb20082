"""An lmdb: store shared by processes, which inherit it by fork or open its URL."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Callable

import pytest
from conftest import HANG_SECONDS, Script
from temporary_store import TemporaryStore
from test_fork import in_child
from test_store import CALLS

from session_server_store import ClosedError, ConflictError, Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=["lmdb", "lmdb-power"])
def temporary(request: pytest.FixtureRequest) -> Iterator[TemporaryStore]:
    with TemporaryStore(request.param) as created:
        yield created


@pytest.fixture
def shared(temporary: TemporaryStore) -> Iterator[Store]:
    with Store(temporary.url("clock=manual")) as opened:
        yield opened


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_inherited_lmdb_store_works(shared: Store, call: Callable[[Store], Any]) -> None:
    def work() -> str:
        call(shared)
        return "works"

    assert in_child(work) == "works"


def test_parent_sees_writes_of_child(shared: Store) -> None:
    written, renewed, deleted = (shared.create({"n": n}, principal="alice") for n in range(3))

    def work() -> str:
        assert shared.put(written, {"child": True}) is not None
        assert shared.delete(deleted)
        return str(shared.renew(renewed)) + shared.create({"new": True})

    output = in_child(work)
    new, created = output[:128], output[128:]
    expected = {written: {"child": True}, renewed: None, deleted: None, new: {"n": 1}, created: {"new": True}}
    for sid, payload in expected.items():
        session = shared.get(sid)
        assert (session and session.payload) == payload
    assert len(shared.list("alice")) == 2


def test_close_in_child_keeps_parent_open(shared: Store) -> None:
    sid = shared.create("x")

    def work() -> str:
        shared.close()
        with pytest.raises(ClosedError):
            shared.get(sid)
        return "closed"

    assert in_child(work) == "closed"
    assert shared.get(sid) is not None


def test_finalisers_in_child_keep_parent_open(script: Script, temporary: TemporaryStore) -> None:
    printed = script(f"""
        import gc, os, sys
        from session_server_store import Store

        class Holder:
            pass

        one, two = Store({temporary.url()!r}), Store({temporary.url()!r})
        sid = one.create("x")
        cycle = Holder()
        cycle.store, cycle.self = two, cycle
        if os.fork() == 0:
            assert one.get(sid) and two.get(sid)
            del one, cycle, two
            gc.collect()
            print("child", flush=True)
            sys.exit()
        assert os.wait()[1] == 0
        assert one.get(sid).payload == two.get(sid).payload == "x"
        print("parent")
    """)
    assert printed.split() == ["child", "parent"]


def test_inherited_global_lmdb_store(script: Script, temporary: TemporaryStore) -> None:
    printed = script(f"""
        import os, sys
        import session_server_store as sss

        sss.open_global({temporary.url()!r})
        sid = sss.create("parent's")
        if os.fork() == 0:
            assert sss.get(sid).payload == "parent's"
            sss.open_global({temporary.url()!r})
            assert sss.put(sid, "child's")
            print("child", flush=True)
            sys.exit()
        assert os.wait()[1] == 0
        print(sss.get(sid).payload)
    """)
    assert printed.split() == ["child", "child's"]


def test_fork_during_calls_of_lmdb_store(temporary: TemporaryStore) -> None:
    with Store(temporary.url()) as store:
        sid = store.create({"n": 0})
        stop = threading.Event()

        def work() -> None:
            mine = store.create("x")
            while not stop.is_set():
                store.put(mine, "y" * 10_000)
                store.get(mine)
                store.sweep()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for n in range(1, 31):
                assert in_child(lambda n=n: str(add_one(store, sid))) == str(n)  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        session = store.get(sid)
        assert session is not None
        assert session.payload == {"n": 30}


def add_one(store: Store, sid: str) -> int:
    """Reads, adds one and writes with put_if, until there is no conflict."""
    while True:
        session = store.get(sid)
        assert session is not None
        try:
            store.put_if(sid, session.version, {"n": session.payload["n"] + 1})
        except ConflictError:
            continue
        return int(session.payload["n"]) + 1


inherited: Store


def add_to_inherited(sid: str) -> int:
    return add_one(inherited, sid)


def add_by_url(url: str, sid: str) -> int:
    with Store(url) as own:
        return add_one(own, sid)


def test_multiprocessing_workers_share_inherited_store(temporary: TemporaryStore) -> None:
    global inherited
    with Store(temporary.url()) as inherited:
        sid = inherited.create({"n": 0})
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert sorted(pool.map(add_to_inherited, [sid] * 200, chunksize=1)) == list(range(1, 201))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_workers_share_url(temporary: TemporaryStore, method: str) -> None:
    with Store(temporary.url()) as store:
        sid = store.create({"n": 0})
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            assert sorted(pool.map(add_by_url, [temporary.url()] * 20, [sid] * 20)) == list(range(1, 21))


def test_writes_after_process_is_killed(temporary: TemporaryStore) -> None:
    with Store(temporary.url()) as store, ThreadPoolExecutor(1) as pool:
        sid = store.create({"n": 0})
        for n in range(20):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                store.create("x")
                os.write(writer, b"x")
                while True:
                    store.put(store.create("x" * 1000), "y" * 1000)
            os.close(writer)
            with os.fdopen(reader, "rb") as pipe:
                assert pipe.read(1) == b"x"
            time.sleep(random.uniform(0, 0.003))  # another instruction each time
            os.kill(child, signal.SIGKILL)
            assert pool.submit(add_one, store, sid).result(timeout=HANG_SECONDS) == n + 1
            os.waitpid(child, 0)
        assert store.stats().errors == 0


def test_sessions_survive_process_exit(temporary: TemporaryStore) -> None:
    sid = in_child(lambda: Store(temporary.url()).create({"a": 1}))
    gc.collect()
    with Store(temporary.url()) as store:
        session = store.get(sid)
        assert session is not None
        assert session.payload == {"a": 1}
