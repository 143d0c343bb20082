"""The interpreter exits with stores open: exit code 0 and no output."""

from __future__ import annotations

import textwrap

import pytest
from conftest import Script

CASES = {
    "open store": """
        store = sss.Store()
        store.create("x")
    """,
    "open store of a cycle": """
        class Holder: pass
        holder = Holder()
        holder.store, holder.self = sss.Store(), holder
    """,
    "store that outlives its module": """
        import builtins
        builtins.kept = sss.Store()
        builtins.kept.create("x")
    """,
    "many stores": """
        stores = [sss.Store(f"memory:n{i}") for i in range(100)]
        for store in stores:
            store.create("x")
    """,
    "global store": """
        sss.create("x")
    """,
    "closed in atexit": """
        import atexit
        store = sss.Store()
        atexit.register(store.close)
        atexit.register(store.create, "x")
    """,
    "used by a finaliser": """
        class Last:
            def __init__(self): self.store = sss.Store()
            def __del__(self): self.store.create("x"); self.store.close()
        last = Last()
    """,
    "daemon threads in the middle of calls": """
        import threading, time
        store = sss.Store()
        sid = store.create("x")
        started = threading.Barrier(4)
        def use():
            started.wait()
            while True:
                store.get(sid); store.put(sid, "y"); store.sweep(); store.list("alice")
        for _ in range(3):
            threading.Thread(target=use, daemon=True).start()
        started.wait()
        time.sleep(0.05)
    """,
    "after a thread pool": """
        import concurrent.futures
        store = sss.Store()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: store.create([n]), range(100)))
    """,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_interpreter_exit_is_silent(script: Script, case: str) -> None:
    printed = script("import session_server_store as sss\n" + textwrap.dedent(case) + "print('end')")
    assert printed.split() == ["end"]
