"""gunicorn and uWSGI with four workers on one `lmdb:` store: a change by one takes effect on all.

On `memory:`, which cannot be shared, every request fails instead of losing sessions.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import KINDS, WORKERS, Kind, Server, running

from session_server_store import Store


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory, running(request.param, f"lmdb:{directory}/store") as server:
        yield server
        assert "session store:" not in server.output


def test_login_takes_effect_on_all_workers(server: Server) -> None:
    for worker in server.each():
        sid = worker.log_in()
        for other in server.each():
            answer = other.get("/devices", sid)
            assert (answer.status, answer.cookie) == (200, "")


def test_id_before_login_ends_on_all_workers(server: Server) -> None:
    for worker in server.each():
        planted = worker.get("/visits").sid
        sid = worker.log_in(sid=planted)
        for other in server.each():
            assert "You have no session" in other.get("/", planted).body
            assert "Hello, alice" in other.get("/", sid).body


def test_logout_takes_effect_on_all_workers(server: Server) -> None:
    first, *_, last = server.each()
    for worker in (first, last):
        sid = server.site.log_in()
        assert worker.post("/logout", sid, worker.get("/", sid).csrf).location == "/"
        for other in server.each():
            assert other.get("/devices", sid).location == "/login"
            assert "You have no session" in other.get("/", sid).body


def test_ending_other_devices_takes_effect_on_all_workers(server: Server) -> None:
    first, *others = server.each()
    laptop = first.log_in("bob", "yellow-submarine")
    devices = [worker.log_in("bob", "yellow-submarine") for worker in others]
    assert first.post("/devices/end-others", laptop, first.get("/", laptop).csrf).location == "/devices"
    for worker in server.each():
        assert [worker.get("/devices", sid).location for sid in devices] == ["/login"] * len(devices)
        assert len(worker.get("/devices", laptop).refs) == 1


def test_concurrent_visits_to_all_workers_are_counted(server: Server) -> None:
    sid = server.site.get("/visits").sid
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.site.get("/visits", sid), range(200)))
    assert Counter(answer.status for answer in answers) == {200: 200}
    assert sorted(answer.visits for answer in answers) == list(range(2, 202))
    assert len({answer.headers["X-Worker"] for answer in answers}) > 1
    assert [worker.get("/visits", sid).visits for worker in server.each()] == [202 + n for n in range(WORKERS)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.opens_before_fork], ids=lambda kind: kind.name)
def test_memory_store_before_fork_recommends_lmdb(kind: Kind) -> None:
    with running(kind, "memory:") as server:
        for worker in server.each():
            answer = worker.get("/visits", "A" * 128)
            assert (answer.status, answer.cookie) == (503, "")
            assert "You are not logged out" in answer.body
        complaints = [line for line in server.output.splitlines() if line.startswith("session store: FORKED: ")]
        assert len(complaints) >= WORKERS
        assert all("lmdb:" in line for line in complaints)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_sessions_survive_reboot_after_clean_shutdown(kind: Kind) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = f"lmdb:{directory}/store"
        with running(kind, url) as server:
            sid = server.site.log_in()
        simulate_reboot(Path(directory, "store"))
        with Store(url) as store:
            session = store.get(sid)
            assert session is not None
            assert session.payload["user"] == "alice"


def simulate_reboot(store: Path) -> None:
    """Changes the boot id in state.shm: the 16 bytes behind the first 8."""
    with (store / "state.shm").open("r+b") as file:
        file.seek(8)
        other = bytes(byte ^ 0xFF for byte in file.read(16))
        file.seek(8)
        file.write(other)
