"""Starts gunicorn and uWSGI with the example login_app.py, and sends requests to a chosen worker.

The servers run unchanged, on the store that the test names.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Union

import pytest
from website import HANG_SECONDS, Answer, Site

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[3] / "examples" / "python"
BIN = Path(sys.executable).parent
WORKERS = 4


GUNICORN = f"gunicorn app_with_pid:application --workers {WORKERS} --bind unix:{{socket}}"
# The last options have nothing to do with the store: errors end the test, and the log stays short.
UWSGI = f"uwsgi --master --processes {WORKERS} --module app_with_pid:application --http-socket {{socket}}"
UWSGI += " --need-app --die-on-term --disable-logging --forkbomb-delay 0"


@dataclass(frozen=True)
class Kind:
    name: str
    command: str
    opens_before_fork: bool = True


EACH_WORKER_OPENS = Kind("gunicorn", GUNICORN, opens_before_fork=False)
PRELOAD = Kind("gunicorn --preload", f"{GUNICORN} --preload")
THREADS = Kind("gunicorn --preload --threads", f"{GUNICORN} --preload --threads 4")
PREFORK = Kind("uwsgi", UWSGI)
LAZY_APPS = Kind("uwsgi --lazy-apps", f"{UWSGI} --lazy-apps", opens_before_fork=False)
KINDS = (EACH_WORKER_OPENS, PRELOAD, THREADS, PREFORK, LAZY_APPS)


class Server:
    def __init__(self, process: subprocess.Popen[bytes], site: Site, log: Path) -> None:
        self.process = process
        self.site = site
        self.log = log
        self.replaced: set[int] = set()

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """The running child processes of the master."""
        found = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for children in found for pid in read_proc(children).split()]
        return sorted(pid for pid in pids if state(pid) not in ("Z", "X", ""))

    def worker(self, worker: int) -> OneWorker:
        return OneWorker(self, worker)

    def each(self) -> list[OneWorker]:
        workers = self.workers()
        assert len(workers) == WORKERS, self.output
        return [self.worker(worker) for worker in workers]

    def reload(self) -> None:
        """Replaces all workers."""
        self.replaced.update(self.workers())
        self.process.send_signal(signal.SIGHUP)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + HANG_SECONDS
        while True:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            with suppress(OSError):
                self.site.get("/")
                workers = self.workers()
                if len(workers) == WORKERS and self.replaced.isdisjoint(workers):
                    break
            time.sleep(0.05)
        for worker in self.each():
            worker.get("/")


class OneWorker(Site):
    """The site, with requests answered by one worker: the others are stopped during each."""

    def __init__(self, server: Server, worker: int) -> None:
        super().__init__(server.site.address)
        self.server = server
        self.worker = worker

    def ask(
        self, method: str, path: str, cookie: str = "", body: Union[bytes, str, None] = None, **headers: str
    ) -> Answer:
        others = [pid for pid in self.server.workers() if pid != self.worker]
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            while any(state(pid) != "T" for pid in others):
                time.sleep(0.001)
            answer = super().ask(method, path, cookie, body, **headers)
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)
        assert answer.headers["X-Worker"] == str(self.worker)
        return answer


def state(pid: int) -> str:
    """As in ps: T is stopped, Z is a zombie, "" has ended."""
    fields = read_proc(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[0] if fields else ""


def read_proc(path: Path) -> str:
    """A file under /proc, or "" if the process or thread has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def running(kind: Kind, store: str) -> Iterator[Server]:
    """Ends the server with SIGTERM, as systemd does, and checks its exit code and its log."""
    program, *arguments = kind.command.split()
    if not (BIN / program).exists():
        pytest.skip(f"{program} is not installed: {install_error(program)}")
    with tempfile.TemporaryDirectory(prefix="sss-") as scratch:
        socket, log = Path(scratch, "socket"), Path(scratch, "log")
        environment = {
            **os.environ,
            "HOME": scratch,  # gunicorn has a control socket there
            "PYTHONPATH": f"{HERE}{os.pathsep}{EXAMPLES}",
            "SESSION_STORE": store,
        }
        command = [str(BIN / program), *(word.format(socket=socket) for word in arguments)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=scratch, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        server = Server(process, Site(socket), log)
        try:
            server.wait_until_ready()
            yield server
            process.terminate()
            assert process.wait(timeout=HANG_SECONDS) == 0, server.output
            assert "Traceback" not in server.output, server.output
            assert not re.search("[A-Za-z0-9_-]{43}", server.output), "an id or a token is in the log"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def install_error(program: str) -> str:
    """The error that tests/setup.sh logged."""
    note = BIN.parent / f"{program}.log"
    lines = note.read_text(encoding="utf-8", errors="replace").split("\n") if note.exists() else []
    reasons = (line.strip() for line in lines if "rror: " in line and "subprocess" not in line)
    return next(reasons, f"pip install {program}")
