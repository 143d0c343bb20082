"""System checks of the settings: ``manage.py check``."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..errors import SessionStoreError
from .engine import CONFLICT_SETTING, URL_SETTING, session_manager
from .middleware import SessionMiddleware

ENGINE = "session_server_store.django"
STOCK_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"


def check_settings(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    if settings.SESSION_ENGINE != ENGINE:
        return []
    found: list[checks.CheckMessage] = []
    url = getattr(settings, URL_SETTING, None)
    if not url:
        hint = "For example lmdb:/var/lib/app/sessions?timeout=14d."
        found.append(checks.Error(f"{URL_SETTING} is not set.", hint, id="session_server_store.E001"))
    else:
        try:
            session_manager()
        except (SessionStoreError, ImproperlyConfigured, TypeError, ValueError) as error:
            # Only the URL and the conflict setting are read, and no message has a password.
            found.append(
                checks.Error(
                    f"{URL_SETTING} or {CONFLICT_SETTING} is wrong, or the store cannot be opened: {error}",
                    id="session_server_store.E002",
                )
            )
        if str(url).startswith("memory:") and not settings.DEBUG:
            found.append(
                checks.Warning(
                    "Sessions are in the memory of one process, and DEBUG is False.",
                    "With several worker processes, use lmdb:/dir; with several hosts, redis://host.",
                    id="session_server_store.W001",
                )
            )
        if "idle_timeout=" in str(url):
            found.append(
                checks.Warning(
                    f"idle_timeout in {URL_SETTING} has no effect.",
                    "SESSION_COOKIE_AGE and set_expiry() are the idle timeout.",
                    id="session_server_store.W003",
                )
            )
    if STOCK_MIDDLEWARE in settings.MIDDLEWARE and not _has_own_middleware():
        found.append(
            checks.Warning(
                f"{STOCK_MIDDLEWARE} turns a store that cannot answer into a 500 and deletes cookies.",
                f"Use {ENGINE}.SessionMiddleware in its place.",
                id="session_server_store.W002",
            )
        )
    return found


def _has_own_middleware() -> bool:
    for path in settings.MIDDLEWARE:
        loaded = import_string(path)
        if isinstance(loaded, type) and issubclass(loaded, SessionMiddleware):
            return True
    return False
