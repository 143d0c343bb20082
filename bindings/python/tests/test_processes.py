"""One lmdb: store of several processes: a forked child goes on with what it inherits, others open the same URL."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable

import pytest
from conftest import Script
from place import Place
from test_fork import in_child
from test_store import CALLS

from session_server_store import ClosedError, ConflictError, Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=["lmdb", "lmdb-power"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with Place(request.param) as made:
        yield made


@pytest.fixture
def shared(place: Place) -> Iterator[Store]:
    with Store(place.url("clock=manual")) as opened:
        yield opened


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_inherited_store_works_for_every_call(shared: Store, call: Callable[[Store], Any]) -> None:
    def work() -> str:
        call(shared)
        return "works"

    assert in_child(work) == "works"


def test_parent_sees_what_a_child_did(shared: Store) -> None:
    written, renewed, deleted = (shared.create({"n": n}, principal="alice") for n in range(3))

    def work() -> str:
        assert shared.put(written, {"child": True}) is not None
        assert shared.delete(deleted)
        return str(shared.renew(renewed)) + shared.create({"new": True})

    told = in_child(work)
    new, created = told[:128], told[128:]
    expected = {written: {"child": True}, renewed: None, deleted: None, new: {"n": 1}, created: {"new": True}}
    for sid, payload in expected.items():
        session = shared.get(sid)
        assert (session and session.payload) == payload
    assert len(shared.list("alice")) == 2


def test_closing_in_a_child_leaves_the_parents(shared: Store) -> None:
    sid = shared.create("x")

    def work() -> str:
        shared.close()
        with pytest.raises(ClosedError):
            shared.get(sid)
        return "closed"

    assert in_child(work) == "closed"
    assert shared.get(sid) is not None


def test_finalisers_in_a_child_close_for_the_child_only(script: Script, place: Place) -> None:
    printed = script(f"""
        import gc, os, sys
        from session_server_store import Store

        class Holder:
            pass

        one, two = Store({place.url()!r}), Store({place.url()!r})
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


def test_global_store_works_in_a_child(script: Script, place: Place) -> None:
    printed = script(f"""
        import os, sys
        import session_server_store as sss

        sss.open_global({place.url()!r})
        sid = sss.create("parent's")
        if os.fork() == 0:
            assert sss.get(sid).payload == "parent's"
            sss.open_global({place.url()!r})
            assert sss.put(sid, "child's")
            print("child", flush=True)
            sys.exit()
        assert os.wait()[1] == 0
        print(sss.get(sid).payload)
    """)
    assert printed.split() == ["child", "child's"]


def test_child_works_at_once_while_threads_of_the_parent_are_in_the_library(place: Place) -> None:
    with Store(place.url()) as store:
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
    """As every read and write of one session by many should be done."""
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


def test_workers_of_multiprocessing_share_an_inherited_store(place: Place) -> None:
    global inherited
    with Store(place.url()) as inherited:
        sid = inherited.create({"n": 0})
        with multiprocessing.get_context("fork").Pool(4) as pool:
            assert sorted(pool.map(add_to_inherited, [sid] * 200, chunksize=1)) == list(range(1, 201))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_multiprocessing_share_the_store_of_a_url(place: Place, method: str) -> None:
    with Store(place.url()) as store:
        sid = store.create({"n": 0})
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            assert sorted(pool.map(add_by_url, [place.url()] * 20, [sid] * 20)) == list(range(1, 21))


def test_others_go_on_when_a_process_is_killed_in_the_middle_of_its_writes(place: Place) -> None:
    with Store(place.url()) as store:
        sid = store.create({"n": 0})
        for n in range(20):
            child = os.fork()
            if child == 0:
                while True:
                    store.put(store.create("x" * 1000), "y" * 1000)
            time.sleep(n / 1000)
            os.kill(child, signal.SIGKILL)
            begun = time.monotonic()
            assert add_one(store, sid) == n + 1
            assert time.monotonic() - begun < 1
            os.waitpid(child, 0)
        assert store.stats().errors == 0


def test_sessions_outlive_the_processes(place: Place) -> None:
    sid = in_child(lambda: Store(place.url()).create({"a": 1}))
    gc.collect()
    with Store(place.url()) as store:
        session = store.get(sid)
        assert session is not None
        assert session.payload == {"a": 1}
