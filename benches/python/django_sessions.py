"""Reads and writes one session: Django's database sessions on SQLite beside ``Store`` on ``lmdb:`` and ``memory:``.

Prints facts, one per line. The stores take turns in one process; a figure is the median over the rounds. SQLite runs
with ``synchronous=OFF``, because ``lmdb:`` with ``durability=process`` does not wait for the disk either.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import django
from django.conf import settings
from session_server_store import Store

BATCH = 64

Runner = Callable[[str], object]


def session_of(number: int) -> dict[str, Any]:
    """About 256 bytes of JSON: a login, a CSRF token and a small cart."""
    return {
        "_auth_user_id": str(number),
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "csrf_token": f"{number:064x}",
        "cart": [{"sku": f"SKU-{number + line}", "quantity": line} for line in range(2)],
    }


def set_up_django(directory: Path) -> None:
    settings.configure(
        SECRET_KEY="benchmark",
        INSTALLED_APPS=["django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.db",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "sessions.sqlite3"}},
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous=OFF")


def fill_django(count: int) -> list[str]:
    from django.contrib.sessions.backends.db import SessionStore
    from django.utils import timezone

    model = SessionStore.get_model_class()
    expires = timezone.now() + timedelta(hours=3)
    encode = SessionStore().encode
    keys = [f"{number:032x}" for number in random.sample(range(1 << 62), count)]
    rows = [
        model(session_key=key, session_data=encode(session_of(i)), expire_date=expires) for i, key in enumerate(keys)
    ]
    model.objects.bulk_create(rows, batch_size=500)
    return keys


def django_read(key: str) -> object:
    from django.contrib.sessions.backends.db import SessionStore

    return SessionStore(key)["_auth_user_id"]


def django_write(key: str) -> object:
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore(key)
    session["seen"] = 1
    return session.save()


def reader(store: Store) -> Runner:
    def read(sid: str) -> object:
        session = store.get(sid)
        assert session is not None
        return session.payload["_auth_user_id"]

    return read


def writer(store: Store) -> Runner:
    def write(sid: str) -> object:
        session = store.get(sid)
        assert session is not None
        session.payload["seen"] = 1
        return store.put(sid, session.payload)

    return write


def nanoseconds_per_call(call: Runner, ids: list[str], batches: int) -> float:
    times = []
    for _ in range(batches):
        batch = random.choices(ids, k=BATCH)
        begun = time.perf_counter_ns()
        for sid in batch:
            call(sid)
        times.append((time.perf_counter_ns() - begun) / BATCH)
    return median(times)


def fact(name: str, values: list[float]) -> None:
    print(f"{name}\t{median(values)}\n{name}.min\t{min(values)}\n{name}.max\t{max(values)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    count, rounds, batches = (5_000, 7, 10) if quick else (50_000, 11, 40)
    random.seed(1)
    with tempfile.TemporaryDirectory() as scratch:
        set_up_django(Path(scratch))
        keys = fill_django(count)
        runners: dict[str, tuple[Runner, list[str]]] = {
            "django_read": (django_read, keys),
            "django_write": (django_write, keys),
        }
        for name, url in [
            ("lmdb", f"lmdb:{scratch}/sessions?idle_timeout=3h&max_bytes=128MiB"),
            ("memory", "memory:?idle_timeout=3h"),
        ]:
            store = Store(url)
            ids = [store.create(session_of(i)) for i in range(count)]
            runners[f"{name}_read"] = (reader(store), ids)
            runners[f"{name}_write"] = (writer(store), ids)
        if len({runners[name][0](runners[name][1][7]) for name in runners if name.endswith("_read")}) != 1:
            sys.exit("the stores do not hold the same sessions")

        times: dict[str, list[float]] = {name: [] for name in runners}
        for call, ids in runners.values():
            nanoseconds_per_call(call, ids, 3)
        for _ in range(rounds):
            for name, (call, ids) in runners.items():
                times[name].append(nanoseconds_per_call(call, ids, batches))
    for name, values in times.items():
        fact(f"django.{name}_ns", values)
    for step in ["read", "write"]:
        for engine in ["lmdb", "memory"]:
            pairs = zip(times[f"django_{step}"], times[f"{engine}_{step}"])
            fact(f"django.{engine}_{step}_times", [other / own for other, own in pairs])


if __name__ == "__main__":
    main()
