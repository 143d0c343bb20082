"""A plugin for Starlette's own tests: its ``SessionMiddleware`` is that of the adapter."""

from __future__ import annotations

import os
from typing import Any

import starlette.middleware.sessions

from session_server_store.starlette import SessionMiddleware


class StoreMiddleware(SessionMiddleware):
    def __init__(self, app: Any, secret_key: str, **options: Any) -> None:
        options.setdefault("https_only", False)  # Starlette's default, for its client uses http
        super().__init__(app, os.environ["SSS_SUITE_URL"], **options)


starlette.middleware.sessions.SessionMiddleware = StoreMiddleware  # type: ignore[assignment,misc]
