"""Logins, labels and references in Python. test_conformance.py has the behaviour."""

from __future__ import annotations

from datetime import timedelta

import pytest

import session_server_store as sss
from session_server_store import INHERIT, Session, Store

HOUR = timedelta(hours=1)


def get(store: Store, sid: str) -> Session:
    session = store.get(sid)
    assert session is not None
    return session


def test_login_restarts_absolute_timeout(store: Store) -> None:
    visitor = store.create("x", idle_timeout=None)
    store.advance_clock(3000)
    assert get(store, visitor).authenticated is None
    sid, session = store.renew(visitor, principal="alice", return_session=True) or pytest.fail("it has ended")
    assert session.authenticated == session.last_seen
    assert session.created < session.authenticated
    assert session.expires == session.authenticated + HOUR
    assert get(store, sid) == Session("x", *_meta(session))


def _meta(session: Session) -> tuple[int, ...]:
    return (
        session._version,
        session._created,
        session._last_seen,
        session._expires,
        session._authenticated,
        session._timeout,
        session._idle_timeout,
    )


def test_rotation_keeps_absolute_deadline(store: Store) -> None:
    sid = store.create("x", principal="alice", idle_timeout=None)
    before = get(store, sid)
    store.advance_clock(3000)
    new = store.renew(sid)
    assert new is not None
    after = get(store, new)
    assert (after.expires, after.authenticated) == (before.expires, before.created)


def test_reauthentication_restarts_timeouts(store: Store) -> None:
    sid = store.create("x", principal="alice", idle_timeout=None)
    store.advance_clock(3000)
    new = store.renew(sid, reauthenticated=True)
    assert new is not None
    session = get(store, new)
    assert session.authenticated == session.created + timedelta(seconds=3000)
    assert session.expires == session.authenticated + HOUR


def test_timeouts_in_force(store: Store) -> None:
    session = get(store, store.create("x"))
    assert (session.timeout, session.idle_timeout) == (HOUR, timedelta(minutes=10))
    session = get(store, store.create("x", timeout=5, idle_timeout=None))
    assert (session.timeout, session.idle_timeout) == (timedelta(seconds=5), None)


def test_inherit_takes_own_timeouts_back(store: Store) -> None:
    sid = store.create("x", timeout=5, idle_timeout=2)
    session = store.put(sid, "x", timeout=INHERIT, idle_timeout=INHERIT)
    assert session is not None
    assert (session.timeout, session.idle_timeout) == (HOUR, timedelta(minutes=10))


@pytest.mark.parametrize("label", ["Firefox on Linux, 127.0.0.1", b"phone", "\u00e9" * 127])
def test_label_is_listed(store: Store, label: sss._arguments.Label) -> None:
    store.create("x", principal="alice", label=label)
    (info,) = store.list("alice")
    assert info.label == (label if isinstance(label, str) else label.decode())
    assert info.label_bytes == (label.encode() if isinstance(label, str) else label)
    assert info.authenticated == info.created
    assert "Firefox" not in repr(info)


def test_label_of_any_bytes(store: Store) -> None:
    store.create("x", principal="alice", label=b"a\x00\xff")
    (info,) = store.list("alice")
    assert (info.label_bytes, info.label) == (b"a\x00\xff", "a\x00\N{REPLACEMENT CHARACTER}")


def test_label_is_kept_replaced_and_removed(store: Store) -> None:
    def label() -> object:
        return [info.label for info in store.list("alice")]

    sid = store.create("x", principal="alice", label="one")
    store.put(sid, "y", principal="alice")
    assert label() == ["one"]
    new = store.renew(sid)
    assert new is not None
    assert label() == ["one"]
    store.put_if(new, 2, "z", principal="alice", label="two")
    assert label() == ["two"]
    store.put(new, "z", principal="alice", label=None)
    assert label() == [None]


def test_touch_ref_slides_and_peeks(store: Store) -> None:
    sid = store.create("x")
    ref = store.ref(sid)
    assert ref is not None
    store.advance_clock(300)
    peeked = store.touch_ref(ref, peek=True)
    assert peeked is not None
    assert peeked.last_seen == peeked.created
    touched = store.touch_ref(ref)
    assert touched is not None
    assert touched.last_seen == touched.created + timedelta(seconds=300)
    assert (touched.payload, touched.version) == (None, 1)
    store.renew(sid)
    assert store.touch_ref(ref) is None


def test_delete_ref_of_principal(store: Store) -> None:
    sid = store.create("x", principal="alice")
    ref = store.ref(sid)
    assert ref is not None
    assert not store.delete_ref(ref, principal="bob")
    assert store.get(sid) is not None
    assert store.delete_ref(ref, principal="alice")
    assert store.get(sid) is None


def test_revoke_all(store: Store) -> None:
    sids = [store.create("x"), store.create("x", principal="alice"), store.create("x", principal=7)]
    assert store.revoke_all() == 3
    assert [store.get(sid) for sid in sids] == [None] * 3
    assert store.revoke_all() == 0
    assert store.get(store.create("x")) is not None


def test_device_labels() -> None:
    def label(agent: str) -> object:
        return sss.device_label(agent, "192.0.2.7")

    safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1"
    chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"
    android = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36"
    assert label(safari) == "Safari on iPhone, 192.0.2.7"
    assert label(chrome) == "Chrome on Windows, 192.0.2.7"
    assert label(chrome + " Edg/140.0") == "Edge on Windows, 192.0.2.7"
    assert label(android) == "Chrome on Android, 192.0.2.7"
    assert label("curl/8.5.0") == "curl, 192.0.2.7"
    assert label("my-client") == "Unknown browser, 192.0.2.7"
    assert sss.device_label(None, None) is None
    assert len((sss.device_label("x" * 9999, "1" * 9999) or "").encode()) <= 255
