"""gunicorn and uWSGI with four workers each, in the ways they are run, on one `lmdb:` store: what one worker does to a
session holds for all of them. And on `memory:`, which cannot be shared: nobody is logged out at random."""

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
        assert "session store:" not in server.said


def test_a_login_on_one_worker_is_a_login_on_all(server: Server) -> None:
    for worker in server.each():
        sid = worker.log_in()
        for other in server.each():
            answer = other.get("/devices", sid)
            assert (answer.status, answer.cookie) == (200, "")


def test_the_id_of_before_a_login_is_dead_on_all(server: Server) -> None:
    for worker in server.each():
        planted = worker.get("/visits").sid
        sid = worker.log_in(sid=planted)
        for other in server.each():
            assert "You have no session" in other.get("/", planted).body
            assert "Hello, alice" in other.get("/", sid).body


def test_a_logout_on_one_worker_is_a_logout_on_all(server: Server) -> None:
    first, *_, last = server.each()
    for worker in (first, last):
        sid = server.site.log_in()
        assert worker.post("/logout", sid, worker.get("/", sid).csrf).location == "/"
        for other in server.each():
            assert other.get("/devices", sid).location == "/login"
            assert "You have no session" in other.get("/", sid).body


def test_log_out_my_other_devices_on_one_worker_ends_them_on_all(server: Server) -> None:
    first, *others = server.each()
    laptop = first.log_in("bob", "yellow-submarine")
    devices = [worker.log_in("bob", "yellow-submarine") for worker in others]
    assert first.post("/devices/end-others", laptop, first.get("/", laptop).csrf).location == "/devices"
    for worker in server.each():
        assert [worker.get("/devices", sid).location for sid in devices] == ["/login"] * len(devices)
        assert len(worker.get("/devices", laptop).refs) == 1


def test_visits_to_all_workers_at_once_lose_no_count(server: Server) -> None:
    sid = server.site.get("/visits").sid
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.site.get("/visits", sid), range(200)))
    assert Counter(answer.status for answer in answers) == {200: 200}
    assert sorted(answer.visits for answer in answers) == list(range(2, 202))
    assert len({answer.headers["X-Worker"] for answer in answers}) > 1
    assert [worker.get("/visits", sid).visits for worker in server.each()] == [202 + n for n in range(WORKERS)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.opens_before_fork], ids=lambda kind: kind.name)
def test_memory_before_a_fork_says_that_lmdb_is_for_this(kind: Kind) -> None:
    with running(kind, "memory:") as server:
        for worker in server.each():
            answer = worker.get("/visits", "A" * 128)
            assert (answer.status, answer.cookie) == (503, "")
            assert "Nobody was logged out" in answer.body
        complaints = [line for line in server.said.splitlines() if line.startswith("session store: FORKED: ")]
        assert len(complaints) >= WORKERS
        assert all("lmdb:" in line for line in complaints)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_orderly_end_keeps_the_sessions_also_over_a_restart_of_the_machine(kind: Kind) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = f"lmdb:{directory}/store"
        with running(kind, url) as server:
            sid = server.site.log_in()
        start_machine_anew(Path(directory, "store"))
        with Store(url) as store:
            session = store.get(sid)
            assert session is not None
            assert session.payload["user"] == "alice"


def start_machine_anew(store: Path) -> None:
    """state.shm says in which of the machine's lives the store was used last, in the 16 bytes behind the first 8."""
    with (store / "state.shm").open("r+b") as file:
        file.seek(8)
        other = bytes(byte ^ 0xFF for byte in file.read(16))
        file.seek(8)
        file.write(other)
