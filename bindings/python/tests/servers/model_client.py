"""A client that knows the state of each of its sessions from the responses so far, and checks it.

A request without a response, because its worker was killed, was executed or not. The version in
the next response shows which; anything else is a failure.
"""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Optional

from website import Answer, Site

PASSWORDS = {"alice": "wonderland", "bob": "yellow-submarine"}
VISITS_A_SESSION = 60


@dataclass
class Device:
    """The expected state of a session."""

    sid: str
    version: int
    visits: int
    user: Optional[str] = None


class Client:
    """One user. With `is_alone` no other client is this user: it may log out its other devices."""

    def __init__(self, site: Site, user: str, seed: int, *, is_alone: bool) -> None:
        self.site = site
        self.user = user
        self.random = random.Random(seed)
        self.is_alone = is_alone
        self.answered = 0
        self.lost = 0
        self.living: list[Device] = []
        self.dead: list[str] = []
        # Sessions that may exist, whose ids were in responses that were lost.
        self.unknown = 0
        self.unknown_of_user = 0
        self.workers: set[str] = set()

    def work(self, requests: int) -> None:
        for step in count():
            if self.answered + self.lost >= requests:
                return
            if not self.living:
                self.begin()
                continue
            device = self.random.choice(self.living)
            if step % 5 == 0:
                self.see(device)
            elif device.user is None:
                self.log_in(device) if device.visits > self.random.randrange(10) else self.visit(device)
            elif self.random.randrange(VISITS_A_SESSION):
                self.visit(device)
            elif self.is_alone and len(self.living) < 4:
                self.begin()
            elif self.is_alone and self.random.randrange(2):
                self.end_others(device)
            else:
                self.log_out(device)
            if self.dead and step % 7 == 0:
                self.see_dead(self.random.choice(self.dead[-20:]))

    # Actions of a browser.

    def begin(self) -> None:
        answer = self.ask("GET", "/visits")
        if answer is None:
            self.unknown += 1
            return
        assert answer.visits == 1
        self.living.append(Device(answer.sid, version=1, visits=1))

    def visit(self, device: Device) -> None:
        answer = self.ask("GET", "/visits", device.sid)
        if answer is None:
            self.find_out(device, visits=device.visits + 1)
            return
        assert answer.cookie == "", f"a session was lost at visit {device.visits + 1}"
        device.visits += 1
        device.version += 1
        assert answer.visits == device.visits

    def log_in(self, device: Device) -> None:
        form = self.ask("GET", "/login", device.sid)
        if form is None:
            self.find_out(device, visits=device.visits)
            return
        assert form.cookie == ""
        device.version += 1
        fields = {"user": self.user, "password": PASSWORDS[self.user]}
        done = self.ask("POST", "/login", device.sid, form.csrf, **fields)
        if done is None:
            # If the login was executed, the new id was in the lost response.
            if self.is_gone(device):
                self.end(device)
                self.unknown += 1
                self.unknown_of_user += 1
            return
        assert (done.status, done.location) == (303, "/")
        assert done.sid != device.sid
        self.dead.append(device.sid)
        device.sid, device.user = done.sid, self.user
        device.version += 1

    def log_out(self, device: Device) -> None:
        done = self.ask("POST", "/logout", device.sid, self.see(device).csrf)
        if done is None and not self.is_gone(device):
            return
        assert done is None or (done.status, done.location) == (303, "/")
        self.end(device)

    def end_others(self, device: Device) -> None:
        done = self.ask("POST", "/devices/end-others", device.sid, self.see(device).csrf)
        others = [other for other in self.living if other.user is not None and other is not device]
        if done is None:
            gone = [self.is_gone(other) for other in others]
            assert all(gone) or not any(gone), "a revocation was done in part"
            if not all(gone):
                return
        else:
            assert (done.status, done.location) == (303, "/devices")
        for other in others:
            self.end(other)
        if done is not None:
            # Including those whose ids are unknown.
            self.unknown -= self.unknown_of_user
            self.unknown_of_user = 0
            assert len(self.must("/devices", device.sid).refs) == 1

    def see(self, device: Device) -> Answer:
        """Reads a session and compares it with its expected state."""
        answer = self.must("/", device.sid)
        assert version(answer) == device.version, f"{version(answer)} is not {device}"
        assert f"Hello, {device.user or 'stranger'}" in answer.body
        return answer

    def see_dead(self, sid: str) -> None:
        assert version(self.must("/", sid)) is None, "an ended session can be read"
        assert self.must("/devices", sid).location == "/login"

    # Lost responses.

    def find_out(self, device: Device, visits: int) -> None:
        """Finds out whether a write was executed: then the version is the next one."""
        found = version(self.must("/", device.sid))
        assert found in (device.version, device.version + 1), f"{found} does not follow {device}"
        if found == device.version + 1:
            device.version, device.visits = found, visits

    def is_gone(self, device: Device) -> bool:
        found = version(self.must("/", device.sid))
        assert found in (None, device.version), f"{found} is not {device}"
        return found is None

    def end(self, device: Device) -> None:
        self.living.remove(device)
        self.dead.append(device.sid)

    def must(self, path: str, sid: str) -> Answer:
        """Repeats a read until there is a response."""
        answers: Iterator[Optional[Answer]] = (self.ask("GET", path, sid) for _ in range(100))
        answer = next(filter(None, answers))
        assert answer.cookie == ""
        return answer

    def ask(self, method: str, path: str, sid: str = "", csrf: str = "", **fields: str) -> Optional[Answer]:
        try:
            answer = self.site.get(path, sid) if method == "GET" else self.site.post(path, sid, csrf, **fields)
        except (ConnectionError, http.client.HTTPException):
            self.lost += 1
            return None
        self.answered += 1
        self.workers.add(answer.headers["X-Worker"])
        assert answer.status in (200, 303), f"{method} {path}: {answer.status} {answer.find('<h1>.*</p>')}"
        return answer


def version(answer: Answer) -> Optional[int]:
    """The version on the home page, or None without a session."""
    found = answer.find(r"<dt>version</dt><dd>(\d+)</dd>")
    assert len(found) == 1 or "You have no session" in answer.body
    return int(found[0]) if found else None
