"""The guided walk through login_app.py: browsers with their own cookies use it over HTTP.

Each line with a check mark was checked before it was printed. The first failure ends the walk with
exit code 1. ``store`` is used only to move the manual clock and to read the counters.
"""

from __future__ import annotations

import html
import http.client
import io
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Optional
from urllib.parse import urlencode, urlsplit

from session_server_store import SessionStoreError, Store

COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, GREEN = "1", "2", "32"

# What the devices call themselves.
AGENTS = {
    "laptop": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "phone": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1",
}

CONCURRENT_REQUESTS = 20
HANG_SECONDS = 30


class CheckFailed(Exception):  # noqa: N818 - the walk failed, not the program
    """A check of the walk failed."""


def run(address: str, store: Store) -> int:
    """Runs the scenes and returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for terminals without "…"
    walk = Walk(address, store)
    say(paint(BOLD, f"A web login, step by step, at {address}"))
    say(paint(DIM, "Each line: browser, request, cookie sent, response. Of an id's 128 characters 6 are shown."))
    try:
        for number, scene in enumerate(walk.scenes, 1):
            walk.number = number
            scene()
    except (CheckFailed, SessionStoreError, ValueError) as error:  # ValueError: an unexpected page
        print(f"\nscene {walk.number} failed: {error}", file=sys.stderr)
        return 1
    say("\n" + paint(BOLD, f"All {walk.number} scenes passed."))
    return 0


@dataclass(frozen=True)
class Page:
    status: int
    text: str
    location: str
    set_cookie: str

    @property
    def title(self) -> str:
        return html.unescape(self.find("<h1>(.*?)</h1>"))

    @property
    def csrf(self) -> str:
        return self.find('name="csrf" value="(.*?)"')

    @property
    def visits(self) -> int:
        return int(self.find(r"<h1>Visit (\d+)</h1>") or -1)

    @property
    def devices(self) -> list[tuple[list[str], str]]:
        """The cells of each row, and the reference of its button."""
        rows = re.findall("<tr>(<td>.*?)</tr>", self.text)
        return [(re.sub("(<[^>]*>)+", "|", row).strip("|").split("|"), ref) for row in rows for ref in find_refs(row)]

    def find(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        return found[1] if found else ""


class Browser:
    """A browser with one cookie. Sends the token of the page that it is on with each form."""

    def __init__(self, name: str, address: str, sid: str = "") -> None:
        self.name = name
        self.netloc = urlsplit(address).netloc
        self.sid = sid
        self.csrf = ""

    def get(self, path: str, *, quiet: bool = False) -> Page:
        return self.request("GET", path, None, quiet)

    def post(self, path: str, **fields: str) -> Page:
        return self.request("POST", path, urlencode({"csrf": self.csrf, **fields}), False)

    def request(self, method: str, path: str, form: Optional[str], quiet: bool) -> Page:
        headers = {"User-Agent": AGENTS.get(self.name, "")}
        if self.sid:
            headers["Cookie"] = f"sid={self.sid}"
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self.netloc, timeout=HANG_SECONDS)
        try:
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise CheckFailed(f"{self.name}: no response to {method} {path}: {error!r}") from error
        finally:
            connection.close()
        page = Page(response.status, text, response.getheader("Location", ""), response.getheader("Set-Cookie", ""))
        if not quiet:
            sent = f"sid={short(self.sid)}" if self.sid else "no cookie"
            answer = f"to {page.location}" if page.location else page.title
            say(f"  {self.name:<6}  {method:<4} {path:<19}  {sent:<11}  {page.status}  {answer}")
        if page.set_cookie:
            self.sid = page.set_cookie.partition(";")[0].partition("=")[2]
            if not quiet:
                shown = page.set_cookie.replace(self.sid, short(self.sid), 1) if self.sid else page.set_cookie
                say(paint(DIM, f"          Set-Cookie: {shown}"))
        if page.csrf:
            self.csrf = page.csrf
        return page

    def log_in(self, user: str = "alice", password: str = "wonderland") -> Page:
        self.get("/login")
        return self.post("/login", user=user, password=password)


class Walk:
    def __init__(self, address: str, store: Store) -> None:
        self.address = address
        self.store = store
        self.number = 0
        self.laptop = Browser("laptop", address)
        self.phone = Browser("phone", address)
        self.scenes = (
            self.no_session,
            self.first_session,
            self.unknown_id,
            self.login,
            self.concurrent_requests,
            self.second_device,
            self.end_one,
            self.end_the_others,
            self.logout,
            self.idle,
            self.sweep,
            self.store_down,
        )

    def no_session(self) -> None:
        self.open("Reading a page creates no session")
        page = self.laptop.get("/")
        check("no cookie was set", page.status == 200 and not page.set_cookie)
        check("the store is empty", self.store.stats().sessions == 0)

    def first_session(self) -> None:
        self.open("A page that counts visits creates one")
        first = self.laptop.get("/visits")
        second = self.laptop.get("/visits")
        third = self.laptop.get("/visits")
        check("the count lives on the server: 1, 2, 3", [first.visits, second.visits, third.visits] == [1, 2, 3])
        check(
            "one cookie, set once, hidden from scripts and from the forms of other sites",
            all(word in first.set_cookie for word in ("; HttpOnly", "; SameSite=Lax", "; Path=/"))
            and not second.set_cookie
            and not third.set_cookie,
        )
        check("one session, one id of 128 characters", self.store.stats().sessions == 1 and len(self.laptop.sid) == 128)

    def unknown_id(self) -> None:
        self.open("An unknown id", "It is well-formed, but only the store makes ids.")
        unknown = "A" * 128
        thief = Browser("thief", self.address, unknown)
        page = thief.get("/visits")
        check("it is not adopted: the session gets another id", page.visits == 1 and thief.sid not in ("", unknown))

    def login(self) -> None:
        self.open("Login", "The form has a token of the session, so that other sites cannot send it.")
        before = self.laptop.sid
        self.laptop.get("/login")
        token, self.laptop.csrf = self.laptop.csrf, ""
        page = self.laptop.post("/login", user="alice", password="wonderland")
        check("right password without the token: refused", page.status == 403 and self.laptop.sid == before)
        self.laptop.csrf = token
        page = self.laptop.post("/login", user="alice", password="looking-glass")
        check("wrong password with the token: refused", page.status == 403 and self.laptop.sid == before)
        page = self.laptop.post("/login", user="alice", password="wonderland")
        check(
            "right password with the token: logged in, under a new id",
            page.status == 303 and self.laptop.sid not in ("", before),
        )
        page = self.laptop.get("/visits")
        check("it is the same session: it still has the count", page.visits == 4)
        self.refused(
            "the old id has ended, for an attacker who knows or has set it", Browser("thief", self.address, before)
        )

    def concurrent_requests(self) -> None:
        self.open(
            f"{CONCURRENT_REQUESTS} requests at once",
            "Each reads the count, adds one and writes it with put_if, and retries after a conflict.",
        )
        before = self.laptop.get("/visits").visits
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
            pages = list(pool.map(lambda _: self.laptop.get("/visits", quiet=True), range(CONCURRENT_REQUESTS)))
        say(f"  laptop  GET  /visits              {CONCURRENT_REQUESTS} times at the same time")
        seen = sorted(page.visits for page in pages)
        check("each got another number", seen == list(range(before + 1, before + 1 + CONCURRENT_REQUESTS)))
        after = self.laptop.get("/visits").visits
        check(
            f"no update was lost: {before} + {CONCURRENT_REQUESTS} + 1 = {after}",
            after == before + CONCURRENT_REQUESTS + 1,
        )

    def second_device(self) -> None:
        self.open("A second device")
        self.wait(timedelta(minutes=4))
        page = self.phone.log_in()
        check("the phone has a session of its own", page.status == 303 and self.phone.sid != self.laptop.sid)
        self.wait(timedelta(minutes=1))
        page = self.laptop.get("/devices")
        table(page)
        check(
            "alice sees both, and which one she is using",
            ["this device" in seen for (_, _, seen, _), _ in page.devices] == [True, False],
        )
        check(
            "she knows them by their labels",
            [label for (label, *_), _ in page.devices]
            == ["Firefox on Linux, 127.0.0.1", "Safari on iPhone, 127.0.0.1"],
        )
        check(
            "the page has references but no ids", self.laptop.sid not in page.text and self.phone.sid not in page.text
        )

    def end_one(self) -> None:
        self.open("Ending one device", "The button sends the reference. It works only for the user's own sessions.")
        (_, mine), (_, other) = self.laptop.get("/devices").devices
        bob = Browser("bob", self.address)
        bob.log_in("bob", "yellow-submarine")
        bob.get("/devices")
        page = bob.post("/devices/end", ref=mine)
        check("bob cannot end a session of alice by its reference", page.status == 404)
        page = self.laptop.post("/devices/end", ref=other)
        check("alice ends her phone", page.status == 303 and len(self.laptop.get("/devices").devices) == 1)
        self.refused("the phone is logged out", self.phone)

    def end_the_others(self) -> None:
        self.open(
            "Log out my other devices",
            "The phone logs in again, and so does a tablet. Then the laptop ends all other sessions.",
        )
        tablet = Browser("tablet", self.address)
        self.phone.log_in()
        tablet.log_in()
        check("three devices", len(self.laptop.get("/devices").devices) == 3)
        page = self.laptop.post("/devices/end-others")
        check("one request ends them", page.status == 303)
        self.refused("the phone is logged out", self.phone)
        self.refused("the tablet is logged out", tablet)
        page = self.laptop.get("/devices")
        check("only the laptop is still logged in", page.status == 200 and len(page.devices) == 1)

    def logout(self) -> None:
        self.open("Logout", "The cookie of the laptop was copied before.")
        thief = Browser("thief", self.address, self.laptop.sid)
        check(
            "while alice is logged in, the copy works",
            thief.get("/devices").status == 200,
        )
        page = self.laptop.post("/logout")
        check("logged out, and the cookie is deleted", page.status == 303 and not self.laptop.sid)
        self.refused("the copy is refused: the server has ended the session", thief)

    def idle(self) -> None:
        self.open("Idle", "Ten minutes without a request end a session. The walk moves the clock of the store.")
        self.laptop.log_in()
        for _ in range(2):
            self.wait(timedelta(minutes=9, seconds=59))
            check("still logged in: every request restarts the ten minutes", self.laptop.get("/devices").status == 200)
        self.wait(timedelta(minutes=10))
        self.refused("ten minutes without a request: logged out", self.laptop)

    def sweep(self) -> None:
        self.open("Sweep", "Expired sessions are refused at once; a sweep reclaims their memory.")
        self.wait(timedelta(minutes=10))
        before = self.store.stats()
        removed = self.store.sweep()
        after = self.store.stats()
        say(f"  store   sweep: {removed} removed")
        check(
            "all had expired, and the store is empty again",
            removed == before.sessions > 0 and (after.sessions, after.bytes) == (0, 0),
        )
        for name, value in after._asdict().items():
            say(paint(DIM, f"          {name:<10} {value:>4}"))
        check("the store counted no errors", after.errors == after.rejected == 0)

    def store_down(self) -> None:
        self.open("The store is down", "It is closed while the server runs.")
        self.laptop.get("/visits")
        before = self.laptop.sid
        self.store.close()
        page = self.laptop.get("/visits")
        check(
            "503, and no new session: the cookie stays",
            page.status == 503 and not page.set_cookie and self.laptop.sid == before,
        )

    # Helpers.

    def open(self, title: str, explanation: str = "") -> None:
        say("\n" + paint(BOLD, f"{self.number:>2}. {title}"))
        if explanation:
            say(paint(DIM, f"    {explanation}"))

    def wait(self, time: timedelta) -> None:
        say(f"  clock   {time} later")
        self.store.advance_clock(time)

    def refused(self, what: str, browser: Browser) -> None:
        page = browser.get("/devices")
        check(what, page.status == 303 and page.location == "/login")


def find_refs(row: str) -> list[str]:
    return re.findall('name="ref" value="(.*?)"', row)


def table(page: Page) -> None:
    for cells, _ in page.devices:
        say(paint(DIM, "          " + "   ".join(cells[:-1])))


def check(what: str, holds: bool) -> None:
    if not holds:
        raise CheckFailed(f"not true: {what}")
    say(f"  {paint(GREEN, '✓')} {what}")


def short(sid: str) -> str:
    return sid[:6] + "…"


def paint(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if COLOURS else text


def say(line: str) -> None:
    print(line, flush=True)
