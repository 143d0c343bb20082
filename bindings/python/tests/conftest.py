"""Fixtures of all tests, and the summary of the conformance scenarios."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Callable

import pytest
from temporary_store import TemporaryStore

from session_server_store import Store, _ffi

Script = Callable[[str], str]

HANG_SECONDS = 60


def release_gil(store: Store) -> Store:
    """Makes every call release the interpreter lock, so that calls of threads overlap."""
    store._read_lib = store._write_lib = _ffi.LIB_NOGIL
    store._get = _ffi.LIB_NOGIL.sss_get
    store._put = _ffi.LIB_NOGIL.sss_put
    return store


@pytest.fixture
def store() -> Iterator[Store]:
    """A store of the engine under test, on a manual clock."""
    options = ("clock=manual", "timeout=1h", "idle_timeout=10m")
    with TemporaryStore() as temporary, Store(temporary.url(*options)) as opened:
        yield opened


@pytest.fixture(params=["own libs", "nogil"])
def parallel_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store of the engine under test, on the system's clock, for tests with threads."""
    with TemporaryStore() as temporary, Store(temporary.url()) as opened:
        yield opened if request.param == "own libs" else release_gil(opened)


@pytest.fixture
def script() -> Script:
    """Runs Python code in a new interpreter and returns its stdout.

    The interpreter must exit with 0 and write nothing to stderr.
    """

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore:.*fork.*:DeprecationWarning", "-c", textwrap.dedent(code)],
            capture_output=True,
            encoding="utf-8",
            timeout=HANG_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr or f"exit code {done.returncode}"
        return done.stdout

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = not_applicable = 0
    reasons: Counter[str] = Counter()
    for outcome in ("passed", "skipped"):
        for report in terminalreporter.getreports(outcome):
            if "::test_scenario[" not in report.nodeid or (outcome == "passed" and report.when != "call"):
                continue
            if outcome == "passed":
                passed += 1
            else:
                not_applicable += 1
                reasons[report.longrepr[2].partition("not applicable: ")[2]] += 1
    if passed or not_applicable:
        why = "; ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        terminalreporter.write_line(f"conformance: {passed} scenarios passed, {not_applicable} not applicable ({why})")
