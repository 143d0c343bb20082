"""How a session becomes bytes and back: ``JSON`` (the default), ``RAW``, or anything with ``dumps`` and ``loads``.

Never pickle: whoever can write to the store could then run code in every process that reads it.
"""

from __future__ import annotations

import json
from typing import Any, Final, Protocol


class Serializer(Protocol):
    """``loads(dumps(x))`` gives back ``x``. Both may be called by many threads at once."""

    def dumps(self, obj: Any, /) -> bytes: ...

    def loads(self, data: bytes, /) -> Any: ...


_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode: Final = json.JSONDecoder().decode


class JsonSerializer:
    """JSON in UTF-8. As ever in JSON, tuples come back as lists and the keys of dictionaries as strings."""

    # "surrogatepass": a lone surrogate, as in a file name, is unusual but no reason to lose a session.
    def dumps(self, obj: Any, /) -> bytes:
        return _encode(obj).encode("utf-8", "surrogatepass")

    def loads(self, data: bytes, /) -> Any:
        return _decode(data.decode("utf-8", "surrogatepass"))


class RawSerializer:
    """Bytes in, bytes out; also none at all, which the other serializers call an empty session."""

    def dumps(self, obj: Any, /) -> bytes:
        if isinstance(obj, (bytes, bytearray, memoryview)):
            return bytes(obj)
        raise TypeError(f"data must be bytes with the RAW serializer, not {type(obj).__name__}")

    def loads(self, data: bytes, /) -> bytes:
        return data


JSON: Final = JsonSerializer()
RAW: Final = RawSerializer()
