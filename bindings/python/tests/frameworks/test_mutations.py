"""Adapters that are wrong on purpose: each fails a test of the suite.

A copy of the package has one place of its source changed; the named test must fail on it. These
runs take minutes, so they belong to ``make torture``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hold import HANG_SECONDS
from temporary_store import ENGINE

import session_server_store

HERE = Path(__file__).parent
PACKAGE = Path(session_server_store.__file__).parent

pytestmark = pytest.mark.skipif(ENGINE != "memory", reason="the mutations do not depend on the engine")


@dataclass(frozen=True)
class Mutation:
    file: str
    old: str
    new: str
    test: str

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())[:60]}"


ADAPTERS = "test_adapters.py::"
MUTATIONS = [
    # Ids.
    Mutation(
        "_adapter.py",
        "if session is not None:\n                data",
        "if True:\n                data",
        ADAPTERS + "test_unknown_id_is_not_adopted",
    ),
    Mutation(
        "_adapter.py",
        "[sid for sid in sids if sid][:_MAX_SIDS]",
        "[sid for sid in sids if sid][:1]",
        ADAPTERS + "test_ended_id_does_not_hide_living_one",
    ),
    Mutation(
        "_adapter.py",
        "for sid in sids]  # all of them",
        "for sid in [self.sids[0]]]  # all of them",
        ADAPTERS + "test_logout_ends_all_sessions_of_browser",
    ),
    Mutation(
        "_adapter.py",
        "if renewal is not None or self.principal(data) != stored.principal:",
        "if renewal is not None:",
        ADAPTERS + "test_login_gives_new_id",
    ),
    Mutation(
        "_adapter.py",
        "principal=owner,\n                    label=label() if has_owner",
        "principal=NOT_GIVEN,\n                    label=label() if False",
        ADAPTERS + "test_login_sets_principal",
    ),
    # Writes.
    Mutation(
        "_adapter.py",
        'if self.conflict == "last":\n            written',
        "if True:\n            written",
        ADAPTERS + "test_parallel_keys_are_all_kept",
    ),
    Mutation(
        "_adapter.py",
        'if self.conflict == "last":\n            written',
        "if False:\n            written",
        ADAPTERS + "test_conflict_last_overwrites",
    ),
    Mutation(
        "_adapter.py",
        'if self.conflict == "error":\n                    raise\n',
        "if False:\n                    raise\n",
        ADAPTERS + "test_conflict_error_is_409",
    ),
    Mutation("_adapter.py", "if key not in removed}", "}", ADAPTERS + "test_parallel_set_and_remove_are_both_kept"),
    Mutation(
        "_adapter.py",
        "if key not in base or not _same(base[key], value)}",
        "}",
        ADAPTERS + "test_stale_value_is_not_written_back",
    ),
    Mutation(
        "_adapter.py",
        "if current.version != stored.version:\n                    stored = self._merge(stored, data)",
        "pass",
        ADAPTERS + "test_parallel_write_survives_login",
    ),
    Mutation(
        "_adapter.py", "if payload == stored.payload:", "if False:", "test_django.py::test_save_every_request_touches"
    ),
    # Ended sessions.
    Mutation(
        "_adapter.py",
        "except SessionEnded:\n            logger.info("
        '"the session has ended during the request; its changes are dropped")\n            return "keep"',
        "except SessionEnded:\n            self.stored = self.manager.create(data, idle_timeout=idle_timeout)",
        ADAPTERS + "test_late_write_does_not_revive_session",
    ),
    Mutation(
        "_adapter.py",
        "if stored.principal is not None or not has_owner:\n                raise",
        "pass",
        ADAPTERS + "test_user_change_on_ended_session_is_dropped",
    ),
    Mutation(
        "_adapter.py",
        "_replace(data, changed)\n            return",
        "return",
        ADAPTERS + "test_login_on_ended_session_has_only_new_data",
    ),
    Mutation(
        "_adapter.py",
        'return "delete" if self.stored is not None and self.end() else "keep"',
        'self.end()\n            return "delete"',
        ADAPTERS + "test_late_answer_leaves_cookie_of_parallel_login",
    ),
    # Devices.
    Mutation(
        "_adapter.py",
        "self._raw.delete_ref(reference, principal=principal)",
        "self._raw.delete_ref(reference)",
        ADAPTERS + "test_end_device_of_another_user_is_refused",
    ),
    Mutation("_adapter.py", "current=info.ref == this", "current=False", ADAPTERS + "test_devices_mark_this_one"),
    Mutation(
        "_adapter.py", "except_sid=except_sid)", "except_sid=None)", ADAPTERS + "test_end_others_keeps_this_device"
    ),
    Mutation(
        "_adapter.py", "label=None if owner is None else label()", "label=None", ADAPTERS + "test_devices_have_labels"
    ),
    # Failures.
    Mutation("_adapter.py", "return 503", "return None", ADAPTERS + "test_unreachable_store_is_503"),
    # Django.
    Mutation(
        "django/engine.py",
        "data.clear()\n            self.create()",
        "self.create()",
        ADAPTERS + "test_renew_of_ended_session_brings_no_data_back",
    ),
    Mutation(
        "django/engine.py",
        "self.flushed = any(ended) or not keys",
        "self.flushed = True",
        ADAPTERS + "test_late_answer_leaves_cookie_of_parallel_login",
    ),
    Mutation(
        "django/engine.py",
        "except SessionEnded:\n            raise UpdateError from None",
        "except SessionEnded:\n            self.create()",
        ADAPTERS + "test_late_write_does_not_revive_session",
    ),
    Mutation(
        "django/engine.py",
        "if found is not None and _has_expired(found[1]):",
        "if False:",
        "test_django.py::test_set_expiry_as_date_is_not_moved_by_reads",
    ),
    Mutation(
        "django/engine.py",
        'and url.startswith("memory:") and multiprocessing.parent_process()',
        "and False",
        "test_django.py::test_memory_store_in_process_of_parallel_test_runner",
    ),
    Mutation(
        "django/engine.py",
        "self._renewal = Renewal(principal, reauthenticated)",
        "pass",
        "test_django.py::test_second_login_of_same_user_keeps_key",
    ),
    Mutation(
        "django/middleware.py",
        "if session.flushed and name in request.COOKIES:",
        "if name in request.COOKIES:",
        ADAPTERS + "test_unknown_cookie_survives_read",
    ),
    Mutation(
        "django/middleware.py",
        "if not failed or session.has_new_key:",
        "if not failed:",
        "test_django.py::test_rotated_id_reaches_client_with_error_page",
    ),
    Mutation(
        "django/middleware.py",
        "return unavailable(session.failure) if response.status_code == 500 else response",
        "return response",
        "test_django.py::test_failure_in_another_middleware_is_503",
    ),
    Mutation(
        "django/middleware.py",
        "return not settings.DEBUG or",
        "return",
        "test_django.py::test_secure_by_default_outside_debug",
    ),
    # Flask.
    Mutation(
        "flask.py",
        "return ServerSession(RequestSession(self.manager, sids, partial(label, request)))",
        "opened = ServerSession(RequestSession(self.manager, sids, partial(label, request)))"
        "\n        opened._load()\n        return opened",
        "test_flask.py::test_nothing_is_read_before_the_view_needs_it",
    ),
    Mutation(
        "flask.py", "response.headers.clear()", "pass", "test_flask.py::test_failed_save_replaces_redirect_and_stream"
    ),
    Mutation(
        "flask.py",
        "return not app.debug if self.secure is None else self.secure",
        "return False",
        ADAPTERS + "test_cookie_attributes",
    ),
    # Starlette.
    Mutation(
        "starlette.py",
        "if not blocks:\n        return function(*args)",
        "if True:\n        return function(*args)",
        "test_starlette.py::test_event_loop_runs_while_store_is_slow",
    ),
    Mutation(
        "starlette.py",
        "if not blocks:\n        return function(*args)",
        "",
        "test_starlette.py::test_store_that_cannot_block_uses_no_thread",
    ),
    Mutation("starlette.py", "self.refused = True", "pass", "test_starlette.py::test_refused_response_is_sent_once"),
    Mutation("starlette.py", 'headers.add_vary_header("Cookie")', "pass", ADAPTERS + "test_vary_where_session_is_used"),
    Mutation(
        "starlette.py",
        "await responder.finish_websocket()\n\n",
        "pass\n\n",
        "test_starlette.py::test_websocket_reads_and_writes_session",
    ),
    # aiohttp.
    Mutation(
        "aiohttp.py",
        "await self._answer(self.manager.writes_block, self.manager.delete, sid)",
        "pass",
        "test_aiohttp.py::test_new_session_ends_the_one_before",
    ),
    Mutation(
        "aiohttp.py", "raise refusal(", "raise web.HTTPInternalServerError(", ADAPTERS + "test_unreachable_store_is_503"
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_has_its_place(mutation: Mutation) -> None:
    assert (PACKAGE / mutation.file).read_text("utf-8").count(mutation.old) == 1
    file, _, test = mutation.test.partition("::")
    assert f"\ndef {test}(" in (HERE / file).read_text("utf-8")


@pytest.mark.torture
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_is_caught(mutation: Mutation, tmp_path: Path) -> None:
    package = tmp_path / "session_server_store"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    source = (package / mutation.file).read_text("utf-8")
    (package / mutation.file).write_text(source.replace(mutation.old, mutation.new), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / mutation.test)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", "")))),
            "SESSION_SERVER_STORE_LIBRARY": session_server_store._ffi.LIBRARY,
        },
        cwd=HERE.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=4 * HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stdout
