"""The functions on the store of the process. Each test has a process of its own."""

from __future__ import annotations

import inspect

import pytest
from conftest import Script
from temporary_store import TemporaryStore

import session_server_store as sss


def test_functions_match_methods() -> None:
    methods = {name for name in vars(sss.Store) if not name.startswith("_")} - {"close", "closed"}
    for name in methods:
        method = inspect.signature(getattr(sss.Store, name))
        function = inspect.signature(getattr(sss, name))
        assert list(method.parameters.values())[1:] == list(function.parameters.values()), name
        assert method.return_annotation == function.return_annotation, name


def test_functions_open_memory_store(script: Script) -> None:
    script("""
        import session_server_store as sss

        sid = sss.create({"a": 1}, timeout=60, idle_timeout=30, principal="alice")
        assert sss.get(sid).payload == {"a": 1}
        assert sss.get(sid, peek=True).version == 1
        assert sss.put(sid, [2]).version == 2
        assert sss.put_if(sid, 2, [3]).version == 3
        assert sss.touch(sid).payload is None
        assert len(sss.list("alice")) == 1
        new = sss.renew(sid, grace=5)
        assert sss.get(new).payload == [3]
        assert sss.get(sid).payload == [3]
        ref = sss.ref(new)
        assert sss.delete_ref(ref) and not sss.delete(new)
        sss.create("x", principal="alice")
        assert sss.revoke("alice") == 1
        assert sss.sweep() == 0
        assert sss.stats().created == 2
        try:
            sss.advance_clock(1)
        except sss.UnsupportedError:
            pass
        else:
            raise AssertionError
    """)


def test_open_global_sets_options(script: Script) -> None:
    script("""
        import session_server_store as sss

        sss.open_global("memory:?clock=manual&timeout=10s&idle_timeout=infinity")
        sid = sss.create("x")
        sss.advance_clock(9.999)
        assert sss.get(sid)
        sss.advance_clock(0.001)
        assert sss.get(sid) is None
    """)


def test_open_global_twice(script: Script) -> None:
    script("""
        import session_server_store as sss

        sss.open_global("memory:?timeout=10s")
        sid = sss.create("x")
        sss.open_global("memory:?timeout=10s")
        assert sss.get(sid)
        try:
            sss.open_global("memory:?timeout=20s")
        except sss.SessionStoreError as error:
            assert error.name == "EXISTS", error.name
        else:
            raise AssertionError
        assert sss.get(sid)
    """)


def test_open_global_after_first_use(script: Script) -> None:
    script("""
        import session_server_store as sss

        sid = sss.create("x")
        sss.open_global()
        assert sss.get(sid)
        try:
            sss.open_global("memory:other")
        except sss.SessionStoreError as error:
            assert error.name == "EXISTS", error.name
        else:
            raise AssertionError
    """)


def test_open_global_after_bad_url(script: Script) -> None:
    script("""
        import session_server_store as sss

        for bad, kind in (("", sss.UrlError), ("redis://host/x", sss.UrlError), (b"memory:", TypeError)):
            try:
                sss.open_global(bad)
            except kind:
                pass
            else:
                raise AssertionError(bad)
        sss.open_global("memory:?timeout=10s")
        assert sss.get(sss.create("x"))
    """)


def test_open_global_with_serializer(script: Script) -> None:
    script("""
        import session_server_store as sss

        sss.open_global("memory:", serializer=sss.RAW)
        assert sss.get(sss.create(b"")).payload == b""
    """)


def test_global_store_opened_by_c_code(script: Script) -> None:
    script("""
        import session_server_store as sss
        from session_server_store import _ffi, _global

        url = b"memory:of-c-code?timeout=10s&idle_timeout=infinity"
        assert _ffi.LIB_NOGIL.sss_open_global(url, _ffi.length(url)) == 0
        session = sss.get(sss.create("x"))
        assert (session.expires - session.created).total_seconds() == 10
        store = _global._store()
        assert store._read_lib is store._write_lib is _ffi.LIB_GIL
    """)


@pytest.mark.parametrize(
    "opened", ["sss.open_global(URL)", "_ffi.LIB_NOGIL.sss_open_global(URL.encode(), _ffi.length(URL.encode()))"]
)
def test_global_lmdb_store_releases_gil(script: Script, opened: str) -> None:
    with TemporaryStore("lmdb") as temporary:
        script(f"""
            import session_server_store as sss
            from session_server_store import _ffi, _global

            URL = {temporary.url()!r}
            assert not {opened}
            assert sss.get(sss.create({{"a": 1}})).payload == {{"a": 1}}
            store = _global._store()
            assert store._read_lib is _ffi.LIB_GIL
            assert store._write_lib is _ffi.LIB_NOGIL
        """)


def test_threads_share_global_store(script: Script) -> None:
    script("""
        import concurrent.futures
        import session_server_store as sss

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            sids = list(pool.map(lambda n: sss.create([n]), range(200)))
        assert [sss.get(sid).payload for sid in sids] == [[n] for n in range(200)]
    """)


def test_star_import_keeps_builtins() -> None:
    namespace: dict[str, object] = {}
    exec("from session_server_store import *", namespace)
    assert "Store" in namespace
    assert not set(namespace) & {"list", "get", "put"}


@pytest.mark.parametrize("name", sss.__all__)
def test_all_names_exist(name: str) -> None:
    assert hasattr(sss, name)
