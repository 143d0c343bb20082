"""The example login_app.py as a user runs it: its walk in a terminal, its server over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Optional
from urllib.parse import urlencode

import pytest
from website import APP, EXAMPLES, FORM, Site, serving

WELL_FORMED = "A" * 128
PAGES = ("/", "/visits", "/login", "/devices")
BUTTONS = ("/login", "/logout", "/devices/end", "/devices/end-others")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as running:
        yield running


def walk(before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the walk, after the Python code `before` in the same interpreter."""
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); sys.argv = ['login_app.py']\n{before}\n"
    code += "import login_app; sys.exit(login_app.main())"
    return subprocess.run(
        [sys.executable, "-W", "error", *(["-c", code] if before else [str(APP)])],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


# The walk.


def test_walk_passes_every_scene() -> None:
    done = walk()
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "✓ the store is empty",
        "✓ it is not adopted: the session gets another id",
        "✓ right password with the token: logged in, under a new id",
        "✓ the old id has ended, for an attacker who knows or has set it",
        "✓ no update was lost: 5 + 20 + 1 = 26",
        "✓ alice sees both, and which one she is using",
        "✓ bob cannot end a session of alice by its reference",
        "✓ only the laptop is still logged in",
        "✓ the copy is refused: the server has ended the session",
        "✓ ten minutes without a request: logged out",
        "✓ all had expired, and the store is empty again",
        "✓ 503, and no new session: the cookie stays",
        "All 12 scenes passed.",
    ):
        assert line in done.stdout
    assert re.search(
        r"laptop  POST /login +sid=\S{6}…  303  to /\n +Set-Cookie: sid=\S{6}…; Path=/; HttpOnly", done.stdout
    )


def test_walk_output_has_no_id_and_no_colour() -> None:
    out = walk().stdout
    assert not re.search("[A-Za-z0-9_-]{43}", out)
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("sabotage", "scene", "complaint"),
    [
        ("Store.renew = lambda self, sid, **options: sid", 4, "under a new id"),
        ("Store.delete = lambda self, sid: True", 9, "the copy is refused"),
        ("Store.delete_ref = lambda self, ref, principal: principal == 'alice'", 7, "alice ends her phone"),
        ("Store.revoke = lambda self, principal, **options: 0", 8, "the phone is logged out"),
        (
            "import login_app; login_app.WALK_URL = login_app.WALK_URL.replace('10m', '20m')",
            10,
            "ten minutes without a request: logged out",
        ),
        ("Store.sweep = lambda self, max=1000: 0", 11, "the store is empty again"),
        ("Store.close = lambda self: None", 12, "503, and no new session"),
    ],
)
def test_walk_fails_on_broken_store(sabotage: str, scene: int, complaint: str) -> None:
    done = walk(f"from session_server_store import Store\n{sabotage}")
    assert done.returncode == 1
    assert re.search(f"^scene {scene} failed: .*{re.escape(complaint)}", done.stderr, re.MULTILINE)
    assert "All 12 scenes" not in done.stdout


# The server: sessions.


def test_reading_pages_sets_no_cookie(site: Site) -> None:
    for path in ("/", "/devices"):
        assert site.get(path).cookie == ""
        assert site.get(path, WELL_FORMED).cookie == ""


def test_cookie_attributes(site: Site) -> None:
    assert re.fullmatch("sid=[A-Za-z0-9_-]{128}; Path=/; HttpOnly; SameSite=Lax", site.get("/visits").cookie)


@pytest.mark.parametrize("sid", [WELL_FORMED, "admin", "A" * 127, "A" * 129])
def test_unknown_id_is_not_adopted(site: Site, sid: str) -> None:
    for path in ("/visits", "/login"):
        answer = site.get(path, sid)
        assert answer.status == 200
        assert len(answer.sid) == 128
        assert answer.sid != sid
    assert site.get("/visits", sid).visits == 1


def test_login_replaces_planted_id(site: Site) -> None:
    planted = site.get("/login").sid
    sid = site.log_in(sid=planted)
    assert sid != planted
    assert site.get("/devices", sid).status == 200
    assert site.get("/devices", planted).location == "/login"


