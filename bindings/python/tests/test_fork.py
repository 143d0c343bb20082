"""A store in memory belongs to the process that opened it: a child is told so at once, the parent notices nothing."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import Script, turn
from test_store import CALLS

import session_server_store as sss
from session_server_store import ForkedError, Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(params=["own", "released"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """In memory, whichever engine is under test."""
    with Store("memory:") as opened:
        yield turn(opened, request.param)


def in_child(work: Callable[[], str]) -> str:
    """What ``work`` returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, work().encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        told = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return told


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_inherited_store_is_forked_for_every_call(store: Store, call: Callable[[Store], Any]) -> None:
    def work() -> str:
        try:
            call(store)
        except ForkedError as error:
            return f"{error.name} {error.code}: {error.message}"
        return "no error"

    told = in_child(work)
    assert told.startswith("FORKED -18: ")
    assert len(told) > 30, "the message helps nobody"


def test_inherited_store_closes_silently(store: Store) -> None:
    def work() -> str:
        store.close()
        assert store.closed
        store.close()
        return "closed"

    assert in_child(work) == "closed"
    assert not store.closed


def test_parent_is_not_affected(store: Store) -> None:
    sid = store.create("x")

    def work() -> str:
        with pytest.raises(ForkedError):
            store.delete(sid)
        store.close()
        return "done"

    assert in_child(work) == "done"
    session = store.get(sid)
    assert session is not None
    assert session.payload == "x"


def test_store_opened_in_the_child_works(store: Store) -> None:
    def work() -> str:
        with Store("memory:child") as own:
            session = own.get(own.create("works"))
            assert session is not None
            return str(session.payload)

    assert in_child(work) == "works"


def test_named_store_of_the_parent_is_not_found_in_the_child() -> None:
    with Store("memory:of-the-parent") as store:
        sid = store.create("x")

        def work() -> str:
            with Store("memory:of-the-parent") as own:
                return repr(own.get(sid))

        assert in_child(work) == "None"


def test_child_is_told_at_once_while_threads_of_the_parent_are_in_the_library() -> None:
    with Store() as store:
        turn(store, "released")
        sid = store.create("x" * 10_000)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                store.put(sid, "y" * 10_000)
                store.get(sid)
                store.sweep()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                told = in_child(lambda: ask(store, sid))
                assert told == "FORKED and a store of its own"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert store.get(sid) is not None


def ask(store: Store, sid: str) -> str:
    try:
        store.get(sid)
    except ForkedError as error:
        with Store() as own:
            assert own.get(own.create("x")) is not None
        return f"{error.name} and a store of its own"
    return "no error"


inherited: Store


def use_inherited(_: int) -> int:
    return inherited.stats().sessions


def test_forked_error_comes_through_multiprocessing() -> None:
    global inherited
    with Store() as inherited, multiprocessing.get_context("fork").Pool(1) as pool:
        with pytest.raises(ForkedError) as caught:
            pool.map(use_inherited, [1])
        assert caught.value.name == "FORKED"
        assert caught.value.message


def test_worker_of_multiprocessing_can_open_its_own() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(use_own, ["memory:"]) == [{"a": 1}]


def use_own(url: str) -> Any:
    with Store(url) as own:
        session = own.get(own.create({"a": 1}))
        assert session is not None
        return session.payload


def test_finalisers_in_the_child_are_silent(script: Script) -> None:
    printed = script("""
        import gc, os, sys
        from session_server_store import Store

        class Holder:
            pass

        one, two = Store(), Store()
        cycle = Holder()
        cycle.store, cycle.self = two, cycle
        if os.fork() == 0:
            del one
            del cycle, two
            gc.collect()
            print("child", flush=True)
            sys.exit()
        assert os.wait()[1] == 0
        assert one.get(one.create("x")).payload == "x"
        print("parent")
    """)
    assert printed.split() == ["child", "parent"]


def test_global_store_of_the_parent_is_forked_until_the_child_opens_its_own(script: Script) -> None:
    printed = script("""
        import os, sys
        import session_server_store as sss

        sid = sss.create("parent's")
        if os.fork() == 0:
            for call in (lambda: sss.get(sid), lambda: sss.create("x"), sss.stats):
                try:
                    call()
                except sss.ForkedError as error:
                    assert error.message
                else:
                    raise AssertionError("no error")
            sss.open_global("memory:")
            assert sss.get(sid) is None
            assert sss.get(sss.create("child's")).payload == "child's"
            print("child", flush=True)
            sys.exit()
        assert os.wait()[1] == 0
        assert sss.get(sid).payload == "parent's"
        print("parent")
    """)
    assert printed.split() == ["child", "parent"]


def test_global_store_first_used_in_the_child_works(script: Script) -> None:
    printed = script("""
        import os, sys
        import session_server_store as sss

        if os.fork() == 0:
            print(sss.get(sss.create("child's")).payload, flush=True)
            sys.exit()
        assert os.wait()[1] == 0
        print(sss.get(sss.create("parent's")).payload)
    """)
    assert printed.split() == ["child's", "parent's"]


def test_forked_error_is_a_session_store_error() -> None:
    assert issubclass(ForkedError, sss.SessionStoreError)
