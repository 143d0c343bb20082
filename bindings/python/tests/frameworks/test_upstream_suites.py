"""The frameworks' own tests, from the sources of the installed versions, on the adapters.

Each exclusion has its reason in the plugin of the framework (plugins/).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from sdists import sources
from temporary_store import TemporaryStore

PLUGINS = Path(__file__).parent / "plugins"
HANG_SECONDS = 500


def run(arguments: list[str], folder: Path, *paths: Path, **environment: str) -> str:
    """Runs Python in a folder of a suite and returns its output. It must succeed."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = [str(PLUGINS), *map(str, paths), *filter(None, inherited)]
    with TemporaryStore() as temporary:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(search),
                "SSS_SUITE_URL": temporary.url("timeout=1000d", "idle_timeout=1000d"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=HANG_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:]
    return done.stdout


def passed(output: str) -> int:
    return sum(map(int, re.findall(r"(\d+) passed", output)))


def test_django() -> None:
    tests = sources("django") / "tests"
    labels = ["sessions_tests", "auth_tests", "messages_tests", "csrf_tests", "test_client", "test_client_regress"]
    # Two forked processes, as Django's parallel test runner has them.
    output = run(["runtests.py", "--settings=django_suite", "--parallel=2", *labels], tests, tests)
    found = re.search(r"Ran (\d+) tests", output)
    assert found
    assert int(found[1]) > 1400


def test_flask() -> None:
    output = run(["-m", "pytest", "-q", "-p", "flask_suite", "tests"], sources("flask"))
    assert passed(output) > 350


def test_starlette() -> None:
    folder = sources("starlette")
    tests = ["tests/middleware/test_session.py", "tests/test_authentication.py"]
    # Older versions of Starlette use names that newer ones of anyio deprecate.
    output = run(["-m", "pytest", "-q", "-W", "ignore::DeprecationWarning", "-p", "starlette_suite", *tests], folder)
    assert passed(output) >= 20


def test_aiohttp_session(tmp_path: Path) -> None:
    # Without its conftest.py, which starts Docker.
    source = sources("aiohttp-session") / "tests"
    for name in ("__init__.py", "typedefs.py", "test_redis_storage.py"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(source / name, tmp_path / "tests")
    output = run(["-m", "pytest", "-q", "-p", "aiohttp_suite", "tests"], tmp_path)
    assert passed(output) >= 10
