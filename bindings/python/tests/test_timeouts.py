"""Timeouts given as seconds, timedelta or None."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Optional

import pytest

import session_server_store as sss
from session_server_store import Store, _arguments


def lifetime(session: Optional[sss.Session]) -> Optional[timedelta]:
    assert session is not None
    return None if session.expires is None else session.expires - session.created


SPELLINGS = [
    (2, 2000),
    (2.5, 2500),
    (0.001, 1),
    (0.0001, 1),
    (1e-300, 1),
    (1.1, 1100),
    (timedelta(seconds=2), 2000),
    (timedelta(microseconds=1), 1),
    (timedelta(minutes=3, milliseconds=5), 180_005),
]


@pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
@pytest.mark.parametrize(("given", "ms"), SPELLINGS)
def test_timeout_as_seconds_or_timedelta(store: Store, name: str, given: Any, ms: int) -> None:
    sid = store.create("x", **{name: given})
    assert lifetime(store.get(sid)) == timedelta(milliseconds=ms)
    store.advance_clock(timedelta(milliseconds=ms - 1))
    assert store.get(sid, peek=True) is not None
    store.advance_clock(0.001)
    assert store.get(sid, peek=True) is None


def test_grace_as_timedelta(store: Store) -> None:
    old = store.create("x")
    assert store.renew(old, grace=timedelta(seconds=5)) is not None
    store.advance_clock(4.999)
    assert store.get(old) is not None
    store.advance_clock(0.001)
    assert store.get(old) is None


@pytest.mark.parametrize("given", [0, 0.0, -1, -0.5, -1e-9, timedelta(0), timedelta(days=-1), float("-inf")])
@pytest.mark.parametrize("name", ["timeout", "idle_timeout"])
def test_timeout_zero_or_less(store: Store, name: str, given: Any) -> None:
    sid = store.create("x", **{name: given})
    assert len(sid) == 128
    assert store.get(sid) is None
    for write in (store.put, lambda sid, data, **more: store.put_if(sid, 1, data, **more)):
        living = store.create("x")
        assert write(living, "y", **{name: given}) is not None
        assert store.get(living) is None
    living = store.create("x")
    renewed = store.renew(living, **{name: given})
    assert renewed is not None
    assert store.get(renewed) is None


@pytest.mark.parametrize("given", [None, float("inf"), 10**30, 1e300])
def test_timeout_none_never_ends(store: Store, given: Any) -> None:
    sid = store.create("x", timeout=given, idle_timeout=given)
    assert lifetime(store.get(sid)) is None
    store.advance_clock(timedelta(days=365 * 100))
    assert store.get(sid) is not None


def test_timeout_not_given_to_create(store: Store) -> None:
    assert lifetime(store.get(store.create("x"))) == timedelta(minutes=10)
    assert lifetime(store.get(store.create("x", idle_timeout=None))) == timedelta(hours=1)
    assert lifetime(store.get(store.create("x", timeout=None))) == timedelta(minutes=10)


def test_timeout_not_given_to_put_or_renew(store: Store) -> None:
    sid = store.create("x", timeout=100, idle_timeout=None)
    store.put(sid, "y")
    new = store.renew(sid)
    assert new is not None
    assert lifetime(store.get(new)) == timedelta(seconds=100)


def test_timeout_given_to_put(store: Store) -> None:
    sid = store.create("x")
    assert lifetime(store.put(sid, "y", timeout=30)) == timedelta(seconds=30)
    assert lifetime(store.put_if(sid, 2, "y", timeout=None, idle_timeout=None)) is None


def test_default_timeouts() -> None:
    with Store() as store:
        assert lifetime(store.get(store.create("x", idle_timeout=None), peek=True)) == timedelta(seconds=10800)
        assert lifetime(store.get(store.create("x"), peek=True)) == timedelta(seconds=600)


def test_timeout_by_system_clock() -> None:
    with Store() as store:
        sid = store.create("x", timeout=0.02)
        while store.get(sid) is not None:
            pass
        assert store.put(sid, "y") is None


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [(0, 0), (-0.0001, -1), (1.0005, 1000), (1.0006, 1001), (10**30, 2**63 - 1), (float("-inf"), 1 - 2**63)],
)
def test_milliseconds_round_to_nearest_but_not_zero(seconds: float, ms: int) -> None:
    assert _arguments.milliseconds(seconds, "x") == ms
