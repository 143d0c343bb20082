"""Writes to lmdb: wait for those of other processes. Then other threads of Python go on; reads wait for nobody.

If a thread that waits kept the interpreter lock, nothing here would go on: so each runs in a process of its own, which
has a minute.
"""

from __future__ import annotations

import sys
import threading
import time

import pytest
from conftest import Script
from place import Place

from session_server_store import Store, _ffi

# Another process, stopped in the middle of a write. Most of its time it is in one: whether it is now shows by a write
# of ours that waits.
STOPPED_WRITER = """
    import ctypes, os, signal, threading, time
    from concurrent.futures import ThreadPoolExecutor, wait
    import session_server_store as sss

    store = sss.Store(URL)
    sid = store.create("x", principal="alice")
    other = os.fork()
    if other == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent, also when it is stopped
        big = sss.Store(URL, serializer=sss.RAW)
        mine, payload = big.create(b"x"), bytes(4 << 20)
        while True:
            big.put(mine, payload)

    pool = ThreadPoolExecutor(16)

    def stop_in_a_write():
        while True:
            time.sleep(0.02)
            os.kill(other, signal.SIGSTOP)
            put = pool.submit(store.put, sid, "y")
            if wait([put], timeout=1).not_done:
                return put
            os.kill(other, signal.SIGCONT)

    def go_on():
        os.kill(other, signal.SIGCONT)
"""

END = """
    os.kill(other, signal.SIGKILL)
    os.wait()
    store.close()
    print("done")
"""


def run(script: Script, code: str, engine: str = "lmdb") -> None:
    with Place(engine) as place:
        url = place.url("max_bytes=64MiB", "max_payload=16MiB")
        assert script(f"\n    URL = {url!r}\n" + STOPPED_WRITER + code + END).split() == ["done"]


@pytest.mark.parametrize("engine", ["lmdb", "lmdb-power"])
def test_threads_go_on_while_one_waits_to_write(script: Script, engine: str) -> None:
    code = """
    put = stop_in_a_write()
    turns, end = 0, time.monotonic() + 0.2
    while time.monotonic() < end:
        turns += 1
    assert turns > 1000 and not put.done()
    go_on()
    assert put.result().version > 1
    """
    run(script, code, engine)


def test_every_call_that_writes_lets_other_threads_go_on(script: Script) -> None:
    code = """
    sids = [store.create("x", principal=f"p{n}") for n in range(8)]
    put = stop_in_a_write()
    writes = [
        lambda: store.create("x"),
        lambda: store.put(sids[0], "y"),
        lambda: store.put_if(sids[1], 1, "y"),
        lambda: store.renew(sids[2]),
        lambda: store.delete(sids[3]),
        lambda: store.delete_ref(refs[4]),
        lambda: store.revoke("p5"),
    ]
    refs = [store.ref(sid) for sid in sids]
    waiting = [pool.submit(write) for write in writes]
    assert not wait(waiting, timeout=0.5).done
    go_on()
    assert all(done.result() for done in waiting)
    put.result()
    """
    run(script, code)


def test_reads_go_on_while_another_process_is_stopped_in_a_write(script: Script) -> None:
    code = """
    read = store.create("x", principal="bob")
    put = stop_in_a_write()
    for _ in range(1000):
        assert store.get(read).payload == "x"
        assert store.get(read, peek=True).payload == "x"
        assert store.touch(read).payload is None
        assert store.ref(read) and len(store.list("bob")) == 1
        assert store.stats().sessions >= 2
    assert pool.submit(store.get, read).result(timeout=10).payload == "x"
    assert not put.done()
    go_on()
    put.result()
    """
    run(script, code)


def test_reads_keep_the_interpreter_lock() -> None:
    """As test_memory_keeps_the_interpreter_lock, for what never waits in lmdb:."""
    turns = 0
    stop = False

    def work() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            time.sleep(0)

    with Place("lmdb") as place, Store(place.url()) as store:
        sid = store.create("x")
        store.get(sid)
        thread = threading.Thread(target=work)
        thread.start()
        while turns == 0:
            time.sleep(0)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(60)
        time.sleep(0.01)  # after this the other thread waits by the new interval, and has asked for nothing
        try:
            before = turns
            for _ in range(1000):
                store.get(sid)
                store.get(sid, peek=True)
                store.touch(sid)
                store.ref(sid)
            assert turns == before
        finally:
            stop = True
            sys.setswitchinterval(interval)
            thread.join()


@pytest.mark.parametrize(
    ("engine", "reading", "writing"),
    [
        ("memory", _ffi.HELD, _ffi.HELD),
        ("lmdb", _ffi.HELD, _ffi.RELEASED),
        ("lmdb-power", _ffi.RELEASED, _ffi.RELEASED),
    ],
)
def test_the_lock_is_kept_where_the_library_says_that_it_waits_for_nobody(
    engine: str, reading: object, writing: object
) -> None:
    with Place(engine) as place, Store(place.url()) as store:
        assert store._reading is reading
        assert store._writing is writing


def test_every_call_to_redis_releases_the_lock() -> None:
    with Store("redis://127.0.0.1:1") as store:  # nobody listens there, and nobody needs to
        assert store._reading is _ffi.RELEASED
        assert store._writing is _ffi.RELEASED
