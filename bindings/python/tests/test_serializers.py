"""What goes in comes out; what is empty stays out; what cannot be read back says so."""

from __future__ import annotations

from typing import Any, Callable

import pytest

import session_server_store as sss
from session_server_store import JSON, RAW, Store

EMPTY: list[Any] = [None, {}, [], (), "", b"", set(), range(0)]


class Marked:
    """A serializer of the user's own. ``broken`` makes reading fail."""

    broken = False

    def dumps(self, obj: Any) -> bytes:
        return b"marked:" + repr(obj).encode()

    def loads(self, data: bytes) -> Any:
        if self.broken:
            raise KeyError(data)
        return data.decode()


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, {"b": "c"}]},
        ["x"],
        "text",
        "ü\u20ac\U0001f600",
        "\udcff lone surrogate",
        "\0",
        0,
        False,
        0.0,
        10**40,
    ],
)
def test_json_brings_back_what_was_stored(store: Store, value: Any) -> None:
    session = store.get(store.create(value))
    assert session is not None
    assert session.payload == value
    assert type(session.payload) is type(value)


def test_json_is_compact_utf8() -> None:
    assert JSON.dumps({"a": ["ü", 1]}) == '{"a":["ü",1]}'.encode()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {"a": object()}])
def test_json_refuses_what_it_cannot_write(store: Store, value: Any) -> None:
    with pytest.raises(TypeError):
        store.create(value)
    assert store.stats().sessions == 0


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_json_refuses_what_is_no_json(store: Store, value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        store.create(value)


@pytest.mark.parametrize("value", [b"", b"\0\xff", bytearray(b"ab"), memoryview(b"abc")])
def test_raw_is_bytes_in_and_bytes_out(value: Any) -> None:
    with Store(serializer=RAW) as store:
        session = store.get(store.create(value))
        assert session is not None
        assert session.payload == bytes(value)
        assert type(session.payload) is bytes


@pytest.mark.parametrize("value", ["text", None, 5, [1], {}])
def test_raw_takes_nothing_but_bytes(value: Any) -> None:
    with Store(serializer=RAW) as store:
        with pytest.raises(TypeError, match="must be bytes"):
            store.create(value)
        with pytest.raises(TypeError, match="must be bytes"):
            store.renew("A" * 128, value)


def test_raw_can_store_nothing() -> None:
    with Store(serializer=RAW) as store:
        sid = store.create(b"x")
        new = store.renew(sid, b"")
        assert new is not None
        session = store.get(new)
        assert session is not None
        assert (session.payload, session.version) == (b"", 2)


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
@pytest.mark.parametrize("serializer", [JSON, Marked()], ids=["json", "own"])
def test_empty_session_is_not_stored(serializer: Any, empty: Any) -> None:
    with Store(serializer=serializer) as store:
        sid = store.create("x")
        before = (store.get(sid, peek=True), store.stats())
        calls: list[Callable[[], Any]] = [
            lambda: store.create(empty),
            lambda: store.put(sid, empty),
            lambda: store.put_if(sid, 1, empty),
            lambda: store.renew(sid, empty),
        ]
        for call in calls:
            with pytest.raises(sss.InvalidError, match="an empty session is not stored"):
                call()
        assert store.get(sid, peek=True) == before[0]
        assert store.stats().puts == store.stats().renewed == 0


def test_serializer_of_ones_own() -> None:
    with Store(serializer=Marked()) as store:
        session = store.get(store.create(["a"]))
        assert session is not None
        assert session.payload == "marked:['a']"


def test_module_can_be_a_serializer() -> None:
    import marshal

    with Store(serializer=marshal) as store:
        session = store.get(store.create((1, {2: 3})))
        assert session is not None
        assert session.payload == (1, {2: 3})


def test_payload_that_cannot_be_read_back_is_corrupt() -> None:
    with Store("memory:unreadable", serializer=RAW) as raw, Store("memory:unreadable") as store:
        for payload in (b"no json", b"\xff\xfe", b"", b"[" * 100_000):
            sid = raw.create(payload)
            with pytest.raises(sss.CorruptError) as caught:
                store.get(sid)
            assert caught.value.name == "CORRUPT"
            assert caught.value.__cause__ is not None
            assert raw.get(sid) is not None


def test_corrupt_error_does_not_quote_the_payload() -> None:
    serializer = Marked()
    with Store(serializer=serializer) as store:
        sid = store.create("swordfish")
        serializer.broken = True
        with pytest.raises(sss.CorruptError) as caught:
            store.get(sid)
        assert "KeyError" in caught.value.message
        assert "swordfish" not in caught.value.message


@pytest.mark.parametrize("result", ["text", None, bytearray(b"x"), 5])
def test_dumps_must_return_bytes(result: Any) -> None:
    class Wrong:
        def dumps(self, obj: Any) -> Any:
            return result

        def loads(self, data: bytes) -> Any:
            return data

    with Store(serializer=Wrong()) as store:
        with pytest.raises(TypeError, match="dumps must return bytes"):
            store.create("x")
        assert store.stats().created == 0


def test_dumps_that_fails_changes_nothing() -> None:
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
