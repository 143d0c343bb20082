"""``Store`` as a Python object: life cycle, types of arguments, ``repr``."""

from __future__ import annotations

import copy
import pickle
import weakref
from typing import Any, Callable

import pytest

import session_server_store as sss
from session_server_store import ClosedError, Session, Store

CALLS: dict[str, Callable[[Store], Any]] = {
    "create": lambda s: s.create("x"),
    "get": lambda s: s.get("A" * 128),
    "peek": lambda s: s.get("A" * 128, peek=True),
    "put": lambda s: s.put("A" * 128, "x"),
    "put_if": lambda s: s.put_if("A" * 128, 1, "x"),
    "touch": lambda s: s.touch("A" * 128),
    "renew": lambda s: s.renew("A" * 128),
    "delete": lambda s: s.delete("A" * 128),
    "sweep": lambda s: s.sweep(),
    "list": lambda s: s.list("alice"),
    "revoke": lambda s: s.revoke("alice"),
    "ref": lambda s: s.ref("A" * 128),
    "delete_ref": lambda s: s.delete_ref(bytes(32)),
    "touch_ref": lambda s: s.touch_ref(bytes(32)),
    "revoke_all": lambda s: s.revoke_all(),
    "stats": lambda s: s.stats(),
    "may_block": lambda s: s.may_block(),
    "advance_clock": lambda s: s.advance_clock(1),
}


def test_calls_cover_public_methods() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")} - {"close", "closed"}
    assert methods == set(CALLS) - {"peek"}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_closed_store_raises_closed_error(call: Callable[[Store], Any]) -> None:
    store = Store()
    store.close()
    with pytest.raises(ClosedError) as caught:
        call(store)
    assert (caught.value.code, caught.value.name) == (-2, "HANDLE")


def test_with_closes_store() -> None:
    with Store() as store:
        assert not store.closed
    assert store.closed
    with pytest.raises(ClosedError):
        store.stats()


def test_with_closes_store_after_exception() -> None:
    with pytest.raises(KeyError), Store() as store:
        raise KeyError
    assert store.closed


def test_second_close_does_nothing() -> None:
    store = Store()
    store.close()
    store.close()
    assert store.closed


def test_unreferenced_store_is_closed() -> None:
    store = Store("memory:unreferenced")
    sid = store.create("x")
    del store
    with Store("memory:unreferenced") as again:
        assert again.get(sid) is None


def test_failed_open_is_finalised_silently() -> None:
    with pytest.raises(sss.UrlError):
        Store("nonsense")
    with pytest.raises(TypeError):
        Store(1, 2, 3)  # type: ignore


def test_weak_reference_to_store() -> None:
    store = Store()
    reference = weakref.ref(store)
    assert reference() is store
    del store
    assert reference() is None


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_store_cannot_be_copied_or_pickled(store: Store, act: Callable[[Store], Any]) -> None:
    with pytest.raises(TypeError, match="open its URL"):
        act(store)


def test_store_has_no_other_attributes(store: Store) -> None:
    with pytest.raises(AttributeError):
        store.url = "x"  # type: ignore[attr-defined]


def test_repr_contains_no_secret() -> None:
    with Store("memory:secret-name") as store:
        sid = store.create({"password": "swordfish"}, principal="alice")
        texts = [repr(store), str(store), repr(store.get(sid)), repr(store.list("alice")), repr(store.stats())]
    assert not any(secret in text for text in texts for secret in ("secret-name", "swordfish", sid))


WRONG_TYPES: dict[str, Callable[[Any], Any]] = {
    "url": lambda s: Store(b"memory:"),  # type: ignore[arg-type]
    "url None": lambda s: Store(None),  # type: ignore[arg-type]
    "serializer": lambda s: Store(serializer=object()),  # type: ignore[arg-type]
    "sid None": lambda s: s.get(None),
    "sid int": lambda s: s.get(5),
    "sid bytearray": lambda s: s.put(bytearray(128), "x"),
    "put_if sid": lambda s: s.put_if(None, 1, "x"),
    "touch sid": lambda s: s.touch(None),
    "renew sid": lambda s: s.renew(None),
    "delete sid": lambda s: s.delete(None),
    "ref sid": lambda s: s.ref(None),
    "except_sid": lambda s: s.revoke("alice", except_sid=5),
    "version": lambda s: s.put_if("A" * 128, "1", "x"),
    "version float": lambda s: s.put_if("A" * 128, 1.0, "x"),
    "version None": lambda s: s.put_if("A" * 128, None, "x"),
    "version bool": lambda s: s.put_if("A" * 128, True, "x"),
    "principal": lambda s: s.create("x", principal=5.0),
    "principal bool": lambda s: s.create("x", principal=True),
    "put principal": lambda s: s.put("A" * 128, "x", principal=["alice"]),
    "list None": lambda s: s.list(None),
    "revoke None": lambda s: s.revoke(None),
    "max": lambda s: s.sweep("all"),
    "max float": lambda s: s.sweep(10.0),
    "max None": lambda s: s.sweep(None),
    "ref": lambda s: s.delete_ref("A" * 32),
    "ref None": lambda s: s.delete_ref(None),
    "timeout": lambda s: s.create("x", timeout="10s"),
    "timeout bool": lambda s: s.create("x", timeout=True),
    "idle_timeout": lambda s: s.put("A" * 128, "x", idle_timeout=[]),
    "grace": lambda s: s.renew("A" * 128, grace="5s"),
    "grace None": lambda s: s.renew("A" * 128, grace=None),
    "advance": lambda s: s.advance_clock("5s"),
    "advance None": lambda s: s.advance_clock(None),
}


