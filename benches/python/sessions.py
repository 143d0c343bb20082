"""B1 and B2: ``Store.get`` in Python, beside ``cachetools.TTLCache`` with a lock, and beside a busy thread.

Prints facts, one per line. The stores take turns in one process; medians over the rounds.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import cachetools
from session_server_store import RAW, Store

PAYLOAD = 256
BATCH = 256


class LockedTTLCache:
    """What the documentation of cachetools recommends for several threads."""

    def __init__(self, size: int) -> None:
        self.cache = cachetools.TTLCache(maxsize=size, ttl=3600)
        self.lock = threading.Lock()

    def get(self, sid: str) -> bytes | None:
        with self.lock:
            return self.cache.get(sid)

    def get_and_slide(self, sid: str) -> bytes | None:
        """A TTLCache has no idle timeout: setting the value again is how to get one."""
        with self.lock:
            value = self.cache.get(sid)
            if value is not None:
                self.cache[sid] = value
            return value


def nanoseconds_per_call(get: Callable[[str], object], ids: list[str], batches: int) -> float:
    times = []
    for _ in range(batches):
        batch = random.choices(ids, k=BATCH)
        begun = time.perf_counter_ns()
        for sid in batch:
            get(sid)
        times.append((time.perf_counter_ns() - begun) / BATCH)
    return median(times)


def millions_per_second(get: Callable[[str], object], ids: list[str], seconds: float) -> float:
    batch = random.choices(ids, k=BATCH)
    calls, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        for sid in batch:
            get(sid)
        calls += BATCH
    return calls / spent / 1e6


@contextmanager
def busy_thread() -> Iterator[None]:
    """Another thread that computes and never waits, as a template engine does."""
    stop = threading.Event()

    def compute() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number = (number * 31 + 7) % 1000003

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def fact(name: str, values: list[float]) -> None:
    print(f"{name}\t{median(values)}\n{name}.min\t{min(values)}\n{name}.max\t{max(values)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, rounds, batches, seconds = (20_000, 7, 40, 0.2) if quick else (100_000, 11, 150, 1.0)

    random.seed(1)
    store = Store("memory:?idle_timeout=1h", serializer=RAW)
    cached = LockedTTLCache(n)
    ids = []
    for i in range(n):
        payload = i.to_bytes(8, "little") * (PAYLOAD // 8)
        sid = store.create(payload)
        cached.cache[sid] = payload
        ids.append(sid)
    session = store.get(ids[7])
    if session is None or session.payload != cached.get(ids[7]):
        sys.exit("the stores do not hold the same sessions")

    runners = {"sss": store.get, "ttlcache": cached.get, "ttlcache_slide": cached.get_and_slide}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for get in runners.values():
        nanoseconds_per_call(get, ids, 10)
    for _ in range(rounds):
        for name, get in runners.items():
            times[name].append(nanoseconds_per_call(get, ids, batches))
    for name, values in times.items():
        fact(f"b1.{name}_ns", values)
    fact("b1.ratio", [sss / other for sss, other in zip(times["sss"], times["ttlcache"])])
    fact("b1.ratio_slide", [sss / other for sss, other in zip(times["sss"], times["ttlcache_slide"])])

    quiet, busy = [], []
    for _ in range(7):
        quiet.append(millions_per_second(store.get, ids, seconds))
        with busy_thread():
            busy.append(millions_per_second(store.get, ids, seconds))
    fact("b2.quiet_mops", quiet)
    fact("b2.busy_mops", busy)
    fact("b2.ratio", [b / q for b, q in zip(busy, quiet)])


if __name__ == "__main__":
    main()
