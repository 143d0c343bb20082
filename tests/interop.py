"""One lmdb: store, opened at the same time by Python, Elixir and C, which read and write each other's sessions.

Each language has a worker in tests/interop/ that is told what to do, a line at a time, and says what came of it in a
line that begins with "= "; one more process is of Python and C, which take turns. Bytes are in hex, none at all is "-".
It uses what the tests before it have built: target/release, the virtual environment, and the Elixir project.

    open URL                -> ok
    create DATA PRINCIPAL   -> ok ID
    get ID                  -> ok VERSION DATA
    put_if ID VERSION DATA  -> ok VERSION
    renew ID                -> ok NEWID
    delete ID               -> ok
    list PRINCIPAL          -> ok COUNT
    revoke PRINCIPAL        -> ok COUNT
    count ID TIMES          -> "counted" as often as it has added one to the number in the session, then ok

What fails is the name of the status: not_found, conflict.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
WORKERS = ROOT / "tests" / "interop"
RELEASE = ROOT / "target" / "release"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SECONDS = 120

BOTH = ["Python", "C"]
ALICE = b"alice \x00\xff".hex()
PAYLOADS = [
    b"",
    b"\x00",
    bytes(range(256)),
    "Grüße, 世界\r\n".encode(),
    bytes(i * 31 % 251 for i in range(100_003)),
]


class Worker:
    """A process of one language with the store open. Can be killed, and begin again."""

    def __init__(self, languages: list[str], command: list[str], cwd: Path, url: str) -> None:
        self.languages, self.command, self.cwd, self.url = languages, command, cwd, url
        self.begin()

    def begin(self) -> None:
        environment = os.environ | {"MIX_ENV": "test", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        for _ in self.languages:
            assert self.ask("open", self.url) == ["ok"]

    def tell(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> list[str]:
        """The next one; none at all when the process has ended."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("= "):
                return line[2:].split()
        return []

    def ask(self, *words: object) -> list[str]:
        self.tell(*words)
        return self.answer()

    def counted(self, at_most: int = sys.maxsize) -> int:
        """How often it has said so, until it says something else."""
        count = 0
        while count < at_most and self.answer() == ["counted"]:
            count += 1
        return count

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # mix is a script that starts the VM
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()


def hexed(data: bytes) -> str:
    return data.hex() or "-"


def session(worker: Worker, sid: str) -> tuple[int, bytes]:
    status, version, data = worker.ask("get", sid)
    assert status == "ok"
    return int(version), bytes.fromhex(data.replace("-", ""))


def what_one_creates_the_others_read_byte_for_byte(workers: list[Worker]) -> None:
    for writer in workers:
        for payload in PAYLOADS:
            status, sid = writer.ask("create", hexed(payload), ALICE)
            assert status == "ok"
            for reader in workers:
                assert session(reader, sid) == (1, payload)
            assert writer.ask("delete", sid) == ["ok"]


def what_one_writes_over_it_the_others_read_and_nobody_overwrites_unseen(workers: list[Worker]) -> None:
    for creator in workers:
        _, sid = creator.ask("create", hexed(b"first"), ALICE)
        for version, writer in enumerate(workers, 1):
            payload = PAYLOADS[version] + str(writer.languages).encode()
            assert writer.ask("put_if", sid, version, hexed(payload)) == ["ok", str(version + 1)]
            for other in workers:
                assert session(other, sid) == (version + 1, payload)
                assert other.ask("put_if", sid, version, hexed(b"late")) == ["conflict"]
        assert creator.ask("delete", sid) == ["ok"]


def an_id_that_one_renewed_or_deleted_is_dead_for_the_others(workers: list[Worker]) -> None:
    for creator in workers:
        for renewer in workers:
            _, old = creator.ask("create", hexed(b"data"), ALICE)
            status, new = renewer.ask("renew", old)
            assert status == "ok"
            for other in workers:
                assert other.ask("get", old) == ["not_found"]
                assert other.ask("put_if", old, 1, hexed(b"back")) == ["not_found"]
                assert session(other, new) == (1, b"data")
            assert creator.ask("delete", new) == ["ok"]
            for other in workers:
                assert other.ask("get", new) == ["not_found"]
                assert other.ask("delete", new) == ["not_found"]


def all_know_the_sessions_of_a_principal_and_one_ends_them_for_all(workers: list[Worker]) -> None:
    for revoker in workers:
        sids = [worker.ask("create", hexed(b"device"), ALICE)[1] for worker in workers]
        for worker in workers:
            assert worker.ask("list", ALICE) == ["ok", str(len(sids))]
        assert revoker.ask("revoke", ALICE) == ["ok", str(len(sids))]
        for worker in workers:
            assert worker.ask("list", ALICE) == ["ok", "0"]
            for sid in sids:
                assert worker.ask("get", sid) == ["not_found"]


