"""Starts the example login_app.py, sends requests by TCP or Unix socket, and parses its pages."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional, Union
from urllib.parse import urlencode

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "python"
APP = EXAMPLES / "login_app.py"
FORM = "application/x-www-form-urlencoded"
HANG_SECONDS = 30


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read().decode()
        self.cookie = self.headers.get("Set-Cookie", "")
        self.sid = re.sub("^sid=([^;]*).*", r"\1", self.cookie)
        self.location = self.headers.get("Location", "")

    def find(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.body)

    @property
    def csrf(self) -> str:
        return str(self.find('name="csrf" value="([^"]+)"')[0])

    @property
    def refs(self) -> list[str]:
        return self.find('name="ref" value="([^"]+)"')

    @property
    def visits(self) -> int:
        return int(self.find(r"<h1>Visit (\d+)</h1>")[0])


class Site:
    def __init__(self, address: Union[int, Path]) -> None:
        """`address`: a port of 127.0.0.1, or a Unix socket."""
        self.address = address

    def connect(self) -> socket.socket:
        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address), timeout=HANG_SECONDS)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(HANG_SECONDS)
            connection.connect(str(self.address))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(
        self, method: str, path: str, cookie: str = "", body: Union[bytes, str, None] = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1")
        try:
            connection.sock = self.connect()
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {**sent, "Cookie": cookie} if cookie else sent)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, sid: str = "") -> Answer:
        return self.ask("GET", path, f"sid={sid}" if sid else "")

    def post(self, path: str, sid: str, csrf: Optional[str], **fields: str) -> Answer:
        form = fields if csrf is None else {"csrf": csrf, **fields}
        return self.ask("POST", path, f"sid={sid}" if sid else "", urlencode(form), Content_Type=FORM)

    def log_in(self, user: str = "alice", password: str = "wonderland", sid: str = "") -> str:
        form = self.get("/login", sid)
        done = self.post("/login", form.sid or sid, form.csrf, user=user, password=password)
        assert (done.status, done.location) == (303, "/")
        return done.sid

    def raw(self, request: bytes) -> bytes:
        answer = bytearray()
        # The server closes the connection if it refuses to read; its response comes before.
        with self.connect() as connection, suppress(ConnectionError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        return bytes(answer)


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Site]:
    """Ends the server with Ctrl-C, and checks its exit code and its log."""
    command = [sys.executable, str(APP), "--serve", *arguments]
    with (  # the log is a file, because a full pipe would block the server
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, encoding="utf-8", env={**os.environ, **environment}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert found, Path(log.name).read_text(encoding="utf-8", errors="replace")
            assert "alice / wonderland" in process.stdout.readline()
            yield Site(int(found[1]))
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
            written = process.stdout.read() + Path(log.name).read_text(encoding="utf-8", errors="replace")
            assert "Traceback" not in written
            assert not re.search("[A-Za-z0-9_-]{43}", written), "an id or a token is in the log"
        finally:
            process.kill()
