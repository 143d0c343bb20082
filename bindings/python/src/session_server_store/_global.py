"""The methods of ``Store`` as functions on the store of the process.

It is "memory:", opened at first use, unless ``open_global`` is called before. A forked child can
call ``open_global`` again.
"""

from __future__ import annotations

import builtins
from typing import Any, Final, Literal, Optional, overload

from ._arguments import NOT_GIVEN, Duration, Id, Label, MaybeLabel, MaybePrincipal, MaybeTimeout, Principal, url_bytes
from ._ffi import GLOBAL, LIB_NOGIL, failure, length
from .records import Blocking, Session, SessionInfo, Stats
from .serializers import JSON, Serializer
from .store import Store, StoreView

# At most one entry. A dict, because setdefault is atomic and, unlike a lock, safe to fork.
_instance: Final[dict[str, StoreView]] = {}


def _store() -> Store:
    try:
        return _instance["store"]
    except KeyError:
        pass
    store = StoreView(JSON)
    store._attach(GLOBAL)
    return _instance.setdefault("store", store)


def open_global(url: str = "memory:", *, serializer: Serializer = JSON) -> None:
    """Chooses the store of the process, before its first use.

    The same URL again does nothing; another one raises an error.
    """
    text = url_bytes(url)
    store = StoreView(serializer)
    status = LIB_NOGIL.sss_open_global(text, length(text))
    if status:
        raise failure(status)
    store._attach(GLOBAL)
    _instance["store"] = store


@overload
def create(
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: Optional[Principal] = None,
    label: Optional[Label] = None,
    return_session: Literal[False] = False,
) -> str: ...


@overload
def create(
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: Optional[Principal] = None,
    label: Optional[Label] = None,
    return_session: Literal[True],
) -> tuple[str, Session]: ...


def create(
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: Optional[Principal] = None,
    label: Optional[Label] = None,
    return_session: bool = False,
) -> Any:
    store: Any = _store()  # no overload takes a bool
    return store.create(
        data,
        timeout=timeout,
        idle_timeout=idle_timeout,
        principal=principal,
        label=label,
        return_session=return_session,
    )


def get(sid: Id, *, peek: bool = False) -> Optional[Session]:
    return _store().get(sid, peek=peek)


def put(
    sid: Id,
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
    label: MaybeLabel = NOT_GIVEN,
) -> Optional[Session]:
    return _store().put(sid, data, timeout=timeout, idle_timeout=idle_timeout, principal=principal, label=label)


def put_if(
    sid: Id,
    version: int,
    data: Any,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
    label: MaybeLabel = NOT_GIVEN,
) -> Optional[Session]:
    return _store().put_if(
        sid, version, data, timeout=timeout, idle_timeout=idle_timeout, principal=principal, label=label
    )


def touch(sid: Id) -> Optional[Session]:
    return _store().touch(sid)


@overload
def renew(
    sid: Id,
    data: Any = NOT_GIVEN,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
    label: MaybeLabel = NOT_GIVEN,
    reauthenticated: bool = False,
    grace: Duration = 0,
    return_session: Literal[False] = False,
) -> Optional[str]: ...


@overload
def renew(
    sid: Id,
    data: Any = NOT_GIVEN,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
    label: MaybeLabel = NOT_GIVEN,
    reauthenticated: bool = False,
    grace: Duration = 0,
    return_session: Literal[True],
) -> Optional[tuple[str, Session]]: ...


def renew(
    sid: Id,
    data: Any = NOT_GIVEN,
    *,
    timeout: MaybeTimeout = NOT_GIVEN,
    idle_timeout: MaybeTimeout = NOT_GIVEN,
    principal: MaybePrincipal = NOT_GIVEN,
    label: MaybeLabel = NOT_GIVEN,
    reauthenticated: bool = False,
    grace: Duration = 0,
    return_session: bool = False,
) -> Any:
    store: Any = _store()  # no overload takes a bool
    return store.renew(
        sid,
        data,
        timeout=timeout,
        idle_timeout=idle_timeout,
        principal=principal,
        label=label,
        reauthenticated=reauthenticated,
        grace=grace,
        return_session=return_session,
    )


def delete(sid: Id) -> bool:
    return _store().delete(sid)


def sweep(max: int = 1000) -> int:
    return _store().sweep(max)


def list(principal: Principal) -> builtins.list[SessionInfo]:
    return _store().list(principal)


def revoke(principal: Principal, *, except_sid: Optional[Id] = None) -> int:
    return _store().revoke(principal, except_sid=except_sid)


def ref(sid: Id) -> Optional[bytes]:
    return _store().ref(sid)


def delete_ref(ref: bytes, *, principal: Optional[Principal] = None) -> bool:
    return _store().delete_ref(ref, principal=principal)


def touch_ref(ref: bytes, *, peek: bool = False) -> Optional[Session]:
    return _store().touch_ref(ref, peek=peek)


def revoke_all() -> int:
    return _store().revoke_all()


def stats() -> Stats:
    return _store().stats()


def may_block() -> Blocking:
    return _store().may_block()


def advance_clock(seconds: Duration) -> None:
    _store().advance_clock(seconds)
