"""One request's session, read, changed and written: the adapters beside what the frameworks have on Redis.

Flask: Flask-Session on Redis by a Unix socket. Django: its engines ``cache`` and ``cached_db``, on the same Redis.
Prints facts, one per line. The stores take turns in one process; a figure is the median over the rounds. Only the session's
part of a request is timed, not routing or templates.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import django
import flask
from django.conf import settings
from flask_session.redis import RedisSessionInterface
from redis import Redis
from session_server_store.flask import SessionServerStore

BATCH = 16
DATA: dict[str, Any] = {
    "user": "alice",
    "csrf_token": "f" * 64,
    "cart": [{"sku": f"SKU-{line}", "quantity": line} for line in range(4)],
    "seen": 0,
}


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed")
    socket = directory / "redis"
    with subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            while not socket.exists():
                time.sleep(0.01)
            yield str(socket)
        finally:
            process.terminate()


def flask_request(app: flask.Flask) -> Callable[[], object]:
    """One request after another by the same client."""
    interface = app.session_interface
    with app.test_request_context():
        session = interface.open_session(app, flask.request)
        assert session is not None
        session.update(DATA)
        response = app.response_class()
        interface.save_session(app, session, response)
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    context = app.test_request_context(headers={"Cookie": cookie})

    def request() -> object:
        session = interface.open_session(app, context.request)
        assert session is not None
        session["seen"] += 1
        interface.save_session(app, session, app.response_class())
        return session["seen"]

    return request


def flask_app(url: str | None, client: Redis | None = None) -> flask.Flask:
    app = flask.Flask("benchmark")
    if url is not None:
        SessionServerStore(app, url)
    else:
        app.session_interface = RedisSessionInterface(app, client=client)
    return app


def set_up_django(directory: Path, socket: str) -> None:
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "sessions.sqlite3"}},
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"unix://{socket}"}},
        SESSION_SERVER_STORE_URL="memory:",
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous=OFF")


def django_request(engine: type[Any], url: str | None = None) -> Callable[[], object]:
    if url is not None:
        settings.SESSION_SERVER_STORE_URL = url
    session = engine()
    session.update(DATA)
    session.save()
    key = session.session_key

    def request() -> object:
        if url is not None:
            settings.SESSION_SERVER_STORE_URL = url
        session = engine(key)
        session["seen"] += 1
        session.save()
        return session["seen"]

    return request


def nanoseconds_per_call(call: Callable[[], object], batches: int) -> float:
    times = []
    for _ in range(batches):
        begun = time.perf_counter_ns()
        for _ in range(BATCH):
            call()
        times.append((time.perf_counter_ns() - begun) / BATCH)
    return median(times)


def fact(name: str, values: list[float]) -> None:
    print(f"{name}\t{median(values)}\n{name}.min\t{min(values)}\n{name}.max\t{max(values)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    rounds, batches = (5, 20) if parser.parse_args().quick else (11, 200)
    with tempfile.TemporaryDirectory() as scratch, redis_server(Path(scratch)) as socket:
        set_up_django(Path(scratch), socket)
        from django.contrib.sessions.backends import cache, cached_db

        from session_server_store.django import SessionStore

        urls = {
            "memory": "memory:?timeout=1d&idle_timeout=1d",
            "lmdb": f"lmdb:{scratch}/sessions?timeout=1d&idle_timeout=1d&max_bytes=64MiB",
            "redis": f"redis+unix://{socket}?timeout=1d&idle_timeout=1d",
        }
        requests = {f"flask_{name}": flask_request(flask_app(url)) for name, url in urls.items()}
        requests["flask_session"] = flask_request(flask_app(None, Redis(unix_socket_path=socket)))
        requests |= {f"django_{name}": django_request(SessionStore, url) for name, url in urls.items()}
        requests["django_cache"] = django_request(cache.SessionStore)
        requests["django_cached_db"] = django_request(cached_db.SessionStore)

        times: dict[str, list[float]] = {name: [] for name in requests}
        for name, call in requests.items():
            nanoseconds_per_call(call, 3)
        for _ in range(rounds):
            for name, call in requests.items():
                times[name].append(nanoseconds_per_call(call, batches))
    for name, values in times.items():
        fact(f"b3.{name}_ns", values)
    for name in urls:
        pairs = zip(times["flask_session"], times[f"flask_{name}"])
        fact(f"b3.flask_{name}_times", [other / own for other, own in pairs])
        pairs = zip(times["django_cache"], times[f"django_{name}"])
        fact(f"b3.django_{name}_times", [other / own for other, own in pairs])


if __name__ == "__main__":
    main()