def test_login_keeps_session_data(site: Site) -> None:
    sid = site.get("/visits").sid
    assert site.get("/visits", site.log_in(sid=sid)).visits == 2


@pytest.mark.parametrize(
    ("user", "password"),
    [("alice", "x"), ("alice", ""), ("alice", "yellow-submarine"), ("mallory", "wonderland"), ("", "")],
)
def test_wrong_credentials_are_refused(site: Site, user: str, password: str) -> None:
    form = site.get("/login")
    answer = site.post("/login", form.sid, form.csrf, user=user, password=password)
    assert (answer.status, answer.cookie) == (403, "")
    assert "Wrong name or password." in answer.body
    assert site.get("/devices", form.sid).location == "/login"


def test_post_without_csrf_token_is_refused(site: Site) -> None:
    sid = site.log_in()
    (ref, *_) = site.get("/devices", sid).refs
    foreign = site.get("/login").csrf
    for path in BUTTONS:
        for csrf in (None, "", "x", "é", foreign):
            answer = site.post(path, sid, csrf, ref=ref, user="bob", password="yellow-submarine")
            assert (answer.status, answer.cookie) == (403, "")
    assert site.get("/devices", sid).status == 200


def test_csrf_token_without_its_session(site: Site) -> None:
    form = site.get("/login")
    for sid in ("", WELL_FORMED, site.get("/login").sid):
        assert site.post("/login", sid, form.csrf, user="alice", password="wonderland").status == 403


def test_login_replaces_csrf_token(site: Site) -> None:
    form = site.get("/login")
    sid = site.log_in(sid=form.sid)
    assert site.post("/logout", sid, form.csrf).status == 403
    assert site.get("/devices", sid).status == 200


def test_second_login_form_keeps_token(site: Site) -> None:
    first = site.get("/login")
    second = site.get("/login", first.sid)
    assert (second.csrf, second.cookie) == (first.csrf, "")


def test_session_of_other_user_cannot_be_ended(site: Site) -> None:
    alice, bob = site.log_in(), site.log_in("bob", "yellow-submarine")
    refs, page = site.get("/devices", alice).refs, site.get("/devices", bob)
    assert not set(refs) & set(page.refs)
    for ref in refs:
        assert site.post("/devices/end", bob, page.csrf, ref=ref).status == 404
    assert site.post("/devices/end-others", bob, page.csrf).status == 303
    assert site.get("/devices", alice).refs == refs


@pytest.mark.parametrize(
    ("ref", "status"),
    [("", 404), ("zz", 400), ("abc", 400), ("é", 400), ("00" * 32, 404), ("00" * 31, 404), ("00" * 99, 404)],
)
def test_invalid_reference_ends_nothing(site: Site, ref: str, status: int) -> None:
    sid = site.log_in()
    assert site.post("/devices/end", sid, site.get("/devices", sid).csrf, ref=ref).status == status
    assert site.get("/devices", sid).status == 200


def test_ending_this_device_logs_out(site: Site) -> None:
    sid = site.log_in()
    page = site.get("/devices", sid)
    mine = re.findall('this device.*?name="ref" value="(.*?)"', page.body)
    answer = site.post("/devices/end", sid, page.csrf, ref=mine[0])
    assert (answer.status, answer.location, answer.sid) == (303, "/", "")
    assert site.get("/devices", sid).location == "/login"


def test_ending_other_devices_keeps_this_one(site: Site) -> None:
    laptop, phone, tablet = (site.log_in() for _ in range(3))
    assert site.post("/devices/end-others", laptop, site.get("/devices", laptop).csrf).location == "/devices"
    assert [site.get("/devices", sid).status for sid in (laptop, phone, tablet)] == [200, 303, 303]
    assert len(site.get("/devices", laptop).refs) == 1


def test_copied_cookie_after_logout(site: Site) -> None:
    sid = site.log_in()
    csrf = site.get("/devices", sid).csrf
    answer = site.post("/logout", sid, csrf)
    assert (answer.status, answer.cookie) == (303, "sid=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
    assert site.get("/devices", sid).location == "/login"
    for path in BUTTONS:
        assert site.post(path, sid, csrf).status == 403
    assert site.get("/visits", sid).sid not in ("", sid)


def test_concurrent_visits_are_all_counted(site: Site) -> None:
    sid = site.get("/visits").sid
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: site.get("/visits", sid), range(50)))
    assert Counter(answer.status for answer in answers) == {200: 50}
    assert sorted(answer.visits for answer in answers) == list(range(2, 52))
    assert site.get("/visits", sid).visits == 52


