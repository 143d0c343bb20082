"""Every exception that can occur, and what it says."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import session_server_store as sss
from session_server_store import Status, Store
from session_server_store.errors import from_status


def test_conflict() -> None:
    with Store() as store, pytest.raises(sss.ConflictError) as caught:
        store.put_if(store.create("x"), 7, "y")
    assert (caught.value.code, caught.value.name) == (-4, "CONFLICT")


def test_too_large() -> None:
    with Store("memory:?max_payload=10") as store:
        sid = store.create("12345678")
        for call in (store.create, lambda data: store.put(sid, data), lambda data: store.renew(sid, data)):
            with pytest.raises(sss.TooLargeError) as caught:
                call("123456789")
            assert caught.value.name == "TOO_LARGE"
        assert store.stats().rejected == 3


def test_full() -> None:
    with Store("memory:?max_sessions=1") as store:
        sid = store.create("x")
        with pytest.raises(sss.FullError) as caught:
            store.create("y")
        assert caught.value.name == "FULL"
        assert store.get(sid) is not None


@pytest.mark.parametrize("url", ["", "memory", "ftp://host", "memory:?colour=red", "memory:?timeout=0", "\udcff"])
def test_url(url: str) -> None:
    with pytest.raises(sss.UrlError) as caught:
        Store(url)
    assert caught.value.name == "URL"
    assert isinstance(caught.value, ValueError)


def test_url_error_names_the_culprit() -> None:
    with pytest.raises(sss.UrlError, match="colour"):
        Store("memory:?colour=red")


def test_unsupported_clock() -> None:
    with Store() as store, pytest.raises(sss.UnsupportedError):
        store.advance_clock(1)


def test_another_clock_exists() -> None:
    with Store("memory:one-clock"), pytest.raises(sss.SessionStoreError) as caught:
        Store("memory:one-clock?clock=manual")
    assert type(caught.value) is sss.SessionStoreError
    assert caught.value.name == "EXISTS"


@pytest.mark.parametrize("status", [status for status in Status if status != Status.OK])
def test_every_status_has_its_class(status: Status) -> None:
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


def test_status_of_a_later_library_is_an_error_without_a_name() -> None:
    error = from_status(-77, "text")
    assert type(error) is sss.SessionStoreError
    assert (error.code, error.name) == (-77, "UNKNOWN")


@pytest.mark.parametrize("status", [-1, -4, -18, -77])
def test_exceptions_survive_pickling(status: int) -> None:
    error = from_status(status, "one line")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.code, again.message) == (status, "one line")


def failures(store: Store, sid: str) -> Any:
    yield lambda: store.put_if(sid, 9, "secret-payload")
    yield lambda: store.put(sid, "secret-payload" * 100)
    yield lambda: store.create("secret-payload")
    yield lambda: store.renew(sid, "secret-payload", grace=-1)
    yield lambda: store.advance_clock(1)
    yield lambda: Store("memory:?timeout=1s&password=secret-payload")
    yield lambda: Store("redis://user:secret-payload@host/x")
    yield lambda: Store("redis://user:secret-payload@127.0.0.1:1").stats()  # where nobody listens


def test_messages_are_one_line_without_ids_payloads_and_passwords() -> None:
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


def test_message_is_that_of_this_failure_and_not_of_an_earlier_one() -> None:
    with Store() as store:
        with pytest.raises(sss.UrlError, match="colour"):
            Store("memory:?colour=red")
        with pytest.raises(sss.ConflictError) as caught:
            store.put_if(store.create("x"), 9, "y")
        assert "colour" not in caught.value.message


def test_package_says_that_it_is_typed() -> None:
    assert Path(sss.__file__).with_name("py.typed").exists()
