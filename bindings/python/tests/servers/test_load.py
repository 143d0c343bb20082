"""Clients that know the state of their sessions send requests while workers are killed.

No session is lost, no ended session can be read, and every count is exact.
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
from model_client import Client
from server import EACH_WORKER_OPENS, PREFORK, PRELOAD, THREADS, WORKERS, Kind, Server, running

from session_server_store import Store

REQUESTS = {PRELOAD: 1_600, PREFORK: 1_600, THREADS: 800, EACH_WORKER_OPENS: 800}
TORTURE_FACTOR = 10
CLIENTS = 8
REQUESTS_BETWEEN_KILLS = 200
RELOADS = 2


class Killer(threading.Thread):
    """Kills a worker every REQUESTS_BETWEEN_KILLS requests on average, until ``ending`` is set."""

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
            if requests_sent(self.clients) >= due and workers:
                due = requests_sent(self.clients) + self.random.randrange(2 * REQUESTS_BETWEEN_KILLS)
                with suppress(ProcessLookupError):
                    os.kill(self.random.choice(workers), signal.SIGKILL)
                    self.kills += 1


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_sessions_survive_worker_kills(kind: Kind) -> None:
    kill_workers(kind, REQUESTS[kind])


@pytest.mark.torture
@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
def test_sessions_survive_many_worker_kills(kind: Kind) -> None:
    requests = REQUESTS[kind] * TORTURE_FACTOR
    kills, lost = kill_workers(kind, requests)
    assert kills >= requests // 500
    assert lost > 0


def kill_workers(kind: Kind, requests: int) -> tuple[int, int]:
    """Returns how many workers were killed and how many responses were lost."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory:
        url = f"lmdb:{directory}/store?timeout=12h&idle_timeout=1h"
        with running(kind, url) as server:
            # bob is the user of one client only, so this client may log out all his other devices.
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
                        while (
                            not all(future.done() for future in done) and requests_sent(clients) < requests * part // 3
                        ):
                            killer.ending.wait(0.05)
                        server.reload()
                for future in done:
                    future.result()
            finally:
                killer.ending.set()
                killer.join()
            server.wait_until_ready()
            with Store(url) as store:
                check(store, clients)
            assert "session store:" not in server.output
        lost, workers = sum(client.lost for client in clients), set().union(*(client.workers for client in clients))
        sent = requests_sent(clients)
        print(f"{sent} requests, {killer.kills} kills, {len(workers)} workers, {lost} responses lost")
        assert sent >= requests
        assert killer.kills > 0
        assert len(workers) > WORKERS
        return killer.kills, lost


def requests_sent(clients: list[Client]) -> int:
    return sum(client.answered + client.lost for client in clients)


def check(store: Store, clients: list[Client]) -> None:
    """Compares the store with what the clients expect."""
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
