"""Django sessions in a store.

    SESSION_ENGINE = "session_server_store.django"
    SESSION_SERVER_STORE_URL = "lmdb:/var/lib/app/sessions?timeout=14d"
    MIDDLEWARE = [..., "session_server_store.django.SessionMiddleware", ...]  # instead of Django's
    INSTALLED_APPS = [..., "session_server_store.django"]  # system checks and the page of devices

docs/django.md has the rest.
"""

from .devices import devices as devices
from .devices import end_device as end_device
from .devices import revoke as revoke
from .engine import SessionStore as SessionStore
from .middleware import SessionMiddleware as SessionMiddleware

__all__ = ["SessionMiddleware", "SessionStore", "devices", "end_device", "revoke"]
