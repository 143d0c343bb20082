"""Payloads survive the round trip or are refused; unreadable ones are CorruptError."""

from __future__ import annotations

import enum
import errno
import json
import re
import sys
from collections import OrderedDict
from typing import Any, Callable, Optional

import pytest

import session_server_store as sss
from session_server_store import JSON, RAW, Store
from session_server_store.errors import from_status

EMPTY: list[Any] = [None, {}, [], (), "", b"", set(), range(0)]


class Marked:
    """A serializer that an application brings. ``error`` makes reading fail."""

    error: Optional[BaseException] = None

    def dumps(self, obj: Any) -> bytes:
        return b"marked:" + repr(obj).encode()

    def loads(self, data: bytes) -> Any:
        if self.error is not None:
            raise self.error
        return data.decode()


class Text(str):
    __slots__ = ()


class Size(enum.IntEnum):
    LARGE = 3


class json_without_wrapper:  # noqa: N801 - stands for a module
    @staticmethod
    def dumps(obj: Any) -> bytes:
        return json.dumps(obj).encode()

    loads = staticmethod(json.loads)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, {"b": "c"}]},
        ["x"],
        "text",
        "ü\u20ac\U0001f600",
        "\udcff lone surrogate",
        "\ud83d\ude00 surrogates in a pair",
        "\0",
        0,
        False,
        0.0,
        10**40,
    ],
)
def test_json_round_trip(store: Store, value: Any) -> None:
    session = store.get(store.create(value))
    assert session is not None
    assert session.payload == value
    assert type(session.payload) is type(value)


def test_json_is_compact_utf8() -> None:
    assert JSON.dumps({"a": ["ü", 1]}) == '{"a":["ü",1]}'.encode()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"a": object()}])
def test_json_refuses_unsupported_type(store: Store, value: Any) -> None:
    with pytest.raises(TypeError):
        store.create(value)
    assert store.stats().sessions == 0


@pytest.mark.parametrize("key", [1, -7, 1.5, -0.0, 1e300, True, False, None, (1, 2), b"x", Size.LARGE], ids=repr)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: {"nested": data},
        lambda data: [1, ["x", data]],
        lambda data: {"a": ({"b": [data]},)},
        lambda data: OrderedDict(a=OrderedDict(data)),
    ],
    ids=["top", "dict", "list", "deep", "subclass"],
)
def test_json_refuses_non_string_key(key: Any, wrap: Callable[[Any], Any]) -> None:
    with Store() as store:
        sid = store.create("x")
        for call in (store.create, lambda data: store.put(sid, data), lambda data: store.renew(sid, data)):
            with pytest.raises(
                TypeError, match=f"^keys of session data must be str, not {type(key).__name__}: {re.escape(repr(key))}$"
            ):
                call(wrap({"other": 0, key: 1}))
        assert (store.stats().created, store.stats().puts, store.stats().renewed) == (1, 0, 0)


def test_json_refuses_keys_that_would_collide() -> None:
    with pytest.raises(TypeError, match="must be str, not int: 1"):
        JSON.dumps({1: "a", "1": "b"})


@pytest.mark.parametrize("value", [{"1": 2, "true": {"null": 3}, "-0.5": []}, {"a": '"1":'}, {Text("k"): 1}])
def test_json_takes_any_string_key(value: Any) -> None:
    assert JSON.loads(JSON.dumps(value)) == value


def test_json_reports_cycle() -> None:
    cycle: dict[Any, Any] = {"1": 2}
    cycle["self"] = cycle
    with pytest.raises(ValueError, match="Circular"):
        JSON.dumps(cycle)
    cycle[b"key"] = 3
    with pytest.raises((TypeError, ValueError)):
        JSON.dumps(cycle)