def test_change_retries_after_conflict() -> None:
    # The conflict is forced here: over HTTP the time between the read and the write is too short.
    done = walk(
        """
from login_app import LoginApp
from session_server_store import Store
store = Store()
app = LoginApp(store)
sid = store.create({"visits": 1})
attempts = []
def count(data):
    attempts.append(data["visits"])
    if len(attempts) < 4:
        store.put(sid, {"visits": data["visits"] + 10})
    return {"visits": data["visits"] + 1}
print(app.change(sid, store.get(sid), count).payload, attempts, store.stats().conflicts)
sys.exit()
"""
    )
    assert (done.stdout, done.stderr) == ("{'visits': 32} [1, 11, 21, 31] 3\n", "")


def test_change_of_ended_session_returns_none() -> None:
    done = walk(
        """
from login_app import LoginApp
from session_server_store import Store
store = Store()
app = LoginApp(store)
sid = store.create({"visits": 1})
print(app.change(sid, store.get(sid), lambda data: {"gone": store.delete(sid)}), store.get(sid), store.stats().sessions)
sys.exit()
"""
    )
    assert (done.stdout, done.stderr) == ("None None 0\n", "")


def test_full_store_is_503() -> None:
    with serving("--url", "memory:?max_sessions=1") as site:
        sid = site.get("/visits").sid
        for cookie in ("", f"sid={WELL_FORMED}"):
            answer = site.ask("GET", "/visits", cookie)
            assert (answer.status, answer.cookie, answer.headers["Retry-After"]) == (503, "", "5")
        assert site.get("/visits", sid).visits == 2


# The server: HTTP.


@pytest.mark.parametrize(
    "cookie",
    [
        "sid",
        "sid=",
        "=sid",
        ";;;=;=;",
        "sid=%00; sid=\x01",
        "sid=\xff\xfe\xe9",
        "sid=" + "A" * 60000,
        'sid="quoted"; a="b;c\\',
        "sid=../../etc/passwd",
        "sid={}".format("\xa0" * 128),
    ],
)
def test_malformed_cookie_is_no_session(site: Site, cookie: str) -> None:
    assert [site.ask("GET", path, cookie).status for path in PAGES] == [200, 200, 200, 303]


@pytest.mark.parametrize("neighbours", ['[bad]=1; x="; {{}}; =; sid={}; ,=', "a,b=c;sid={}", "x={{}}; sid={}"])
def test_session_beside_malformed_cookies(site: Site, neighbours: str) -> None:
    sid = site.get("/visits").sid
    assert site.ask("GET", "/visits", neighbours.format(sid)).visits == 2


@pytest.mark.parametrize(
    "cookies", ["sid={dead}; sid={sid}", "sid={sid}; sid={dead}", "sid=; sid=x; sid={dead}; sid={sid}"]
)
def test_session_beside_ended_session(site: Site, cookies: str) -> None:
    dead = site.log_in()
    site.post("/logout", dead, site.get("/devices", dead).csrf)
    sid = site.log_in()
    both = cookies.format(dead=dead, sid=sid)
    page = site.ask("GET", "/devices", both)
    assert (page.status, page.cookie) == (200, "")
    form = urlencode({"csrf": page.csrf})
    assert site.ask("POST", "/logout", both, form, Content_Type=FORM).location == "/"
    assert site.get("/devices", sid).location == "/login"


def test_logout_ends_every_session_of_the_request(site: Site) -> None:
    first, second = site.log_in(), site.log_in()
    csrf = site.get("/devices", first).csrf
    form = urlencode({"csrf": csrf})
    assert site.ask("POST", "/logout", f"sid={first}; sid={second}", form, Content_Type=FORM).location == "/"
    assert [site.get("/devices", sid).location for sid in (first, second)] == ["/login"] * 2


