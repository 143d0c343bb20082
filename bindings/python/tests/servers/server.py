"""The real servers: how each is started on the example's login, who their workers are, and how a chosen one is asked.

The store is the one that the test names; nothing of the server's own is replaced.
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
from website import PATIENCE_SECONDS, Answer, Site

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[3] / "examples" / "python"
BIN = Path(sys.executable).parent
WORKERS = 4


GUNICORN = f"gunicorn traced:application --workers {WORKERS} --bind unix:{{socket}}"
# The last three are not for the store: a failure is to end the test, and the log to stay short.
UWSGI = f"uwsgi --master --processes {WORKERS} --module traced:application --http-socket {{socket}}"
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

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def workers(self) -> list[int]:
        """The processes that the master has forked and that live."""
        found = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for children in found for pid in contents(children).split()]
        return sorted(pid for pid in pids if state(pid) not in ("Z", "X", ""))

    def one(self, worker: int) -> OneWorker:
        return OneWorker(self, worker)

    def each(self) -> list[OneWorker]:
        workers = self.workers()
        assert len(workers) == WORKERS, self.said
        return [self.one(worker) for worker in workers]

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            with suppress(OSError):
                self.site.get("/")
                if len(self.workers()) == WORKERS:
                    break
            time.sleep(0.05)
        for worker in self.each():
            worker.get("/")


class OneWorker(Site):
    """The site as one worker answers it: the others are stopped meanwhile."""

    def __init__(self, server: Server, worker: int) -> None:
        super().__init__(server.site.place)
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
    """As ps shows it: T is stopped, Z a zombie, "" gone."""
    fields = contents(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[0] if fields else ""


def contents(of_process: Path) -> str:
    """Of a file under /proc: "" if the process or thread is gone."""
    try:
        return of_process.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def running(kind: Kind, store: str) -> Iterator[Server]:
    """Ends as systemd would end it, and expects that all went well to the end."""
    program, *arguments = kind.command.split()
    if not (BIN / program).exists():
        pytest.skip(f"{program} is not installed: {why_not(program)}")
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
            assert process.wait(timeout=PATIENCE_SECONDS) == 0, server.said
            assert "Traceback" not in server.said, server.said
            assert not re.search("[A-Za-z0-9_-]{43}", server.said), "an id or a token is in the log"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def why_not(program: str) -> str:
    """What tests/setup.sh noted when it could not be built."""
    note = BIN.parent / f"{program}.log"
    lines = note.read_text(encoding="utf-8", errors="replace").split("\n") if note.exists() else []
    reasons = (line.strip() for line in lines if "rror: " in line and "subprocess" not in line)
    return next(reasons, f"pip install {program}")
