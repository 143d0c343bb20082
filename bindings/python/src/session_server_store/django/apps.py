"""The Django application ``session_server_store.django``: its checks and the template."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from .checks import check_settings


class SessionServerStoreConfig(AppConfig):
    name = "session_server_store.django"
    label = "session_server_store"
    verbose_name = "Session server store"

    def ready(self) -> None:
        checks.register(check_settings, checks.Tags.security)
