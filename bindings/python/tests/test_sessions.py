"""The life of a session through the methods of ``Store``, on a manual clock."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import pytest

import session_server_store as sss
from session_server_store import RAW, Store

NOBODY = "A" * 128


def test_created_session_can_be_read(store: Store) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    sid = store.create({"user": "alice", "visits": 1})
    session = store.get(sid)
    assert session is not None
    assert session.payload == {"user": "alice", "visits": 1}
    assert session.version == 1
    assert before < session.created < before + timedelta(seconds=60)
    assert session.last_seen == session.created
    assert session.expires == session.created + timedelta(minutes=10)


def test_id_is_128_characters_of_base64url(store: Store) -> None:
    sids = {store.create("x") for _ in range(100)}
    assert len(sids) == 100
    assert all(re.fullmatch("[A-Za-z0-9_-]{128}", sid) for sid in sids)


def test_id_may_be_given_as_bytes_or_as_a_kind_of_str(store: Store) -> None:
    class Cookie(str):
        __slots__ = ()

    sid = store.create("x")
    assert store.get(sid.encode()) == store.get(Cookie(sid)) == store.get(sid)


@pytest.mark.parametrize(
    "sid",
    [
        NOBODY,
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
def test_session_that_is_not_there_is_none_or_false(store: Store, sid: Any) -> None:
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
    assert store.stats().sessions == 1


def test_put_replaces_the_payload_and_counts_the_version(store: Store) -> None:
    sid = store.create([1])
    store.advance_clock(60)
    written = store.put(sid, [1, 2])
    assert written is not None
    assert (written.payload, written.version) == ([1, 2], 2)
    assert written.last_seen == written.created + timedelta(seconds=60)
    assert store.get(sid) == written


@pytest.mark.parametrize(
    "end", [lambda s, sid: s.delete(sid), lambda s, _: s.revoke("alice"), lambda s, _: s.advance_clock(600)]
)
def test_put_never_brings_a_session_back(store: Store, end: Callable[[Store, str], Any]) -> None:
    sid = store.create("x", principal="alice")
    end(store, sid)
    assert store.put(sid, "y") is None
    assert store.put_if(sid, 1, "y") is None
    assert store.touch(sid) is None
    assert store.renew(sid) is None
    assert store.get(sid) is None


def test_put_if_of_the_version_that_was_read_succeeds(store: Store) -> None:
    sid = store.create("x")
    written = store.put_if(sid, 1, "y")
    assert written is not None
    assert (written.payload, written.version) == ("y", 2)


def test_put_if_of_another_version_is_a_conflict_and_changes_nothing(store: Store) -> None:
    sid = store.create("x")
    store.put(sid, "y")
    before = store.get(sid, peek=True)
    store.advance_clock(1)
    with pytest.raises(sss.ConflictError):
        store.put_if(sid, 1, "z", principal="alice")
    assert store.get(sid, peek=True) == before
    assert store.list("alice") == []


def test_get_slides_the_idle_deadline_and_peek_does_not(store: Store) -> None:
    sid = store.create("x")
    store.advance_clock(500)
    peeked = store.get(sid, peek=True)
    assert peeked is not None
    assert peeked.last_seen == peeked.created
    store.get(sid)
    store.advance_clock(599.999)
    assert store.get(sid, peek=True) is not None
    store.advance_clock(0.001)
    assert store.get(sid, peek=True) is None


def test_touch_slides_and_returns_no_payload(store: Store) -> None:
    sid = store.create("x")
    store.advance_clock(500)
    touched = store.touch(sid)
    assert touched is not None
    assert touched.payload is None
    assert touched.version == 1
    assert touched.expires == touched.created + timedelta(seconds=1100)


def test_absolute_deadline_does_not_slide(store: Store) -> None:
    sid = store.create("x")
    for _ in range(7):
        store.advance_clock(500)
        assert store.touch(sid) is not None
    store.advance_clock(100)
    assert store.get(sid) is None


def test_renew_gives_a_new_id_and_ends_the_old_one(store: Store) -> None:
    old = store.create({"cart": 3})
    created = store.get(old)
    assert created is not None
    store.advance_clock(10)
    new = store.renew(old)
    assert new is not None
    assert new != old
    assert store.get(old) is None
    session = store.get(new)
    assert session is not None
    assert (session.payload, session.version, session.created) == ({"cart": 3}, 1, created.created)


def test_renew_takes_new_data_principal_and_timeouts(store: Store) -> None:
    old = store.create({"cart": 3})
    new = store.renew(old, {"user": "alice"}, principal="alice", timeout=60, idle_timeout=None)
    assert new is not None
    session = store.get(new)
    assert session is not None
    assert (session.payload, session.version) == ({"user": "alice"}, 2)
    assert session.expires == session.created + timedelta(seconds=60)
    assert [info.ref for info in store.list("alice")] == [store.ref(new)]


def test_renew_with_grace_leaves_the_old_id_readable_for_that_long(store: Store) -> None:
    old = store.create("x")
    new = store.renew(old, grace=timedelta(seconds=5))
    assert new is not None
    assert store.put(old, "y") is None
    assert store.delete(old) is False
    store.advance_clock(4.999)
    assert store.get(old) is not None
    store.advance_clock(0.001)
    assert store.get(old) is None
    assert store.get(new) is not None


def test_second_delete_is_false(store: Store) -> None:
    sid = store.create("x")
    assert store.delete(sid) is True
    assert store.delete(sid) is False
    assert store.get(sid) is None


def test_list_shows_the_sessions_of_a_principal_oldest_first(store: Store) -> None:
    sids = []
    for number in range(50):  # more than the first buffer takes
        sids.append(store.create("x" * number + "y", principal="alice"))
        store.advance_clock(1)
    store.create("z", principal="bob")
    infos = store.list("alice")
    assert [info.ref for info in infos] == [store.ref(sid) for sid in sids]
    assert [info.size for info in infos] == [number + 3 for number in range(50)]
    assert [info.created for info in infos] == sorted(info.created for info in infos)
    assert infos[0].version == 1
    assert infos[0].expires == infos[0].last_seen + timedelta(minutes=10)


def test_list_of_a_stranger_is_empty(store: Store) -> None:
    assert store.list("nobody") == []


def test_revoke_ends_all_sessions_of_a_principal(store: Store) -> None:
    mine = [store.create("x", principal="alice") for _ in range(3)]
    other = store.create("x", principal="bob")
    assert store.revoke("alice") == 3
    assert [store.get(sid) for sid in mine] == [None] * 3
    assert store.get(other) is not None


def test_revoke_can_spare_one_session(store: Store) -> None:
    this = store.create("x", principal="alice")
    that = store.create("x", principal="alice")
    assert store.revoke("alice", except_sid=this) == 1
    assert store.get(this) is not None
    assert store.get(that) is None


def test_principal_is_the_same_as_str_and_as_utf8(store: Store) -> None:
    store.create("x", principal="Zoë")
    assert len(store.list("Zoë".encode())) == 1
    assert store.revoke("Zoë") == 1


def test_principal_is_kept_replaced_or_taken_away(store: Store) -> None:
    sid = store.create("x", principal="alice")
    store.put(sid, "y")
    assert len(store.list("alice")) == 1
    store.put_if(sid, 2, "y", principal="bob")
    assert (len(store.list("alice")), len(store.list("bob"))) == (0, 1)
    store.put(sid, "y", principal=None)
    assert store.list("bob") == []
    assert store.get(sid) is not None


def test_renew_can_take_the_principal_away(store: Store) -> None:
    sid = store.create("x", principal="alice")
    new = store.renew(sid, principal=None)
    assert store.list("alice") == []
    assert new is not None
    assert store.get(new) is not None


def test_reference_names_a_session_and_ends_it(store: Store) -> None:
    sid = store.create("x", principal="alice")
    ref = store.ref(sid)
    assert isinstance(ref, bytes)
    assert len(ref) == 32
    assert store.list("alice")[0].ref == ref
    assert store.delete_ref(ref) is True
    assert store.delete_ref(ref) is False
    assert store.get(sid) is None


def test_sweep_removes_what_is_expired_and_no_more_than_it_may(store: Store) -> None:
    for _ in range(5):
        store.create("x", timeout=1)
    living = store.create("x")
    store.advance_clock(1)
    assert store.sweep(2) == 2
    assert store.sweep() == 3
    assert store.sweep() == 0
    assert store.sweep(0) == 0
    assert store.get(living) is not None


def test_stats_count(store: Store) -> None:
    sid = store.create("x")
    store.get(sid)
    store.get(NOBODY)
    store.put(sid, "yy")
    with pytest.raises(sss.ConflictError):
        store.put_if(sid, 1, "z")
    new = store.renew(sid)
    stats = store.stats()
    assert (stats.sessions, stats.bytes, stats.created, stats.hits, stats.misses) == (1, 4, 1, 1, 1)
    assert (stats.puts, stats.conflicts, stats.renewed, stats.deleted) == (1, 1, 1, 0)
    assert (stats.revoked, stats.expired, stats.rejected, stats.errors) == (0, 0, 0, 0)
    assert new is not None
    store.delete(new)
    assert store.stats().deleted == 1


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 300_000, 1024 * 1024])
def test_payload_of_any_size_comes_back(size: int) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    with Store(serializer=RAW) as store:
        sid, small = store.create(payload), store.create(b"small")
        for _ in range(2):  # the second time with a buffer that may have grown
            session, other = store.get(sid), store.get(small)
            assert session is not None
            assert other is not None
            assert session.payload == payload
            assert other.payload == b"small"


def test_too_small_a_buffer_neither_slides_nor_counts_twice(store: Store) -> None:
    sid = store.create("x" * 200_000)
    assert store.get(sid) is not None
    assert store.stats().hits == 1


def test_named_memory_is_shared_between_stores() -> None:
    with Store("memory:shared-by-two") as one, Store("memory:shared-by-two") as two:
        sid = one.create({"a": 1})
        one.close()
        assert two.get(sid) is not None


def test_unnamed_memory_is_not_shared() -> None:
    with Store() as one, Store() as two:
        assert two.get(one.create("x")) is None
