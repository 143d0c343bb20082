"""The sessions of a user: list them, end one, end all."""

from __future__ import annotations

from typing import Any, Optional

from django.http import HttpRequest

from .._adapter import Device
from .engine import session_manager


def devices(user: Any, request: Optional[HttpRequest] = None) -> list[Device]:
    """The sessions in which this user is logged in. ``current`` marks that of ``request``."""
    return session_manager().devices(_principal(user), _key(request))


def end_device(user: Any, ref: str) -> bool:
    """Ends the session with this ``Device.ref``. False if it is not one of this user's."""
    return session_manager().end_device(_principal(user), ref)


def revoke(user: Any, *, except_request: Optional[HttpRequest] = None) -> int:
    """Logs the user out everywhere, or everywhere else, and returns how many sessions ended."""
    return session_manager().revoke(_principal(user), except_sid=_key(except_request))


def _principal(user: Any) -> str:
    return str(user.pk)


def _key(request: Optional[HttpRequest]) -> Optional[str]:
    return None if request is None else request.session.session_key
