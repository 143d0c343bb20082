"""The adapters under the servers that applications run on, with several workers.

Also a Redis server that is stopped while requests run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from browser import Browser, Response
from hold import HANG_SECONDS
from ports import free_port
from sites import COOKIE, FRAMEWORKS, USER_KEYS, serving

from session_server_store import Store

APPS = Path(__file__).parent / "apps"
BIN = Path(sys.executable).parent
WORKERS = 4

GUNICORN = f"gunicorn --workers {WORKERS} --bind 127.0.0.1:{{port}} served:application"
UWSGI = f"uwsgi --master --processes {WORKERS} --http-socket 127.0.0.1:{{port}} --need-app --die-on-term"
UWSGI += " --disable-logging --module served:application"
ASGI = ("django_asgi", "starlette")
SERVERS = {
    "gunicorn": (GUNICORN, ("django", "flask")),
    "gunicorn --preload": (GUNICORN.replace("--bind", "--preload --bind"), ("django", "flask")),
    "uwsgi": (UWSGI, ("django", "flask")),
    "uvicorn": (
        "uvicorn --workers 2 --port {port} --log-level warning served:application",
        ("django_asgi", "starlette"),
    ),
    "hypercorn": ("hypercorn --workers 2 --bind 127.0.0.1:{port} served:application", ("django_asgi", "starlette")),
}
CASES = [(server, app) for server, (_, apps) in SERVERS.items() for app in apps]
# The engine makes no difference to the server: each way to fork, and each framework.
ON_REDIS = [("gunicorn", "django"), ("gunicorn --preload", "flask"), ("uvicorn", "starlette")]


@contextmanager
def running(server: str, app: str, url: str, *, failure: str = "") -> Iterator[int]:
    """The port of a server. Ends it with SIGTERM, and looks for ``failure`` in its log."""
    port = free_port()
    program, *arguments = SERVERS[server][0].format(port=port).split()
    if not (BIN / program).exists():
        pytest.skip(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="sss-") as scratch:
        log = Path(scratch, "log")
        inherited = os.environ.get("PYTHONPATH", "")
        environment = {
            **os.environ,
            "HOME": scratch,
            "TMPDIR": scratch,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(APPS), inherited))),
            "SITE": app,
            "SESSION_STORE": url,
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(BIN / program), *arguments],
                cwd=scratch,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            wait_until_ready(port, process, log)
            yield port
            process.terminate()
            process.wait(HANG_SECONDS)
            written = log.read_text(errors="replace")
            assert failure in written if failure else "Traceback" not in written, written
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until two workers have answered."""
    end = time.monotonic() + HANG_SECONDS
    seen: set[str] = set()
    browser = Browser(port, COOKIE)
    while len(seen) < 2:
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < end, log.read_text(errors="replace")
        with suppress(OSError):
            seen |= {worker(answer) for answer in parallel(browser, "/plain", 8)}
        time.sleep(0.05)


def worker(response: Response) -> str:
    return str(response.headers["X-Worker"])


def parallel(browser: Browser, path: str, count: int) -> list[Response]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: browser.copy().get(path), range(count)))


@pytest.mark.parametrize(("server", "app"), CASES, ids=[f"{server}, {app}" for server, app in CASES])
def test_workers_share_sessions(server: str, app: str, tmp_path: Path) -> None:
    check_shared_sessions(server, app, f"lmdb:{tmp_path}/store?max_bytes=16MiB&timeout=30d")


@pytest.mark.parametrize(("server", "app"), ON_REDIS, ids=[f"{server}, {app}" for server, app in ON_REDIS])
def test_workers_share_sessions_on_redis(server: str, app: str, redis: tuple[str, subprocess.Popen[bytes]]) -> None:
    check_shared_sessions(server, app, redis[0])


def check_shared_sessions(server: str, app: str, url: str) -> None:
    user_key = USER_KEYS[app.partition("_")[0]]
    with running(server, app, url) as port, Store(url) as store:
        # Whichever worker answers: the session is there after each step.
        visitor = Browser(port, COOKIE)
        assert visitor.post("/set", first="1").status == 200
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: visitor.copy().post("/set", **{f"k{n}": str(n)}), range(40)))
        assert [answer.status for answer in answers] == [200] * 40
        assert visitor.get("/get").json == {"first": "1"} | {f"k{n}": str(n) for n in range(40)}

        planted = visitor.copy()
        visitor.post("/login", user="alice")
        assert all(answer.json[user_key] for answer in parallel(visitor, "/get", 40))
        assert all(answer.json == {} for answer in parallel(planted, "/get", 40))

        # Revoked by another process.
        user = visitor.get("/get").json[user_key]
        assert store.revoke(user) == 1
        assert all(answer.json == {} for answer in parallel(visitor, "/get", 40))

        # Logged out by one worker.
        visitor.post("/login", user="alice")
        thief = visitor.copy()
        visitor.post("/logout")
        assert all(answer.json == {} for answer in parallel(thief, "/get", 40))


def test_memory_store_before_fork_is_an_error() -> None:
    """With --preload, Flask's store belongs to the master: an error, not sessions that get lost."""
    with running("gunicorn --preload", "flask", "memory:", failure="lmdb:") as port:
        response = Browser(port, COOKIE, "A" * 128).get("/get")
        assert (response.status, list(response.cookies)) == (500, [])


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The URL of a Redis server of this test, and its process."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    path = tmp_path / "redis"
    command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + HANG_SECONDS
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        try:
            yield f"redis+unix://{path}?timeout=30d", process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_stalled_redis_is_503_and_then_works(framework: str, redis: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = redis
    with serving(framework, f"{url}&deadline=300ms") as site:
        browser = site.browser()
        browser.post("/set", a="1")
        late = browser.held("/set", late="yes")
        process.send_signal(signal.SIGSTOP)
        # The view has read its session before, and cannot write it now.
        answers = [late.release(), browser.get("/get"), browser.post("/logout"), browser.post("/renew")]
        assert [answer.status for answer in answers] == [503] * 4
        assert [list(answer.cookies) for answer in answers] == [[]] * 4
        # Requests that do not need the store work meanwhile.
        with ThreadPoolExecutor(8) as pool:
            stalled = [pool.submit(browser.copy().get, "/get") for _ in range(8)]
            assert site.browser().get("/plain").status == 200
            assert {answer.result().status for answer in stalled} == {503}
        process.send_signal(signal.SIGCONT)
        end = time.monotonic() + HANG_SECONDS
        while (answer := browser.get("/get")).status == 503 and time.monotonic() < end:
            time.sleep(0.05)
        # The session is still there. The held write may have been in the server's queue.
        assert answer.json in ({"a": "1"}, {"a": "1", "late": "yes"})
