"""The arguments and results of ``Store`` in Python. test_conformance.py has the behaviour."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any

import pytest

from session_server_store import SessionInfo, Store

UNKNOWN_SID = "A" * 128


def test_created_session(store: Store) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    sid = store.create({"user": "alice", "visits": 1})
    assert re.fullmatch("[A-Za-z0-9_-]{128}", sid)
    session = store.get(sid)
    assert session is not None
    assert (session.payload, session.version) == ({"user": "alice", "visits": 1}, 1)
    assert before < session.created < before + timedelta(seconds=60)
    assert session.last_seen == session.created
    assert session.expires == session.created + timedelta(minutes=10)


def test_written_session_equals_read_session(store: Store) -> None:
    sid = store.create([1])
    store.advance_clock(60)
    written = store.put(sid, [1, 2])
    assert written is not None
    assert written == store.get(sid)
    assert store.put_if(sid, written.version, [3]) == store.get(sid)


def test_touch_returns_no_payload(store: Store) -> None:
    touched = store.touch(store.create("x"))
    assert touched is not None
    assert (touched.payload, touched.version) == (None, 1)


@pytest.mark.parametrize("new", [[], ["y"]], ids=["kept", "replaced"])
def test_renew_returns_new_id(store: Store, new: list[str]) -> None:
    old = store.create("x")
    sid = store.renew(old, *new)
    assert sid is not None
    session = store.get(sid)
    assert session is not None
    assert session.payload == (new or ["x"])[0]
    assert store.get(old) is None


def test_id_as_bytes_and_as_subclass_of_str(store: Store) -> None:
    class Cookie(str):
        __slots__ = ()

    sid = store.create("x")
    assert store.get(sid.encode()) == store.get(Cookie(sid)) == store.get(sid)


@pytest.mark.parametrize(
    "sid",
    [
        UNKNOWN_SID,
        "",
        "short",
        "A" * 127,
        "A" * 129,
        "!" * 128,
        "ü" * 128,
        "\udcff" * 128,
        "A" * 127 + "\0",
        b"",
        b"\xff" * 128,
    ],
)
def test_missing_session_is_none_or_false(store: Store, sid: Any) -> None:
    store.create("x", principal="alice")
    assert store.get(sid) is None
    assert store.get(sid, peek=True) is None
    assert store.put(sid, "y", principal="bob") is None
    assert store.put_if(sid, 1, "y") is None
    assert store.touch(sid) is None
    assert store.renew(sid) is None
    assert store.renew(sid, "y", grace=5) is None
    assert store.delete(sid) is False
    assert store.ref(sid) is None
    assert store.revoke("bob", except_sid=sid) == 0
    assert store.delete_ref(bytes(32)) is False
    assert store.list("bob") == []
    assert store.stats().sessions == 1


def test_list_larger_than_first_buffer(store: Store) -> None:
    sids = []
    for number in range(50):
        sids.append(store.create("x" * number + "y", principal="alice"))
        store.advance_clock(1)
    infos = store.list("alice")
    assert all(isinstance(info, SessionInfo) for info in infos)
    assert [info.ref for info in infos] == [store.ref(sid) for sid in sids]
    assert [info.size for info in infos] == [number + 3 for number in range(50)]
    assert [info.created for info in infos] == sorted(info.created for info in infos)
    assert infos[0].version == 1
    assert infos[0].expires == infos[0].last_seen + timedelta(minutes=10)


def test_principal_as_str_and_as_utf8(store: Store) -> None:
    store.create("x", principal="Zoë")
    assert len(store.list("Zoë".encode())) == 1
    assert store.revoke("Zoë") == 1


@pytest.mark.parametrize("number", [0, 42, -7, 10**30, HTTPStatus.OK])
def test_principal_as_int_and_as_digits(store: Store, number: int) -> None:
    sid = store.create("x", principal=number)
    assert len(store.list(str(int(number)))) == 1
    store.put(sid, "y", principal=number + 1)
    assert (store.list(number), len(store.list(number + 1))) == ([], 1)
    assert store.revoke(number + 1) == 1


def test_create_with_return_session(store: Store) -> None:
    sid, session = store.create({"a": 1}, timeout=60, return_session=True)
    assert session == store.get(sid)


@pytest.mark.parametrize("new", [[], ["y"]], ids=["kept", "replaced"])
def test_renew_with_return_session(store: Store, new: list[str]) -> None:
    old = store.create("x")
    store.advance_clock(5)
    renewed = store.renew(old, *new, return_session=True)
    assert renewed is not None
    sid, session = renewed
    read = store.get(sid)
    assert read is not None
    assert session.payload == (new[0] if new else None)
    assert (session.version, session.created, session.expires) == (read.version, read.created, read.expires)
    assert store.renew(old, return_session=True) is None


def test_ref_is_32_bytes(store: Store) -> None:
    ref = store.ref(store.create("x"))
    assert isinstance(ref, bytes)
    assert len(ref) == 32
    assert store.delete_ref(ref) is True


def test_stats_are_named(store: Store) -> None:
    store.get(store.create("x"))
    stats = store.stats()
    assert (stats.sessions, stats.bytes, stats.created, stats.hits, stats.misses) == (1, 3, 1, 1, 0)
    assert tuple(stats) == tuple(stats._asdict().values())
