"""Calls that may block release the interpreter lock; calls that never block keep it.

The tests with a blocked call run in a process of their own, which would hang if the call kept the
lock.
"""

from __future__ import annotations

import sys
import threading
import time

import pytest
from conftest import Script
from temporary_store import TemporaryStore

from session_server_store import Blocking, Store, _ffi

# Stops another process while it holds the writer lock of the store. The kernel shows that it does:
# a thread of this process waits on a futex in a mapped file of the store (not data.mdb).
STOPPED_WRITER = """
    import ctypes, os, pathlib, signal, time
    from concurrent.futures import ThreadPoolExecutor
    import session_server_store as sss

    store = sss.Store(URL)
    sid = store.create("x", principal="alice")
    other = os.fork()
    if other == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent, even when stopped
        big = sss.Store(URL, serializer=sss.RAW)
        mine, payload = big.create(b"x"), bytes(4 << 20)
        while True:
            big.put(mine, payload)

    pool = ThreadPoolExecutor(1)

    def is_a_thread_blocked():
        maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
        files = [line.split()[0] for line in maps if DIRECTORY in line and not line.endswith("data.mdb")]
        ranges = [[int(end, 16) for end in words.split("-")] for words in files]
        for task in pathlib.Path("/proc/self/task").iterdir():
            words = (task / "syscall").read_text().split()  # number, then arguments, or "running"
            address = int(words[1], 16) if len(words) > 1 else 0
            if any(start <= address < end for start, end in ranges):
                return True
        return False

    def while_blocked(call):
        "Stops the other process in a write, calls in a thread of the pool, and returns when the call is blocked."
        while True:
            os.kill(other, signal.SIGSTOP)
            os.waitpid(other, os.WUNTRACED)
            future = pool.submit(call)
            while not future.done():
                if is_a_thread_blocked():
                    return future
            future.result()
            os.kill(other, signal.SIGCONT)
            time.sleep(0.005)

    def resume():
        os.kill(other, signal.SIGCONT)
"""

END = """
    os.kill(other, signal.SIGKILL)
    os.wait()
    store.close()
    print("done")
"""


def run(script: Script, code: str, engine: str = "lmdb") -> None:
    with TemporaryStore(engine) as temporary:
        url = temporary.url("max_bytes=64MiB", "max_payload=16MiB")
        names = f"\n    URL, DIRECTORY = {url!r}, {temporary.name!r}\n"
        assert script(names + STOPPED_WRITER + code + END).split() == ["done"]


@pytest.mark.parametrize("engine", ["lmdb", "lmdb-power"])
def test_blocked_write_releases_the_gil(script: Script, engine: str) -> None:
    code = """
    put = while_blocked(lambda: store.put(sid, "y"))
    assert not put.done()
    resume()
    assert put.result().version > 1
    """
    run(script, code, engine)


def test_every_blocked_write_releases_the_gil(script: Script) -> None:
    code = """
    sids = [store.create("x", principal=f"p{n}") for n in range(5)]
    refs = [store.ref(sid) for sid in sids]
    for write in (
        lambda: store.create("x"),
        lambda: store.put(sids[0], "y"),
        lambda: store.put_if(sids[0], store.get(sids[0]).version, "y"),
        lambda: store.renew(sids[1]) or True,
        lambda: store.delete(sids[2]) or True,
        lambda: store.delete_ref(refs[3]) or True,
        lambda: store.revoke("p4") or True,
    ):
        blocked = while_blocked(write)
        assert not blocked.done()
        resume()
        assert blocked.result()
    """
    run(script, code)


def test_reads_while_a_writer_is_stopped(script: Script) -> None:
    code = """
    read = store.create("x", principal="bob")
    put = while_blocked(lambda: store.put(sid, "y"))
    for _ in range(1000):
        assert store.get(read).payload == "x"
        assert store.get(read, peek=True).payload == "x"
        assert store.touch(read).payload is None
        assert store.ref(read) and len(store.list("bob")) == 1
        assert store.stats().sessions >= 2
    assert not put.done()
    resume()
    put.result()
    """
    run(script, code)


@pytest.mark.parametrize("engine", ["memory", "lmdb"])
def test_nonblocking_calls_keep_the_gil(engine: str) -> None:
    """No other thread runs during the calls.

    With a switch interval of a minute, another thread could only run if a call released the lock.
    """
    turns = 0
    stop = False

    def work() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            time.sleep(0)

    def wait_for_turns(count: int) -> None:
        target = turns + count
        while turns < target:
            time.sleep(0)

    with TemporaryStore(engine) as temporary, Store(temporary.url()) as store:
        sid = store.create("x")
        thread = threading.Thread(target=work)
        thread.start()
        interval = sys.getswitchinterval()
        try:
            wait_for_turns(1)
            sys.setswitchinterval(60)
            wait_for_turns(2)  # from the second on, the thread waits by the new interval
            before = turns
            for _ in range(1000):
                store.get(sid)
                store.get(sid, peek=True)
                store.touch(sid)
                store.ref(sid)
                if engine == "memory":
                    store.put(sid, "y")
            assert turns == before
        finally:
            stop = True
            sys.setswitchinterval(interval)
            thread.join()


@pytest.mark.parametrize(
    ("engine", "read_lib", "write_lib"),
    [
        ("memory", _ffi.LIB_GIL, _ffi.LIB_GIL),
        ("lmdb", _ffi.LIB_GIL, _ffi.LIB_NOGIL),
        ("lmdb-power", _ffi.LIB_NOGIL, _ffi.LIB_NOGIL),
    ],
)
def test_libs_of_local_engines(engine: str, read_lib: object, write_lib: object) -> None:
    with TemporaryStore(engine) as temporary, Store(temporary.url()) as store:
        assert store._read_lib is read_lib
        assert store._write_lib is write_lib
        assert store.may_block() == Blocking(read_lib is _ffi.LIB_NOGIL, write_lib is _ffi.LIB_NOGIL)


def test_libs_of_redis() -> None:
    with Store("redis://127.0.0.1:1") as store:  # opening does not connect
        assert store.may_block() == (True, True)
        assert store._read_lib is _ffi.LIB_NOGIL
        assert store._write_lib is _ffi.LIB_NOGIL