def test_form_input_is_escaped(site: Site) -> None:
    form = site.get("/login")
    typed = "\"><script>alert(1)</script>'&"
    body = site.post("/login", form.sid, form.csrf, user=typed, password="x").body
    assert "<script" not in body
    assert "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#x27;&amp;" in body


def test_security_headers_on_every_response(site: Site) -> None:
    sid = site.log_in()
    answers = [site.get(path, sid) for path in (*PAGES, "/nowhere")] + [site.ask("PUT", "/"), site.ask("SPAM", "/")]
    assert Counter(answer.status for answer in answers) == {200: 3, 303: 1, 404: 1, 405: 2}
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert answer.headers["Server"] == "login_app"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "http://" not in answer.body
        assert "https://" not in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("POST", "/nowhere", 404, None),
        ("GET", "//devices/", 404, None),
        ("GET", "/devices/../login", 404, None),
        ("GET", "/logout", 405, "POST"),
        ("HEAD", "/logout", 405, "POST"),
        ("POST", "/visits", 405, "GET, HEAD"),
        ("DELETE", "/login", 405, "GET, POST, HEAD"),
        ("HEAD", "/", 200, None),
        ("GET", "/?a=b", 200, None),
    ],
)
def test_methods_and_paths(site: Site, method: str, path: str, status: int, allow: Optional[str]) -> None:
    answer = site.ask(method, path)
    assert (answer.status, answer.headers["Allow"]) == (status, allow)
    assert (answer.body == "") == (method == "HEAD")


def head(length: str, kind: str = FORM) -> bytes:
    lines = ["POST /login HTTP/1.1", "Host: x", f"Content-Type: {kind}", length]
    return "\r\n".join(filter(None, lines)).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (head("Content-Length: 4097"), 413),
        (head("Content-Length: 99999999999999999999999"), 413),
        (head("Content-Length: " + "9" * 5000), 413),
        (head("Content-Length: -1"), 400),
        (head("Content-Length: 1e3"), 400),
        (head("Content-Length: ²"), 400),
        (head("Transfer-Encoding: chunked") + b"0\r\n\r\n", 411),
        (head(""), 411),
        (head("Content-Length: 2", "application/json") + b"{}", 415),
        (head("Content-Length: 3") + b"a=\xff", 400),
        (head("Content-Length: 5") + b"a=%ff", 400),
        (head("Content-Length: 39") + b"&".join(b"%d=1" % n for n in range(10)), 403),
        (head("Content-Length: 44") + b"&".join(b"%d=1" % n for n in range(11)), 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", 414),
    ],
)
def test_status_of_bad_request(site: Site, request_bytes: bytes, status: int) -> None:
    line, _, rest = site.raw(request_bytes).partition(b"\r\n")
    assert line.split()[1] == str(status).encode()
    assert b"Set-Cookie" not in rest


@pytest.mark.parametrize("noise", [b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\n", b"\x00" * 999])
def test_bytes_that_are_not_http(site: Site, noise: bytes) -> None:
    site.raw(noise)
    assert site.get("/").status == 200


def test_truncated_form_is_400(site: Site) -> None:
    assert site.raw(head("Content-Length: 100") + b"user=alice").split()[1] == b"400"
    assert site.get("/").status == 200


def test_oversized_form_is_413(site: Site) -> None:
    form = site.get("/login")
    try:
        status = site.post("/login", form.sid, form.csrf, user="alice", password="x" * 10_000_000).status
    except ConnectionError:  # the server closed the connection before the end of the form
        status = 413
    assert status == 413
    assert site.post("/login", form.sid, form.csrf, user="alice", password="wonderland").status == 303


# The command line.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--serve", "--url", "memory:?colour=red"], "colour"),
        (["--serve", "--url", "nonsense:"], "nonsense"),
        (["--serve", "--port", "99999"], "port"),
        (["--spam"], "--spam"),
    ],
)
def test_wrong_argument_is_named(arguments: list[str], complaint: str) -> None:
    done = subprocess.run(
        [sys.executable, str(APP), *arguments], capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]


def test_store_url_from_environment() -> None:
    done = subprocess.run(
        [sys.executable, str(APP), "--serve"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env={**os.environ, "SESSION_STORE": "nonsense:"},
    )
    assert done.returncode == 2
    assert "nonsense" in done.stderr.splitlines()[-1]
