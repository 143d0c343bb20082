"""Thousands of requests of clients that know what their sessions must be, while workers are killed and replaced.

No session is lost, none comes back, and every count is exact: to the clients, and at the end in the store itself.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from client import Client
from server import EACH_WORKER_OPENS, PREFORK, PRELOAD, THREADS, WORKERS, Kind, Server, running

from session_server_store import Store

REQUESTS = {PRELOAD: 10_000, PREFORK: 10_000, THREADS: 3_000, EACH_WORKER_OPENS: 3_000}
CLIENTS = 8
REQUESTS_BETWEEN_KILLS = 200
RELOADS = 2


class Killer(threading.Thread):
    """Kills a worker with SIGKILL now and then, as the work goes on, until it is told to end."""

    def __init__(self, server: Server, clients: list[Client], seed: int) -> None:
        super().__init__()
        self.server = server
        self.clients = clients
        self.random = random.Random(seed)
        self.ending = threading.Event()
        self.kills = 0

    def run(self) -> None:
        due = 0
        while not self.ending.wait(self.random.uniform(0, 0.01)):
            workers = self.server.workers()
            if asked(self.clients) >= due and workers:
                due = asked(self.clients) + self.random.randrange(2 * REQUESTS_BETWEEN_KILLS)
                with suppress(ProcessLookupError):
                    os.kill(self.random.choice(workers), signal.SIGKILL)
                    self.kills += 1


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_no_session_is_lost_and_none_comes_back(kind: Kind) -> None:
    requests = REQUESTS[kind]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory:
        url = f"lmdb:{directory}/store?timeout=12h&idle_timeout=1h"
        with running(kind, url) as server:
            # bob alone is one person, who may log out all other devices.
            users = ["bob"] + ["alice"] * (CLIENTS - 1)
            clients = [
                Client(server.site, user, seed + number, is_alone=number == 0) for number, user in enumerate(users)
            ]
            killer = Killer(server, clients, seed)
            killer.start()
            try:
                with ThreadPoolExecutor(CLIENTS) as pool:
                    done = [pool.submit(client.work, requests // CLIENTS) for client in clients]
                    for part in range(1, RELOADS + 1):
                        while not all(future.done() for future in done) and asked(clients) < requests * part // 3:
                            killer.ending.wait(0.05)
                        server.process.send_signal(signal.SIGHUP)
                for future in done:
                    future.result()
            finally:
                killer.ending.set()
                killer.join()
            server.wait_until_ready()
            with Store(url) as store:
                check(store, clients)
            assert "session store:" not in server.said
        lost, workers = sum(client.lost for client in clients), set().union(*(client.workers for client in clients))
        print(f"{asked(clients)} requests, {killer.kills} kills, {len(workers)} workers, {lost} answers lost")
        assert asked(clients) >= requests
        assert killer.kills >= requests // 500
        assert len(workers) > WORKERS + killer.kills // 2
        assert lost > 0


def asked(clients: list[Client]) -> int:
    return sum(client.answered + client.lost for client in clients)


def check(store: Store, clients: list[Client]) -> None:
    """The store, as one more process sees it."""
    living = [device for client in clients for device in client.living]
    for device in living:
        session = store.get(device.sid, peek=True)
        assert session is not None
        assert (session.version, session.payload["visits"]) == (device.version, device.visits)
        assert session.payload.get("user") == device.user
    for client in clients:
        for sid in client.dead:
            assert store.get(sid, peek=True) is None
    stats = store.stats()
    unknown = sum(client.unknown for client in clients)
    assert len(living) <= stats.sessions <= len(living) + unknown
    assert (stats.errors, stats.rejected, stats.expired) == (0, 0, 0)
    for user in ("alice", "bob"):
        known = sum(device.user == user for device in living)
        unknown = sum(client.unknown_of_user for client in clients if client.user == user)
        assert known <= len(store.list(user)) <= known + unknown
