"""The guided walk through login_app.py: browsers with cookies of their own talk to it over real HTTP, scene by scene.

Every line with a check mark was tested a moment before it was printed; the first that fails ends the walk with exit
code 1.
Only `store` looks behind the scenes: it moves the manual clock and reads the counters.
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

AT_ONCE = 20
ANSWER_WITHIN_SECONDS = 30


class Broken(Exception):  # noqa: N818 - it reads "raise Broken"
    """Something did not happen as it was claimed."""


def run(address: str, store: Store) -> int:
    """The exit code of the demo."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "…" is no reason to stop
    walk = Walk(address, store)
    say(paint(BOLD, f"A web login, step by step, at {address}"))
    say(paint(DIM, "Each line: who, request, cookie sent, answer. An id has 128 characters; the first 6 are shown."))
    try:
        for number, scene in enumerate(walk.scenes, 1):
            walk.number = number
            scene()
    except (Broken, SessionStoreError, ValueError) as error:  # ValueError: a page does not look as it should
        print(f"\nscene {walk.number} went wrong: {error}", file=sys.stderr)
        return 1
    say("\n" + paint(BOLD, f"All {walk.number} scenes went as they should."))
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
        """What each row says, and the reference behind its button."""
        rows = re.findall("<tr>(<td>.*?)</tr>", self.text)
        return [(re.sub("(<[^>]*>)+", "|", row).strip("|").split("|"), ref) for row in rows for ref in find_refs(row)]

    def find(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        return found[1] if found else ""


class Browser:
    """Keeps a cookie, and the page it is on, whose hidden token a form sends along."""

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
        headers = {"Cookie": f"sid={self.sid}"} if self.sid else {}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self.netloc, timeout=ANSWER_WITHIN_SECONDS)
        try:
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"{self.name} got no answer to {method} {path}: {error!r}") from error
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
            self.nothing_to_keep,
            self.something_to_keep,
            self.a_made_up_id,
            self.login,
            self.many_at_once,
            self.a_second_device,
            self.end_one,
            self.end_the_others,
            self.logout,
            self.idle,
            self.sweep,
            self.store_down,
        )

    def nothing_to_keep(self) -> None:
        self.open("Looking around leaves nothing behind")
        page = self.laptop.get("/")
        claim("no cookie was set", page.status == 200 and not page.set_cookie)
        claim("the store is empty", self.store.stats().sessions == 0)

    def something_to_keep(self) -> None:
        self.open("A page that counts: now there is something to keep")
        first = self.laptop.get("/visits")
        second = self.laptop.get("/visits")
        third = self.laptop.get("/visits")
        claim("the count lives on the server: 1, 2, 3", [first.visits, second.visits, third.visits] == [1, 2, 3])
        claim(
            "one cookie, set once, hidden from scripts and from other sites' forms",
            all(word in first.set_cookie for word in ("; HttpOnly", "; SameSite=Lax", "; Path=/"))
            and not second.set_cookie
            and not third.set_cookie,
        )
        claim("one session, one id of 128 characters", self.store.stats().sessions == 1 and len(self.laptop.sid) == 128)

    def a_made_up_id(self) -> None:
        self.open("An id that nobody minted", "It looks right, but only the store makes ids.")
        made_up = "A" * 128
        thief = Browser("thief", self.address, made_up)
        page = thief.get("/visits")
        claim("it is not adopted: a new session under another id", page.visits == 1 and thief.sid not in ("", made_up))

    def login(self) -> None:
        self.open("Login", "The form carries a token of the session, so that other sites cannot send it.")
        before = self.laptop.sid
        self.laptop.get("/login")
        token, self.laptop.csrf = self.laptop.csrf, ""
        page = self.laptop.post("/login", user="alice", password="wonderland")
        claim("right password, no token: refused", page.status == 403 and self.laptop.sid == before)
        self.laptop.csrf = token
        page = self.laptop.post("/login", user="alice", password="looking-glass")
        claim("token, wrong password: refused", page.status == 403 and self.laptop.sid == before)
        page = self.laptop.post("/login", user="alice", password="wonderland")
        claim("both right: in, and the id is a new one", page.status == 303 and self.laptop.sid not in ("", before))
        page = self.laptop.get("/visits")
        claim("it is the same session: the count goes on", page.visits == 4)
        self.refused("the old id is dead, to whoever planted or saw it", Browser("thief", self.address, before))

    def many_at_once(self) -> None:
        self.open(
            f"{AT_ONCE} requests at once",
            "Each reads the count, adds one and writes it back with put_if, or tries again.",
        )
        before = self.laptop.get("/visits").visits
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pages = list(pool.map(lambda _: self.laptop.get("/visits", quiet=True), range(AT_ONCE)))
        say(f"  laptop  GET  /visits              {AT_ONCE} times, all at the same time")
        seen = sorted(page.visits for page in pages)
        claim("every one got a number of its own", seen == list(range(before + 1, before + 1 + AT_ONCE)))
        after = self.laptop.get("/visits").visits
        claim(f"none was lost: {before} + {AT_ONCE} + 1 = {after}", after == before + AT_ONCE + 1)

    def a_second_device(self) -> None:
        self.open("A second device")
        self.wait(timedelta(minutes=4))
        page = self.phone.log_in()
        claim(
            "the phone is in too, with a session of its own", page.status == 303 and self.phone.sid != self.laptop.sid
        )
        self.wait(timedelta(minutes=1))
        page = self.laptop.get("/devices")
        table(page)
        claim(
            "alice sees both, and which one she sits at",
            ["this device" in seen for (_, _, seen, _), _ in page.devices] == [True, False],
        )
        claim("the page has references, no ids", self.laptop.sid not in page.text and self.phone.sid not in page.text)

    def end_one(self) -> None:
        self.open("Ending one device", "The button sends the reference. It works only for the user's own sessions.")
        (_, mine), (_, other) = self.laptop.get("/devices").devices
        bob = Browser("bob", self.address)
        bob.log_in("bob", "yellow-submarine")
        bob.get("/devices")
        page = bob.post("/devices/end", ref=mine)
        claim("bob knows alice's reference, and it is no use to him", page.status == 404)
        page = self.laptop.post("/devices/end", ref=other)
        claim("alice ends her phone", page.status == 303 and len(self.laptop.get("/devices").devices) == 1)
        self.refused("the phone is out", self.phone)

    def end_the_others(self) -> None:
        self.open(
            "Log out my other devices",
            "The phone logs in again, a tablet too; then the laptop ends whatever else there is.",
        )
        tablet = Browser("tablet", self.address)
        self.phone.log_in()
        tablet.log_in()
        claim("three devices", len(self.laptop.get("/devices").devices) == 3)
        page = self.laptop.post("/devices/end-others")
        claim("done in one step", page.status == 303)
        self.refused("the phone is out", self.phone)
        self.refused("the tablet is out", tablet)
        page = self.laptop.get("/devices")
        claim("the laptop is still in, alone", page.status == 200 and len(page.devices) == 1)

    def logout(self) -> None:
        self.open("Logout", "Somebody has copied the laptop's cookie before.")
        thief = Browser("thief", self.address, self.laptop.sid)
        claim(
            "while alice is logged in the copy would work: that is what a session id is",
            thief.get("/devices").status == 200,
        )
        page = self.laptop.post("/logout")
        claim("logged out, and the browser forgets the cookie", page.status == 303 and not self.laptop.sid)
        self.refused("the copy is refused: the session is gone from the server", thief)

    def idle(self) -> None:
        self.open("Idle", "Ten minutes without a request end a session. The clock of this store is moved by hand.")
        self.laptop.log_in()
        for _ in range(2):
            self.wait(timedelta(minutes=9, seconds=59))
            claim("still in: every use begins the ten minutes anew", self.laptop.get("/devices").status == 200)
        self.wait(timedelta(minutes=10))
        self.refused("ten minutes without use: out", self.laptop)

    def sweep(self) -> None:
        self.open("Sweep", "Expired sessions are refused at once; a sweep gives their memory back.")
        self.wait(timedelta(minutes=10))
        before = self.store.stats()
        removed = self.store.sweep()
        after = self.store.stats()
        say(f"  store   sweep: {removed} removed")
        claim(
            "everything was expired, and the store is empty again",
            removed == before.sessions > 0 and (after.sessions, after.bytes) == (0, 0),
        )
        for name, value in after._asdict().items():
            say(paint(DIM, f"          {name:<10} {value:>4}"))
        claim("nothing went wrong in the store", after.errors == after.rejected == 0)

    def store_down(self) -> None:
        self.open("The store is down", "It is closed under the running server.")
        self.laptop.get("/visits")
        before = self.laptop.sid
        self.store.close()
        page = self.laptop.get("/visits")
        claim(
            "503, and no empty session instead: the cookie stays as it is",
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
        claim(what, page.status == 303 and page.location == "/login")


def find_refs(row: str) -> list[str]:
    return re.findall('name="ref" value="(.*?)"', row)


def table(page: Page) -> None:
    for cells, _ in page.devices:
        say(paint(DIM, "          " + "   ".join(cells[:-1])))


def claim(what: str, holds: bool) -> None:
    if not holds:
        raise Broken(f"it is not so that {what}")
    say(f"  {paint(GREEN, '✓')} {what}")


def short(sid: str) -> str:
    return sid[:6] + "…"


def paint(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if COLOURS else text


def say(line: str) -> None:
    print(line, flush=True)
