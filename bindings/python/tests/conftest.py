"""What the tests share: a store on a manual clock, scripts in new processes, the sum of the conformance run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Callable

import pytest
from place import Place

import session_server_store as sss
from session_server_store import _ffi

Script = Callable[[str], str]


def turn(store: sss.Store, face: str) -> sss.Store:
    """Gives a store the face of an engine that always waits. Then threads really are in the library together."""
    if face == "released":
        store._reading = store._writing = _ffi.RELEASED
        store._get = _ffi.RELEASED.sss_get
        store._put = _ffi.RELEASED.sss_put
    return store


@pytest.fixture(params=["own", "released"])
def store(request: pytest.FixtureRequest) -> Iterator[sss.Store]:
    """Of the engine under test, on a manual clock."""
    with Place() as place, sss.Store(place.url("clock=manual", "timeout=1h", "idle_timeout=10m")) as opened:
        yield turn(opened, request.param)


@pytest.fixture(params=["own", "released"])
def parallel_store(request: pytest.FixtureRequest) -> Iterator[sss.Store]:
    """Of the engine under test, on the clock of the machine, for races."""
    with Place() as place, sss.Store(place.url()) as opened:
        yield turn(opened, request.param)


@pytest.fixture
def script() -> Script:
    """Runs Python code in a new interpreter, which must end well and say nothing on stderr; returns its stdout."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-W", "ignore:.*fork.*:DeprecationWarning", "-c", textwrap.dedent(code)],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
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
