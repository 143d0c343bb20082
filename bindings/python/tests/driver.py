"""Runs the scenarios of tests/conformance on the Python API. README.md there has their format.

The driver decides nothing about sessions. It fails on every word that it does not know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, Optional

from temporary_store import ENGINE, IS_REDIS, TemporaryStore

import session_server_store as sss
from session_server_store import _ffi
from session_server_store.errors import from_status

# The abilities that scenarios may need, and why Python lacks the others.
ABILITIES = {"close", "fork"}
if not IS_REDIS:
    ABILITIES |= {"limits", "memory" if ENGINE == "memory" else "processes"}
REASONS = {
    "limits": "redis: has no such limits",
    "memory": "for memory: only",
    "processes": "processes cannot share the engine under test",
    "buffers": "the package has its own buffers",
    "handles": "a Store is an object, so there are no invalid handles",
    "options": "the methods do not have these arguments",
    "flags": "one argument sets or removes the principal",
}
STATS = sss.Stats._fields
TIMES = ("created", "seen", "expires", "authenticated", "authentications")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


@dataclass
class Step:
    location: str
    text: str


@dataclass
class Scenario:
    name: str
    needs: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def missing(self) -> list[str]:
        unknown = set(self.needs) - ABILITIES - set(REASONS)
        assert not unknown, f"{self.name} needs an unknown ability: {unknown}"
        return [need for need in self.needs if need not in ABILITIES]


def read_scenarios(folder: Path) -> Iterator[Scenario]:
    names: set[str] = set()
    for path in sorted(folder.glob("*.txt")):
        scenario: Optional[Scenario] = None
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            location = f"{path.name}:{number}"
            first, _, rest = line.partition(" ")
            if first == "scenario":
                if scenario:
                    yield scenario
                assert re.fullmatch("[a-z0-9_]+", rest), f"{location}: invalid name {rest!r}"
                assert rest not in names, f"{location}: duplicate scenario {rest}"
                names.add(rest)
                scenario = Scenario(rest)
                continue
            assert scenario, f"{location}: step before the first scenario"
            if first == "needs":
                assert not scenario.steps, f"{location}: needs must come before the steps"
                scenario.needs = rest.split(" ")
            else:
                scenario.steps.append(Step(location, line))
        if scenario:
            yield scenario


class StepError(Exception):
    """A step with another result than expected."""


def data(text: str) -> bytes:
    kind, colon, rest = text.partition(":")
    if text == "empty":
        return b""
    if colon and kind == "hex":
        return bytes.fromhex(rest)
    if colon and kind == "fill":
        return (bytes(range(251)) * (int(rest) // 251 + 1))[: int(rest)]
    if re.fullmatch("[A-Za-z0-9_.-]+", text):
        return text.encode()
    raise ValueError(f"invalid data {text!r}")


def milliseconds(text: str) -> int:
    match = re.fullmatch(r"(-?\d+)(ms|s|m|h)", text)
    if not match:
        raise ValueError(f"invalid time {text!r}")
    return int(match[1]) * MILLISECONDS[match[2]]


def duration(text: str) -> Any:
    """Whole seconds as int, other times as timedelta, and as float beyond its range."""
    ms = milliseconds(text)
    if ms % 1000 == 0:
        return ms // 1000
    try:
        return timedelta(milliseconds=ms)
    except OverflowError:
        return ms / 1000


def timeout(text: str) -> Any:
    named = {"infinity": None, "dead": -1, "inherit": sss.INHERIT}
    return named[text] if text in named else duration(text)


def options(words: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key in ("timeout", "idle_timeout"):
            given[key] = timeout(value)
        elif key == "principal":
            given[key] = data(value)
        elif word == "clear_principal":
            given["principal"] = None
        elif key == "label":
            given[key] = data(value)
        elif word == "reauthenticated":
            given[word] = True
        elif key == "grace":
            given[key] = duration(value)
        else:
            raise ValueError(f"unknown option {word!r}")
    return given


class Run:
    """One scenario with its stores and variables."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.temporary = TemporaryStore()
        self.handles: dict[str, sss.Store] = {}
        self.variables: dict[str, Any] = {}
        self.advanced = 0
        self.origin: Optional[int] = None
        self.checks_times = any(
            word.startswith(tuple(f"{time}=" for time in TIMES))
            for step in scenario.steps
            if not step.text.startswith("stats ")  # its created= is a count
            for word in step.text.partition(" -> ")[2].split(" ")
        )

    def run(self) -> None:
        with self.temporary:
            try:
                self.run_steps(self.scenario.steps)
            finally:
                for store in self.handles.values():
                    store.close()

    def run_steps(self, steps: list[Step]) -> None:
        at = 0
        while at < len(steps):
            step, at = steps[at], at + 1
            try:
                if step.text.startswith("fork "):
                    end = end_of_child(steps, at)
                    self.in_child(steps[at:end])
                    at = end + 1
                else:
                    self.run_step(step.text)
            except Exception as error:
                raise StepError(f"{step.location}: {step.text}: {error}") from error

    def in_child(self, steps: list[Step]) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.run_steps(steps)
                os.write(writer, b"passed")
            except BaseException as error:
                os.write(writer, str(error).encode()[:4000])
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            outcome = pipe.read()
        os.waitpid(child, 0)
        if outcome != b"passed":
            raise StepError(f"in the child: {outcome.decode()}")

    def run_step(self, text: str) -> None:
        left, arrow, right = text.partition(" -> ")
        verb, *words = left.split(" ")
        expected, *checks = right.split(" ") if arrow else ["ok"]
        if verb in ("status", "different", "same"):
            self.compare(verb, *words)
            return
        if not arrow and verb not in ("open", "close", "advance"):
            raise ValueError("no expected result")
        act = getattr(self, f"do_{verb}", None)
        if act is None:
            raise ValueError(f"unknown verb {verb!r}")
        status, result = attempt(lambda: act(words))
        if status != expected:
            raise StepError(f"expected {expected}, got {status} ({result!s})")
        if verb == "advance" and status == "ok":
            self.advanced += milliseconds(words[1])
        if status == "ok" and verb in ("create", "renew"):
            result = self.keep_id(verb, words, checks)
        if status == "ok" and verb == "ref":
            self.variables[words[2]] = result
        for check in checks:
            self.check(check, result)

    def keep_id(self, verb: str, words: list[str], checks: list[str]) -> Optional[sss.Session]:
        """Both return only the id. What the checks need is read with a peek."""
        first_create = verb == "create" and self.origin is None and self.checks_times
        if not checks and not first_create:
            return None
        session = self.handles[words[0]].get(self.variables[words[1 if verb == "create" else 2]], peek=True)
        if session is None:
            raise StepError("the new session does not exist")
        if first_create:
            self.origin = unix_ms(session.created) - self.advanced
        return session

    def compare(self, verb: str, left: str, right: str) -> None:
        if verb == "status":
            assert int(sss.Status[left.upper()]) == int(right), f"{left} is {int(sss.Status[left.upper()])}"
            assert from_status(int(right), "text").name == left.upper()
            assert _ffi.describe(int(right)), "empty text"
        else:
            equal = self.variables[left] == self.variables[right]
            assert equal == (verb == "same"), "equal" if equal else "different"

    def check(self, check: str, result: Any) -> None:
        match = re.fullmatch("([a-z_]+)([=~])(.*)", check)
        if not match:
            raise ValueError(f"invalid check {check!r}")
        key, operator, value = match.groups()
        actual: Any
        expected: Any
        if operator == "~" and key == "message":
            assert value in result.message, f"expected {value} in the message {result.message!r}"
            return
        if key == "data":
            actual, expected = result.payload, data(value)
        elif key == "len":
            actual, expected = len(result.payload), int(value)
        elif key == "version":
            actual, expected = result.version, int(value)
        elif isinstance(result, sss.Stats) and key in STATS:
            actual, expected = getattr(result, key), int(value)
        elif key == "authentications":
            actual = [self.since_origin(info.authenticated, "never") for info in result]
            expected = [word if word == "never" else milliseconds(word) for word in value.split(",")]
        elif key in TIMES:
            moment = result.last_seen if key == "seen" else getattr(result, key)
            none = "never" if key == "authenticated" else "infinity"
            actual = self.since_origin(moment, none)
            expected = value if value == none else milliseconds(value)
        elif key in ("timeout", "idle_timeout"):
            limit = getattr(result, key)
            actual = "infinity" if limit is None else limit // timedelta(milliseconds=1)
            expected = value if value == "infinity" else milliseconds(value)
        elif key == "count":
            actual, expected = len(result) if isinstance(result, list) else result, int(value)
        elif key == "refs":
            actual, expected = [info.ref for info in result], [self.variables[word] for word in value.split(",")]
        elif key == "versions":
            actual, expected = [info.version for info in result], [int(word) for word in value.split(",")]
        elif key == "labels":
            actual = [info.label_bytes or None for info in result]
            expected = [None if word == "none" else data(word) for word in value.split(",")]
        elif key == "lens":
            actual, expected = [info.size for info in result], [int(word) for word in value.split(",")]
        else:
            raise ValueError(f"unknown check {check!r}")
        if actual != expected:
            raise StepError(f"expected {check}, got {str(actual)[:200]}")

    def since_origin(self, moment: Optional[datetime], none: str) -> Any:
        return none if moment is None else unix_ms(moment) - (self.origin or 0)

    def sid(self, word: str) -> Any:
        if word == "unknown":
            return "A" * 128
        if word.startswith("malformed:"):
            return word.partition(":")[2].encode()
        return self.variables[word]

    def do_open(self, words: list[str]) -> bool:
        name, *given = words
        if not any(word.startswith("clock=") for word in given):
            given.append("clock=manual")
        self.handles[name] = sss.Store(self.temporary.url(*given), serializer=sss.RAW)
        return True

    def do_url(self, words: list[str]) -> bool:
        text = " ".join(words)
        assert text[0] == text[-1] == '"', "a URL has quotes"
        sss.Store(text[1:-1], serializer=sss.RAW).close()
        return True

    def do_close(self, words: list[str]) -> bool:
        self.handles[words[0]].close()
        return True

    def do_advance(self, words: list[str]) -> bool:
        self.handles[words[0]].advance_clock(duration(words[1]))
        return True

    def do_create(self, words: list[str]) -> Any:
        store, variable, payload, *rest = words
        self.variables[variable] = self.handles[store].create(data(payload), **options(rest))
        return self.variables[variable]

    def do_get(self, words: list[str]) -> Any:
        return self.handles[words[0]].get(self.sid(words[1]))

    def do_peek(self, words: list[str]) -> Any:
        return self.handles[words[0]].get(self.sid(words[1]), peek=True)

    def do_put(self, words: list[str]) -> Any:
        store, sid, payload, *rest = words
        return self.handles[store].put(self.sid(sid), data(payload), **options(rest))

    def do_put_if(self, words: list[str]) -> Any:
        store, sid, version, payload, *rest = words
        return self.handles[store].put_if(self.sid(sid), int(version), data(payload), **options(rest))

    def do_touch(self, words: list[str]) -> Any:
        return self.handles[words[0]].touch(self.sid(words[1]))

    def do_renew(self, words: list[str]) -> Any:
        store, sid, variable, *rest = words
        payload = [data(word[5:]) for word in rest if word.startswith("data=")]
        given = options([word for word in rest if not word.startswith("data=")])
        new = self.handles[store].renew(self.sid(sid), *payload, **given)
        if new is not None:
            self.variables[variable] = new
        return new

    def do_delete(self, words: list[str]) -> Any:
        return self.handles[words[0]].delete(self.sid(words[1]))

    def do_ref(self, words: list[str]) -> Any:
        return self.handles[words[0]].ref(self.sid(words[1]))

    def ref(self, word: str) -> Any:
        return b"\xaa" * 32 if word == "unknown_ref" else self.variables[word]

    def do_delete_ref(self, words: list[str]) -> Any:
        store, ref, *rest = words
        return self.handles[store].delete_ref(self.ref(ref), **options(rest))

    def do_touch_ref(self, words: list[str]) -> Any:
        return self.handles[words[0]].touch_ref(self.ref(words[1]))

    def do_peek_ref(self, words: list[str]) -> Any:
        return self.handles[words[0]].touch_ref(self.ref(words[1]), peek=True)

    def do_sweep(self, words: list[str]) -> Any:
        return self.handles[words[0]].sweep(int(words[1]))

    def do_list(self, words: list[str]) -> Any:
        return self.handles[words[0]].list(data(words[1]))

    def do_revoke(self, words: list[str]) -> Any:
        store, principal, *rest = words
        if rest and (len(rest) > 1 or not rest[0].startswith("except=")):
            raise ValueError(f"unknown option in {rest}")
        excluded = self.sid(rest[0].partition("=")[2]) if rest else None
        return self.handles[store].revoke(data(principal), except_sid=excluded)

    def do_revoke_all(self, words: list[str]) -> Any:
        return self.handles[words[0]].revoke_all()

    def do_stats(self, words: list[str]) -> Any:
        return self.handles[words[0]].stats()


def end_of_child(steps: list[Step], at: int) -> int:
    """The index of the ``join`` of the ``fork`` before ``at``.

    Without one the child runs all remaining steps.
    """
    depth = 1
    while at < len(steps):
        depth += steps[at].text.startswith("fork ") - steps[at].text.startswith("join ")
        if depth == 0:
            break
        at += 1
    return at


def attempt(act: Callable[[], Any]) -> tuple[str, Any]:
    try:
        result = act()
    except sss.SessionStoreError as error:
        return error.name.lower(), error
    return "not_found" if result is None or result is False else "ok", result


def unix_ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
