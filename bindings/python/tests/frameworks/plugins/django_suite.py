"""Settings and a test runner for Django's own tests, with sessions in a store.

The sessions_tests also run their engine-independent tests on this engine's class, as Django does
for each of its own.
"""

from __future__ import annotations

import os
import unittest
from importlib import import_module
from typing import Any

from django.test import SimpleTestCase
from django.test.runner import DiscoverRunner
from test_sqlite import *  # noqa: F403 - the settings of Django's tests

SESSION_ENGINE = "session_server_store.django"
SESSION_SERVER_STORE_URL = os.environ["SSS_SUITE_URL"]
TEST_RUNNER = "django_suite.Runner"

EXCLUDED = {
    ("sessions_tests.tests", "SessionMiddlewareTests", "test_empty_session_saved"): (
        "looks the session up in the table of Django's database engine"
    ),
    # Since Django 6.1.
    ("auth_tests.test_middleware", "TestLoginRequiredMiddleware", "test_protected_view_logged_in_performance"): (
        "counts the query of Django's database engine"
    ),
}


class Runner(DiscoverRunner):
    """Adapts the module of the session tests before they are collected."""

    def build_suite(self, *args: Any, **kwargs: Any) -> Any:
        from sessions_tests import tests

        from session_server_store.django import SessionMiddleware, SessionStore

        class StoreSessionTests(tests.SessionTestsMixin, SimpleTestCase):
            backend = SessionStore

        StoreSessionTests.__module__ = tests.__name__
        StoreSessionTests.__qualname__ = StoreSessionTests.__name__
        tests.StoreSessionTests = StoreSessionTests
        tests.SessionMiddleware = SessionMiddleware
        for (module, name, method), reason in EXCLUDED.items():
            case = getattr(import_module(module), name, None)
            if hasattr(case, method):
                setattr(case, method, unittest.skip(reason)(lambda self: None))
        return super().build_suite(*args, **kwargs)