def none_loses_what_another_adds_at_the_same_time(workers: list[Worker]) -> None:
    times = 50
    _, sid = workers[0].ask("create", hexed(b"0"), ALICE)
    for worker in workers:
        worker.tell("count", sid, times)
    for worker in workers:
        assert worker.counted() == times
    total = times * len(workers)
    assert session(workers[0], sid) == (total + 1, b"%d" % total)
    assert workers[0].ask("delete", sid) == ["ok"]


def the_others_go_on_when_one_is_killed_in_the_middle_and_it_can_come_back(workers: list[Worker]) -> None:
    times = 50
    for victim in workers:
        others = [worker for worker in workers if worker is not victim]
        _, sid = others[0].ask("create", hexed(b"0"), ALICE)
        victim.tell("count", sid, 1_000_000)
        for worker in others:
            worker.tell("count", sid, times)
        counted = victim.counted(at_most=20)
        victim.kill()
        counted += victim.counted() + sum(worker.counted() for worker in others)
        # What was acknowledged is there; what was under way may be.
        _, number = session(others[0], sid)
        assert int(number) - counted in (0, 1), f"{number!r} after {counted}"
        victim.begin()
        assert session(victim, sid)[1] == number
        assert victim.ask("count", sid, 1) == ["counted"]
        assert victim.answer() == ["ok"]
        assert session(others[1], sid)[1] == b"%d" % (int(number) + 1)
        assert victim.ask("delete", sid) == ["ok"]


def python_and_c_in_one_process_share_one_library_and_one_environment(workers: list[Worker]) -> None:
    alone, both = (next(worker for worker in workers if worker.languages == which) for which in (["Python"], BOTH))
    libraries, maps = mapped(both, "libsss"), mapped(both, "data.mdb")
    assert len(set(libraries)) == 1, libraries
    assert len(maps) == len(mapped(alone, "data.mdb")) > 0


def mapped(worker: Worker, name: str) -> list[str]:
    lines = Path(f"/proc/{worker.process.pid}/maps").read_text().splitlines()
    return [line.split()[-1] for line in lines if name in line]


TESTS: list[Callable[[list[Worker]], None]] = [
    what_one_creates_the_others_read_byte_for_byte,
    what_one_writes_over_it_the_others_read_and_nobody_overwrites_unseen,
    an_id_that_one_renewed_or_deleted_is_dead_for_the_others,
    all_know_the_sessions_of_a_principal_and_one_ends_them_for_all,
    none_loses_what_another_adds_at_the_same_time,
    python_and_c_in_one_process_share_one_library_and_one_environment,
    the_others_go_on_when_one_is_killed_in_the_middle_and_it_can_come_back,
]


def compiled(scratch: Path, name: str, *flags: str) -> str:
    program = str(scratch / name)
    link = [f"-L{RELEASE}", "-lsss", f"-Wl,-rpath,{RELEASE}"]
    command = ["gcc", *STRICT, *flags, f"-I{ROOT / 'include'}", str(WORKERS / "worker.c"), "-o", program, *link]
    subprocess.run(command, check=True)
    return program


@contextmanager
def workers_on(url: str, scratch: Path) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    # Whatever waits for ever ends then, and with it the wait for its answer.
    alarm = threading.Timer(SECONDS, lambda: [worker.end() for worker in workers])
    alarm.start()
    try:
        in_c, as_library = compiled(scratch, "worker"), compiled(scratch, "worker.so", "-shared", "-fPIC")
        in_python = [str(ROOT / ".venv" / "bin" / "python"), str(WORKERS / "worker.py")]
        in_elixir = ["mix", "run", "--no-compile", str(WORKERS / "worker.exs")]
        workers.append(Worker(["Python"], in_python, ROOT, url))
        workers.append(Worker(["C"], [in_c], ROOT, url))
        workers.append(Worker(["Elixir"], in_elixir, ROOT / "bindings" / "elixir", url))
        workers.append(Worker(BOTH, [*in_python, as_library], ROOT, url))
        yield workers
    finally:
        alarm.cancel()
        for worker in workers:
            worker.end()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        passed = 0
        for durability in ("process", "power"):
            url = f"lmdb:{scratch / durability}?durability={durability}&max_bytes=32MiB"
            with workers_on(url, scratch) as workers:
                for test in TESTS:
                    print(f"interop, durability={durability}: {test.__name__}", flush=True)
                    test(workers)
                    passed += 1
    print(f"interop: {passed} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