@pytest.mark.parametrize(("name", "call"), WRONG_TYPES.items(), ids=WRONG_TYPES)
def test_wrong_type_names_argument(store: Store, name: str, call: Callable[[Any], Any]) -> None:
    word = {"advance": "seconds", "list": "principal", "revoke": "principal", "put": "principal"}.get(
        name.split()[0], name.split()[0 if name.split()[-1] not in ("sid", "principal") else -1]
    )
    before = store.stats()
    with pytest.raises(TypeError, match=rf"^{word} must "):
        call(store)
    assert store.stats() == before


WRONG_VALUES: dict[str, Callable[[Store], Any]] = {
    "negative version": lambda s: s.put_if("A" * 128, -1, "x"),
    "huge version": lambda s: s.put_if("A" * 128, 2**64, "x"),
    "negative max": lambda s: s.sweep(-1),
    "huge max": lambda s: s.sweep(2**64),
    "short ref": lambda s: s.delete_ref(b"x" * 31),
    "long ref": lambda s: s.delete_ref(b"x" * 33),
    "short ref in touch_ref": lambda s: s.touch_ref(b"x" * 31),
    "surrogate label": lambda s: s.create("x", principal="alice", label="\udcff"),
    "long label": lambda s: s.create("x", principal="alice", label="x" * 256),
    "label without principal": lambda s: s.create("x", label="phone"),
    "label without principal in put": lambda s: s.put(s.create("x", principal="alice"), "x", label="phone"),
    "grace with login": lambda s: s.renew(s.create("x"), principal="alice", grace=1),
    "grace with reauthentication": lambda s: s.renew(s.create("x"), reauthenticated=True, grace=1),
    "reauthentication without principal": lambda s: s.renew(s.create("x"), principal=None, reauthenticated=True),
    "empty principal in delete_ref": lambda s: s.delete_ref(b"x" * 32, principal=""),
    "principal of too many digits": lambda s: s.list(10**5000),
    "surrogate principal": lambda s: s.list("\udcff"),
    "empty principal": lambda s: s.create("x", principal=""),
    "empty principal in put": lambda s: s.put(s.create("x"), "x", principal=b""),
    "empty principal in list": lambda s: s.list(""),
    "empty principal in revoke": lambda s: s.revoke(b""),
    "timeout nan": lambda s: s.create("x", timeout=float("nan")),
    "grace nan": lambda s: s.renew("A" * 128, grace=float("nan")),
    "negative grace": lambda s: s.renew(s.create("x"), grace=-1),
    "clock backwards": lambda s: s.advance_clock(-1),
}


@pytest.mark.parametrize("call", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_wrong_value_is_invalid_error(store: Store, call: Callable[[Store], Any]) -> None:
    with pytest.raises(sss.InvalidError) as caught:
        call(store)
    assert caught.value.name == "INVALID"
    assert isinstance(caught.value, ValueError)


def test_largest_integers_are_accepted(store: Store) -> None:
    with pytest.raises(sss.ConflictError):
        store.put_if(store.create("x"), 2**64 - 1, "y")
    assert store.sweep(2**64 - 1) == 0


def test_results_are_immutable(store: Store) -> None:
    sid = store.create("x", principal="alice")
    session = store.get(sid)
    for record, name in (
        (session, "payload"),
        (session, "created"),
        (store.list("alice")[0], "ref"),
        (store.stats(), "hits"),
    ):
        with pytest.raises(AttributeError):
            setattr(record, name, None)
        with pytest.raises(AttributeError):
            setattr(record, "another", None)  # noqa: B010
        assert not hasattr(record, "__dict__")


def test_equal_results(store: Store) -> None:
    sid, other = store.create("x", principal="alice"), store.create("y", principal="alice")
    assert store.get(sid) == store.get(sid)
    assert store.get(sid) != store.get(other)
    assert store.get(sid) != "x"
    assert store.list("alice") == store.list("alice")
    assert len({store.get(sid), store.get(sid)}) == 1


def test_deadline_beyond_year_9999() -> None:
    last = Session("x", 1, 0, 0, 2**62, 0, 0, 0).expires
    assert last is not None
    assert last.year == 9999
    assert last.tzinfo is not None
