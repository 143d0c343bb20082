"""Python, Elixir and C use each other's sessions in one lmdb: store that all have open.

Each language has a worker in tests/interop/. It reads one command a line and answers with a line
that begins with "= ". A fourth worker is Python and C in one process, which take turns. Bytes are
in hex; "-" is none. Needs what the tests before it have built: target/release, the virtual
environment and the Elixir project.

    open URL                -> ok
    create DATA PRINCIPAL   -> ok ID
    get ID                  -> ok VERSION DATA
    put_if ID VERSION DATA  -> ok VERSION
    renew ID                -> ok NEWID
    delete ID               -> ok
    list PRINCIPAL          -> ok COUNT
    revoke PRINCIPAL        -> ok COUNT
    count ID TIMES          -> adds 1 to the number in the session, "counted" each time; then ok

A failure is the name of the status: not_found, conflict.
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
HANG_SECONDS = 120

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
    """A process of one language, or two, with the store open. Can be killed and started again."""

    def __init__(self, languages: list[str], command: list[str], cwd: Path, url: str) -> None:
        self.languages, self.command, self.cwd, self.url = languages, command, cwd, url
        self.start()

    def start(self) -> None:
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

    def send(self, *words: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> list[str]:
        """The next answer, or [] if the process has ended."""
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("= "):
                return line[2:].split()
        return []

    def ask(self, *words: object) -> list[str]:
        self.send(*words)
        return self.answer()

    def counted(self, limit: int = sys.maxsize) -> int:
        """The number of "counted" answers before another answer, or up to the limit."""
        count = 0
        while count < limit and self.answer() == ["counted"]:
            count += 1
        return count

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # mix is a script that starts the VM
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()


def to_hex(data: bytes) -> str:
    return data.hex() or "-"


def session(worker: Worker, sid: str) -> tuple[int, bytes]:
    status, version, data = worker.ask("get", sid)
    assert status == "ok"
    return int(version), bytes.fromhex(data.replace("-", ""))


def payload_is_same_in_every_language(workers: list[Worker]) -> None:
    for writer in workers:
        for payload in PAYLOADS:
            status, sid = writer.ask("create", to_hex(payload), ALICE)
            assert status == "ok"
            for reader in workers:
                assert session(reader, sid) == (1, payload)
            assert writer.ask("delete", sid) == ["ok"]


def put_if_conflicts_across_languages(workers: list[Worker]) -> None:
    for creator in workers:
        _, sid = creator.ask("create", to_hex(b"first"), ALICE)
        for version, writer in enumerate(workers, 1):
            payload = PAYLOADS[version] + str(writer.languages).encode()
            assert writer.ask("put_if", sid, version, to_hex(payload)) == ["ok", str(version + 1)]
            for other in workers:
                assert session(other, sid) == (version + 1, payload)
                assert other.ask("put_if", sid, version, to_hex(b"late")) == ["conflict"]
        assert creator.ask("delete", sid) == ["ok"]


def renewed_or_deleted_id_ends_in_every_language(workers: list[Worker]) -> None:
    for creator in workers:
        for renewer in workers:
            _, old = creator.ask("create", to_hex(b"data"), ALICE)
            status, new = renewer.ask("renew", old)
            assert status == "ok"
            for other in workers:
                assert other.ask("get", old) == ["not_found"]
                assert other.ask("put_if", old, 1, to_hex(b"back")) == ["not_found"]
                assert session(other, new) == (1, b"data")
            assert creator.ask("delete", new) == ["ok"]
            for other in workers:
                assert other.ask("get", new) == ["not_found"]
                assert other.ask("delete", new) == ["not_found"]


def list_and_revoke_across_languages(workers: list[Worker]) -> None:
    for revoker in workers:
        sids = [worker.ask("create", to_hex(b"device"), ALICE)[1] for worker in workers]
        for worker in workers:
            assert worker.ask("list", ALICE) == ["ok", str(len(sids))]
        assert revoker.ask("revoke", ALICE) == ["ok", str(len(sids))]
        for worker in workers:
            assert worker.ask("list", ALICE) == ["ok", "0"]
            for sid in sids:
                assert worker.ask("get", sid) == ["not_found"]


def concurrent_put_if_loses_no_update(workers: list[Worker]) -> None:
    times = 50
    _, sid = workers[0].ask("create", to_hex(b"0"), ALICE)
    for worker in workers:
        worker.send("count", sid, times)
    for worker in workers:
        assert worker.counted() == times
    total = times * len(workers)
    assert session(workers[0], sid) == (total + 1, b"%d" % total)
    assert workers[0].ask("delete", sid) == ["ok"]


def kill_of_one_worker_during_writes(workers: list[Worker]) -> None:
    times = 50
    for victim in workers:
        others = [worker for worker in workers if worker is not victim]
        _, sid = others[0].ask("create", to_hex(b"0"), ALICE)
        victim.send("count", sid, 1_000_000)
        for worker in others:
            worker.send("count", sid, times)
        counted = victim.counted(limit=20)
        victim.kill()
        counted += victim.counted() + sum(worker.counted() for worker in others)
        # Acknowledged writes are there; the one in progress at the kill may be.
        _, number = session(others[0], sid)
        assert int(number) - counted in (0, 1), f"{number!r} after {counted}"
        victim.start()
        assert session(victim, sid)[1] == number
        assert victim.ask("count", sid, 1) == ["counted"]
        assert victim.answer() == ["ok"]
        assert session(others[1], sid)[1] == b"%d" % (int(number) + 1)
        assert victim.ask("delete", sid) == ["ok"]


def python_and_c_in_one_process_share_library(workers: list[Worker]) -> None:
    alone, both = (next(worker for worker in workers if worker.languages == which) for which in (["Python"], BOTH))
    libraries, maps = mapped(both, "libsss"), mapped(both, "data.mdb")
    assert len(set(libraries)) == 1, libraries
    assert len(maps) == len(mapped(alone, "data.mdb")) > 0


def mapped(worker: Worker, name: str) -> list[str]:
    lines = Path(f"/proc/{worker.process.pid}/maps").read_text().splitlines()
    return [line.split()[-1] for line in lines if name in line]


TESTS: list[Callable[[list[Worker]], None]] = [
    payload_is_same_in_every_language,
    put_if_conflicts_across_languages,
    renewed_or_deleted_id_ends_in_every_language,
    list_and_revoke_across_languages,
    concurrent_put_if_loses_no_update,
    python_and_c_in_one_process_share_library,
    kill_of_one_worker_during_writes,
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
    # Ends workers that hang, and with them the wait for their answers.
    alarm = threading.Timer(HANG_SECONDS, lambda: [worker.end() for worker in workers])
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
