"""The exceptions and their messages."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import session_server_store as sss
from session_server_store import Status, Store
from session_server_store.errors import from_status


def test_conflict_error() -> None:
    with Store() as store, pytest.raises(sss.ConflictError) as caught:
        store.put_if(store.create("x"), 7, "y")
    assert (caught.value.code, caught.value.name) == (-4, "CONFLICT")


def test_too_large_error() -> None:
    with Store("memory:?max_payload=10") as store:
        sid = store.create("12345678")
        for call in (store.create, lambda data: store.put(sid, data), lambda data: store.renew(sid, data)):
            with pytest.raises(sss.TooLargeError) as caught:
                call("123456789")
            assert caught.value.name == "TOO_LARGE"
        assert store.stats().rejected == 3


def test_full_error() -> None:
    with Store("memory:?max_sessions=1") as store:
        sid = store.create("x")
        with pytest.raises(sss.FullError) as caught:
            store.create("y")
        assert caught.value.name == "FULL"
        assert store.get(sid) is not None


@pytest.mark.parametrize("url", ["", "memory", "ftp://host", "memory:?colour=red", "memory:?timeout=0", "\udcff"])
def test_url_error(url: str) -> None:
    with pytest.raises(sss.UrlError) as caught:
        Store(url)
    assert caught.value.name == "URL"
    assert isinstance(caught.value, ValueError)


def test_url_error_names_option() -> None:
    with pytest.raises(sss.UrlError, match="colour"):
        Store("memory:?colour=red")


def test_unsupported_error() -> None:
    with Store() as store, pytest.raises(sss.UnsupportedError):
        store.advance_clock(1)


def test_other_clock_is_exists_error() -> None:
    with Store("memory:one-clock"), pytest.raises(sss.SessionStoreError) as caught:
        Store("memory:one-clock?clock=manual")
    assert type(caught.value) is sss.SessionStoreError
    assert caught.value.name == "EXISTS"


@pytest.mark.parametrize("status", [status for status in Status if status != Status.OK])
def test_status_to_class(status: Status) -> None:
    expected: dict[str, type[sss.SessionStoreError]] = {
        "INVALID": sss.InvalidError,
        "CONFLICT": sss.ConflictError,
        "TOO_LARGE": sss.TooLargeError,
        "FULL": sss.FullError,
        "HANDLE": sss.ClosedError,
        "URL": sss.UrlError,
        "UNSUPPORTED": sss.UnsupportedError,
        "UNAVAILABLE": sss.UnavailableError,
        "TIMEOUT": sss.UnavailableError,
        "BUSY": sss.UnavailableError,
        "IO": sss.UnavailableError,
        "CORRUPT": sss.CorruptError,
        "FORKED": sss.ForkedError,
    }
    error = from_status(status, "text")
    assert type(error) is expected.get(status.name, sss.SessionStoreError)
    assert (error.code, error.name, error.message, str(error)) == (int(status), status.name, "text", "text")


def test_temporary_errors() -> None:
    temporary = {status.name for status in Status if from_status(status, "text").temporary}
    assert temporary == {"UNAVAILABLE", "TIMEOUT", "FULL", "BUSY", "NOMEM", "RANDOM"}
    assert not from_status(-77, "text").temporary


def test_unknown_status() -> None:
    error = from_status(-77, "text")
    assert type(error) is sss.SessionStoreError
    assert (error.code, error.name) == (-77, "UNKNOWN")


@pytest.mark.parametrize("status", [-1, -4, -18, -77])
def test_error_pickles(status: int) -> None:
    error = from_status(status, "one line")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.code, copy.message) == (status, "one line")


def failures(store: Store, sid: str) -> Any:
    yield lambda: store.put_if(sid, 9, "secret-payload")
    yield lambda: store.put(sid, "secret-payload" * 100)
    yield lambda: store.create("secret-payload")
    yield lambda: store.renew(sid, "secret-payload", grace=-1)
    yield lambda: store.advance_clock(1)
    yield lambda: Store("memory:?timeout=1s&password=secret-payload")
    yield lambda: Store("redis://user:secret-payload@host/x")
    yield lambda: Store("redis://user:secret-payload@127.0.0.1:1").stats()  # no server listens there


def test_message_contains_no_secret() -> None:
    with Store("memory:?max_payload=100&max_sessions=1") as store:
        sid = store.create("x", principal="alice")
        for call in failures(store, sid):
            with pytest.raises(sss.SessionStoreError) as caught:
                call()
            message = caught.value.message
            assert message
            assert "\n" not in message
            assert sid not in message
            assert "secret" not in message


def test_message_of_latest_failure() -> None:
    with Store() as store:
        with pytest.raises(sss.UrlError, match="colour"):
            Store("memory:?colour=red")
        with pytest.raises(sss.ConflictError) as caught:
            store.put_if(store.create("x"), 9, "y")
        assert "colour" not in caught.value.message


def test_package_has_type_marker() -> None:
    assert Path(sss.__file__).with_name("py.typed").exists()
