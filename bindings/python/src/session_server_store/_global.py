"""The process-wide store as functions: the methods of ``Store`` by the same names. Nothing is decided here.

It opens as "memory:" at first use unless ``open_global`` came first; in a forked child ``open_global`` opens it anew.
"""

from __future__ import annotations

from typing import Any, Final, Optional, Union

from . import _ffi
from ._arguments import NOT_GIVEN, Duration, MaybePrincipal, MaybeTimeout
from .records import Session, Stats
from .serializers import JSON, Serializer
from .store import Id, Infos, Store, url_bytes


class _Global(Store):
    """The library never closes this store, so neither does Python."""

    __slots__ = ()

    def __init__(self, serializer: Serializer) -> None:
        self._prepare(serializer)

    def close(self) -> None:
        pass

    def __del__(self, *_: Any) -> None:
        pass


# One entry at most; a dict because setdefault is one atomic step, and unlike a lock survives fork.
_opened: Final[dict[str, _Global]] = {}


def _store() -> Store:
    try:
        return _opened["store"]
    except KeyError:
        pass
    store = _Global(JSON)
    store._use(_ffi.GLOBAL)
    return _opened.setdefault("store", store)


def open_global(url: str = "memory:", *, serializer: Serializer = JSON) -> None:
    """Chooses the process-wide store, before its first use; the same URL again is fine, another is an error."""
    text = url_bytes(url)
    store = _Global(serializer)
    status = _ffi.RELEASED.sss_open_global(text, _ffi.length(text))
    if status:
        raise _ffi.failure(status)
    store._use(_ffi.GLOBAL)
    _opened["store"] = store


def create(
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: Union[str, bytes, None] = None,
) -> str:
    return _store().create(data, timeout=timeout, idle_timeout=idle_timeout, principal=principal)


def get(sid: Id, *, peek: bool = False) -> Optional[Session]:
    return _store().get(sid, peek=peek)


def put(
    sid: Id,
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
) -> Optional[Session]:
    return _store().put(sid, data, timeout=timeout, idle_timeout=idle_timeout, principal=principal)


def put_if(
    sid: Id,
    version: int,
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
) -> Optional[Session]:
    return _store().put_if(sid, version, data, timeout=timeout, idle_timeout=idle_timeout, principal=principal)


def touch(sid: Id) -> Optional[Session]:
    return _store().touch(sid)


def renew(
    sid: Id,
    data: Any = NOT_GIVEN,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
    grace: Duration = 0,
) -> Optional[str]:
    return _store().renew(sid, data, timeout=timeout, idle_timeout=idle_timeout, principal=principal, grace=grace)


def delete(sid: Id) -> bool:
    return _store().delete(sid)


def sweep(max: int = 1000) -> int:
    return _store().sweep(max)


def list(principal: Union[str, bytes]) -> Infos:
    return _store().list(principal)


def revoke(principal: Union[str, bytes], *, except_sid: Optional[Id] = None) -> int:
    return _store().revoke(principal, except_sid=except_sid)


def ref(sid: Id) -> Optional[bytes]:
    return _store().ref(sid)


def delete_ref(ref: bytes) -> bool:
    return _store().delete_ref(ref)


def stats() -> Stats:
    return _store().stats()


def advance_clock(seconds: Duration) -> None:
    _store().advance_clock(seconds)
