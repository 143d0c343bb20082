"""A memory: store belongs to its process. Calls in a forked child raise ForkedError."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import Script, release_gil
from test_store import CALLS

import session_server_store as sss
from session_server_store import ForkedError, Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def store() -> Iterator[Store]:
    """A memory: store, whichever engine is under test."""
    with Store("memory:") as opened:
        yield opened


def in_child(work: Callable[[], str]) -> str:
    """Runs ``work`` in a forked child and returns its result."""
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
        output = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return output


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_inherited_memory_store_is_forked(store: Store, call: Callable[[Store], Any]) -> None:
    def work() -> str:
        try:
            call(store)
        except ForkedError as error:
            return f"{error.name} {error.code}: {error.message}"
        return "no error"

    output = in_child(work)
    assert output.startswith("FORKED -18: ")
    assert len(output) > 30, "the message gives no advice"


def test_inherited_store_closes(store: Store) -> None:
    def work() -> str:
        store.close()
        assert store.closed
        store.close()
        return "closed"

    assert in_child(work) == "closed"
    assert not store.closed


def test_child_does_not_affect_parent(store: Store) -> None:
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


def test_store_opened_in_child(store: Store) -> None:
    def work() -> str:
        with Store("memory:child") as own:
            session = own.get(own.create("works"))
            assert session is not None
            return str(session.payload)

    assert in_child(work) == "works"


def test_named_store_is_separate_in_child() -> None:
    with Store("memory:of-the-parent") as store:
        sid = store.create("x")

        def work() -> str:
            with Store("memory:of-the-parent") as own:
                return repr(own.get(sid))

        assert in_child(work) == "None"


def test_fork_during_calls_of_memory_store() -> None:
    with Store() as store:
        release_gil(store)
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
                output = in_child(lambda: call_inherited(store, sid))
                assert output == "FORKED, and an own store works"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert store.get(sid) is not None


def call_inherited(store: Store, sid: str) -> str:
    try:
        store.get(sid)
    except ForkedError as error:
        with Store() as own:
            assert own.get(own.create("x")) is not None
        return f"{error.name}, and an own store works"
    return "no error"


inherited: Store


def use_inherited(_: int) -> int:
    return inherited.stats().sessions


def test_forked_error_crosses_multiprocessing() -> None:
    global inherited
    with Store() as inherited, multiprocessing.get_context("fork").Pool(1) as pool:
        with pytest.raises(ForkedError) as caught:
            pool.map(use_inherited, [1])
        assert caught.value.name == "FORKED"
        assert caught.value.message


def test_multiprocessing_worker_opens_own_store() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(use_own, ["memory:"]) == [{"a": 1}]


def use_own(url: str) -> Any:
    with Store(url) as own:
        session = own.get(own.create({"a": 1}))
        assert session is not None
        return session.payload


def test_finalisers_in_child_are_silent(script: Script) -> None:
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


def test_global_store_in_child(script: Script) -> None:
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


def test_global_store_first_used_in_child(script: Script) -> None:
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


def test_forked_error_base_class() -> None:
    assert issubclass(ForkedError, sss.SessionStoreError)