def test_json_returns_tuples_as_lists() -> None:
    assert JSON.loads(JSON.dumps((1, (2,)))) == [1, [2]]


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_json_refuses_nan_and_infinity(store: Store, value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        store.create(value)


@pytest.mark.parametrize("value", [b"", b"\0\xff", bytearray(b"ab"), memoryview(b"abc")])
def test_raw_round_trip(value: Any) -> None:
    with Store(serializer=RAW) as store:
        session = store.get(store.create(value))
        assert session is not None
        assert session.payload == bytes(value)
        assert type(session.payload) is bytes


@pytest.mark.parametrize("value", ["text", None, 5, [1], {}])
def test_raw_refuses_other_types(value: Any) -> None:
    with Store(serializer=RAW) as store:
        with pytest.raises(TypeError, match="must be bytes"):
            store.create(value)
        with pytest.raises(TypeError, match="must be bytes"):
            store.renew("A" * 128, value)


def test_raw_stores_empty_payload() -> None:
    with Store(serializer=RAW) as store:
        sid = store.create(b"x")
        new = store.renew(sid, b"")
        assert new is not None
        session = store.get(new)
        assert session is not None
        assert (session.payload, session.version) == (b"", 2)


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize("serializer", [JSON, Marked()], ids=["json", "own"])
def test_empty_session_is_refused(serializer: Any, empty: Any) -> None:
    with Store(serializer=serializer) as store:
        with pytest.raises(sss.InvalidError, match="an empty session is not stored"):
            store.create(empty)
        assert store.stats().created == 0


@pytest.mark.parametrize("empty", [{}, [], "", None], ids=repr)
def test_session_with_id_may_be_empty(empty: Any) -> None:
    with Store() as store:
        sid = store.create("x")
        assert store.put(sid, empty) is not None
        assert store.put_if(sid, 2, empty) is not None
        new = store.renew(sid, empty)
        assert new is not None
        session = store.get(new)
        assert session is not None
        assert session.payload == empty


def test_custom_serializer() -> None:
    with Store(serializer=Marked()) as store:
        session = store.get(store.create(["a"]))
        assert session is not None
        assert session.payload == "marked:['a']"


def test_module_as_serializer() -> None:
    import marshal

    with Store(serializer=marshal) as store:
        session = store.get(store.create((1, {2: 3})))
        assert session is not None
        assert session.payload == (1, {2: 3})


def test_unreadable_payload_is_corrupt() -> None:
    with Store("memory:unreadable", serializer=RAW) as raw, Store("memory:unreadable") as store:
        for payload in (b"no json", b"\xff\xfe", b"", b"[" * 100):
            sid = raw.create(payload)
            with pytest.raises(sss.CorruptError) as caught:
                store.get(sid)
            assert caught.value.name == "CORRUPT"
            assert caught.value.__cause__ is not None
            assert raw.get(sid) is not None


def test_deep_payload_exceeds_recursion_limit() -> None:
    """A process with a smaller stack must not take a sound payload for a corrupt one."""
    depth = 20_000
    with Store("memory:deep", serializer=RAW) as raw, Store("memory:deep") as store:
        sid = raw.create(b"[" * depth + b"]" * depth)
        with pytest.raises(RecursionError):
            store.get(sid)


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="this Python has no limit")
@pytest.mark.parametrize("serializer", [JSON, json_without_wrapper], ids=["JSON", "json"])
def test_long_integer_exceeds_digit_limit(serializer: Any) -> None:
    with (
        Store("memory:long-integer", serializer=RAW) as raw,
        Store("memory:long-integer", serializer=serializer) as store,
    ):
        sid = raw.create(b"1" * 5000)
        with pytest.raises(ValueError, match="set_int_max_str_digits") as caught:
            store.get(sid)
        assert not isinstance(caught.value, sss.SessionStoreError)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("too deep"),
        OSError(errno.EMFILE, "too many open files"),
        ConnectionRefusedError(errno.ECONNREFUSED, "no key server"),
        from_status(int(sss.Status.UNAVAILABLE), "another store is down"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_process_error_in_loads_is_not_corrupt(error: BaseException) -> None:
    serializer = Marked()
    with Store(serializer=serializer) as store:
        sid = store.create("x")
        serializer.error = error
        with pytest.raises(type(error)) as caught:
            store.get(sid)
        assert caught.value is error
        serializer.error = None
        assert store.get(sid) is not None


@pytest.mark.parametrize("error", [ValueError("x"), EOFError(), OSError("bz2: invalid data"), TypeError()], ids=repr)
def test_data_error_in_loads_is_corrupt(error: Exception) -> None:
    serializer = Marked()
    with Store(serializer=serializer) as store:
        sid = store.create("x")
        serializer.error = error
        with pytest.raises(sss.CorruptError) as caught:
            store.get(sid)
        assert caught.value.__cause__ is error


def test_corrupt_error_contains_no_payload() -> None:
    serializer = Marked()
    with Store(serializer=serializer) as store:
        sid = store.create("swordfish")
        serializer.error = KeyError(b"swordfish")
        with pytest.raises(sss.CorruptError) as caught:
            store.get(sid)
        assert "KeyError" in caught.value.message
        assert "swordfish" not in caught.value.message


@pytest.mark.parametrize("result", ["text", None, bytearray(b"x"), 5])
def test_dumps_returning_other_type(result: Any) -> None:
    class Wrong:
        def dumps(self, obj: Any) -> Any:
            return result

        def loads(self, data: bytes) -> Any:
            return data

    with Store(serializer=Wrong()) as store:
        with pytest.raises(TypeError, match="dumps must return bytes"):
            store.create("x")
        assert store.stats().created == 0


def test_failing_dumps_changes_nothing() -> None:
    class Failing(Marked):
        def dumps(self, obj: Any) -> bytes:
            if obj == "fail":
                raise RuntimeError("on purpose")
            return super().dumps(obj)

    with Store(serializer=Failing()) as store:
        sid = store.create("x")
        before = store.get(sid, peek=True)
        for call in (store.create, lambda data: store.put(sid, data), lambda data: store.renew(sid, data)):
            with pytest.raises(RuntimeError, match="on purpose"):
                call("fail")
        assert store.get(sid, peek=True) == before
