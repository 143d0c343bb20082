"""Serializers: ``JSON`` (the default), ``RAW``, or any object with ``dumps`` and ``loads``.

Do not use pickle: with it, write access to the store is enough to run code in every process that
reads from the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, Protocol


class Serializer(Protocol):
    """``loads(dumps(x))`` equals ``x``. Several threads may call both at the same time."""

    def dumps(self, obj: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode: Final = json.JSONDecoder().decode

# The json module writes the keys 1, 1.5, True and None like "1", "1.5", "true" and "null". This
# finds all of them, and strings that look like them.
_find_converted_key: Final = re.compile(r'"(?:-?\d[^"]*|true|false|null)":').search


class JsonSerializer:
    """JSON in UTF-8. Tuples come back as lists. Dictionaries may have only strings as keys.

    ``dumps`` raises TypeError or ValueError for what JSON cannot represent.
    """

    # "surrogatepass": strings may contain lone surrogates, for example undecodable file names.
    def dumps(self, obj: Any, /) -> bytes:
        try:
            text = _encode(obj)
        except TypeError:
            _check_keys(obj)  # its message names the key
            raise
        if _find_converted_key(text):
            _check_keys(obj)
        return text.encode("utf-8", "surrogatepass")

    def loads(self, data: bytes, /) -> Any:
        return _decode(data.decode("utf-8", "surrogatepass"))


class RawSerializer:
    """Payloads are bytes, which may be empty, and are stored unchanged."""

    def dumps(self, obj: Any, /) -> bytes:
        if isinstance(obj, (bytes, bytearray, memoryview)):
            return bytes(obj)
        raise TypeError(f"data must be bytes with the RAW serializer, not {type(obj).__name__}")

    def loads(self, data: bytes, /) -> bytes:
        return data


JSON: Final = JsonSerializer()
RAW: Final = RawSerializer()


def _check_keys(obj: Any) -> None:
    """Refuses keys that the json module converts: ``{1: "a", "1": "b"}`` would lose an entry."""
    pending = [obj]
    visited = set()
    for item in pending:
        if not isinstance(item, (dict, list, tuple)) or id(item) in visited:
            continue
        visited.add(id(item))
        children: Iterable[Any] = item
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise TypeError(f"keys of session data must be str, not {type(key).__name__}: {key!r}")
            children = item.values()
        pending.extend(children)
