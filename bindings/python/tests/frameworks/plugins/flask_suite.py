"""A plugin for Flask's own tests: every application has its sessions in a store."""

from __future__ import annotations

import os

import _pytest.monkeypatch
import flask
import pytest

from session_server_store._adapter import SessionManager
from session_server_store.flask import FLASK_LOGIN_KEY, ServerSessionInterface, TaggedJson

EXCLUDED = {
    "tests/test_basic.py::test_missing_session": "a store needs no secret key",
    "tests/test_basic.py::test_session_secret_key_fallbacks": "a store needs no secret key",
    "tests/test_testing.py::test_session_transactions_no_null_sessions": "a store needs no secret key",
    "tests/test_reqctx.py::test_bad_environ_raises_bad_request": "fails with Flask's own sessions too",
    # Flask 2.3
    "tests/test_cli.py::test_no_command_echo_loading_error": "fails with this click too",
    "tests/test_cli.py::test_help_echo_loading_error": "fails with this click too",
    "tests/test_cli.py::test_help_echo_exception": "fails with this click too",
}

manager = SessionManager(os.environ["SSS_SUITE_URL"], serializer=TaggedJson(), principal_key=FLASK_LOGIN_KEY)
# The name that Flask's tests use for what newer pytests call NOTSET.
if not hasattr(_pytest.monkeypatch, "notset"):
    _pytest.monkeypatch.notset = _pytest.monkeypatch.NOTSET  # type: ignore[attr-defined]
flask.Flask.session_interface = ServerSessionInterface(manager, secure=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid in EXCLUDED:
            item.add_marker(pytest.mark.skip(reason=EXCLUDED[item.nodeid]))
