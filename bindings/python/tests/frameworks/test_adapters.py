"""What every adapter promises: one site in four frameworks, over HTTP, on the engine under test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sites import FRAMEWORKS, Site, serving
from temporary_store import TemporaryStore

from session_server_store import Store


@pytest.fixture(scope="module", params=FRAMEWORKS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with TemporaryStore() as temporary, serving(request.param, temporary.url("timeout=30d")) as running:
        yield running


@pytest.fixture
def store(site: Site) -> Iterator[Store]:
    with site.store() as opened:
        yield opened


# Which sessions are stored, and under which ids.


def test_read_stores_nothing(site: Site, store: Store) -> None:
    before = store.stats().sessions
    browser = site.browser()
    response = browser.get("/get")
    assert response.json == {}
    assert not response.cookies
    assert store.stats().sessions == before


def test_data_come_back(site: Site) -> None:
    browser = site.browser()
    assert browser.post("/set", colour="blue").status == 200
    assert len(browser.sid) == 128
    assert browser.get("/get").json == {"colour": "blue"}


@pytest.mark.parametrize("sid", ["A" * 128, "x" * 40, "short", "ä" * 128])
def test_unknown_id_is_not_adopted(site: Site, sid: str) -> None:
    browser = site.browser()
    response = browser.request("POST", "/set", {"a": "1"}, cookie_header=f"sid={sid}".encode().decode("latin-1"))
    assert response.status == 200
    assert browser.sid not in ("", sid)


def test_unknown_cookie_survives_read(site: Site) -> None:
    browser = site.browser("B" * 128)
    response = browser.get("/get")
    assert response.json == {}
    assert not response.cookies


def test_ended_id_does_not_hide_living_one(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    header = f"sid={'C' * 128}; other=x; sid={browser.sid}"
    assert browser.request("GET", "/get", {}, cookie_header=header).json == {"a": "1"}


def test_malformed_cookie_does_not_hide_session(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    header = f'theme="dark; sid={browser.sid}'
    assert browser.request("GET", "/get", {}, cookie_header=header).json == {"a": "1"}


def test_unused_session_gets_no_cookie(site: Site) -> None:
    response = site.browser().get("/plain")
    assert (response.status, list(response.cookies), response.varies) == (200, [], False)


def test_cookie_attributes(site: Site) -> None:
    response = site.browser().post("/set", a="1")
    morsel = response.cookies["sid"]
    assert morsel["httponly"]
    assert morsel["secure"]
    assert morsel["samesite"].lower() == "lax"
    assert morsel["path"] == "/"
    assert not morsel["domain"]


def test_vary_where_session_is_used(site: Site) -> None:
    browser = site.browser()
    assert browser.post("/set", a="1").varies
    assert browser.get("/get").varies


def test_read_does_not_write(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    for _ in range(3):
        browser.get("/get")
    session = store.get(browser.sid, peek=True)
    assert session is not None
    assert session.version == 1


def test_read_restarts_idle_timeout(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    first = store.get(browser.sid, peek=True)
    while (later := store.get(browser.sid, peek=True)) and first and later.last_seen == first.last_seen:
        browser.get("/get")
    assert later is not None


# Login and logout.


def test_login_gives_new_id(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", cart="3")
    planted = browser.copy()
    assert browser.post("/login", user="alice").status == 200
    assert browser.sid not in ("", planted.sid)
    data = browser.get("/get").json
    assert data["cart"] == "3"
    assert data[site.user_key]
    assert planted.get("/get").json == {}


def test_login_sets_principal(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/login", user="bob")
    user = browser.get("/get").json[site.user_key]
    refs = [info.ref for info in store.list(user)]
    assert store.ref(browser.sid) in refs


def test_second_login_of_another_user_gives_new_id(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    first = browser.copy()
    alice = browser.get("/get").json[site.user_key]
    browser.post("/login", user="bob")
    assert browser.sid != first.sid
    assert first.get("/get").json == {}
    assert store.ref(browser.sid) not in [info.ref for info in store.list(alice)]


def test_logout_ends_session(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    thief = browser.copy()
    response = browser.post("/logout")
    assert "sid" in response.cookies
    assert browser.sid == ""
    assert store.get(thief.sid) is None
    assert thief.get("/get").json == {}


def test_logout_ends_all_sessions_of_browser(site: Site, store: Store) -> None:
    first, second = site.browser(), site.browser()
    first.post("/login", user="alice")
    second.post("/login", user="alice")
    header = f"sid={first.sid}; sid={second.sid}"
    first.copy().request("POST", "/logout", {}, cookie_header=header)
    assert store.get(first.sid) is None
    assert store.get(second.sid) is None


def test_renew_gives_new_id(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    old = browser.copy()
    browser.post("/renew")
    assert browser.sid != old.sid
    assert browser.get("/get").json == {"a": "1"}
    assert old.get("/get").json == {}


def test_login_restarts_absolute_timeout(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    visitor = store.get(browser.sid, peek=True)
    browser.post("/login", user="alice")
    session = store.get(browser.sid, peek=True)
    assert visitor is not None
    assert session is not None
    assert visitor.authenticated is None
    assert session.authenticated is not None
    assert session.created == visitor.created


def test_reauthentication_restarts_absolute_timeout(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    before, old = store.get(browser.sid, peek=True), browser.sid
    browser.post("/renew")
    rotated = store.get(browser.sid, peek=True)
    browser.post("/renew", again="yes")
    after = store.get(browser.sid, peek=True)
    assert before is not None
    assert rotated is not None
    assert after is not None
    assert browser.sid != old
    assert rotated.authenticated == before.authenticated
    assert after.authenticated is not None
    assert before.authenticated is not None
    assert after.authenticated >= before.authenticated
    assert site.browser(browser.sid).get("/get").json[site.user_key]


# Parallel requests.


def test_late_write_does_not_revive_session(site: Site, store: Store) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    sid, before = browser.sid, store.stats().sessions
    late = browser.held("/set", late="yes")
    browser.post("/logout")
    response = late.release()
    assert not response.cookies
    assert store.get(sid) is None
    assert store.stats().sessions == before - 1


@pytest.mark.parametrize("path", ["/set", "/logout", "/renew"])
def test_late_answer_leaves_cookie_of_parallel_login(site: Site, path: str) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    late = browser.held(path, **({"b": "2"} if path == "/set" else {}))
    browser.post("/login", user="alice")
    response = late.release()
    if path == "/renew" and site.framework == "django":
        # cycle_key promises a key, and there is one, but without the data of the ended session.
        assert late.browser.get("/get").json == {}
    else:
        assert not response.cookies
    assert browser.get("/get").json[site.user_key]


def test_renew_of_ended_session_brings_no_data_back(site: Site) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    late = browser.held("/renew")
    browser.post("/logout")
    late.release()
    assert late.browser.get("/get").json == {}


def test_login_on_ended_session_has_only_new_data(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", cart="3")
    late = browser.held("/login", user="alice")
    browser.post("/logout")
    assert late.release().status == 200
    data = late.browser.get("/get").json
    assert list(data) == [site.user_key]


def test_user_change_on_ended_session_is_dropped(site: Site) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    revoked = browser.copy()
    user = browser.get("/get").json[site.user_key]
    late = browser.held("/set", **{site.user_key: "2", "switched": "yes"})
    with site.store() as store:
        store.revoke(user)
    late.release()
    assert late.browser.get("/get").json == {}
    assert revoked.get("/get").json == {}


def test_parallel_keys_are_all_kept(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", first="1")
    # All have read the session before the first of them writes.
    held = [browser.held("/set", **{f"key{n}": str(n)}) for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda request: request.release(), held))
    assert [answer.status for answer in answers] == [200] * 20
    assert browser.get("/get").json == {"first": "1"} | {f"key{n}": str(n) for n in range(20)}


def test_parallel_set_and_remove_are_both_kept(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="1", b="2", c="3")
    removal = browser.held("/remove", a="")
    change = browser.held("/set", b="changed")
    browser.post("/set", d="4")
    removal.release()
    change.release()
    assert browser.get("/get").json == {"b": "changed", "c": "3", "d": "4"}


def test_stale_value_is_not_written_back(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="old")
    late = browser.held("/set", b="2")
    browser.post("/set", a="new")
    late.release()
    assert browser.get("/get").json == {"a": "new", "b": "2"}


def test_parallel_write_survives_login(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    login = browser.held("/login", user="alice")
    browser.post("/set", b="2")
    login.release()
    data = login.browser.get("/get").json
    assert (data["a"], data["b"]) == ("1", "2")


def test_nested_change_is_written(site: Site) -> None:
    browser = site.browser()
    browser.post("/cart")
    browser.post("/nested", item="book")
    assert browser.get("/get").json == {"cart": ["book"]}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_conflict_last_overwrites(framework: str) -> None:
    with TemporaryStore() as temporary, serving(framework, temporary.url("timeout=30d"), conflict="last") as site:
        browser = site.browser()
        browser.post("/set", a="old")
        late = browser.held("/set", b="2")
        browser.post("/set", a="new")
        late.release()
        assert browser.get("/get").json == {"a": "old", "b": "2"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_conflict_error_is_409(framework: str) -> None:
    with TemporaryStore() as temporary, serving(framework, temporary.url("timeout=30d"), conflict="error") as site:
        browser = site.browser()
        browser.post("/set", a="old")
        late = browser.held("/set", b="2")
        browser.post("/set", a="new")
        response = late.release()
        assert (response.status, list(response.cookies)) == (409, [])
        assert browser.get("/get").json == {"a": "new"}


# Devices.


def test_devices_mark_this_one(site: Site) -> None:
    browser, other = site.browser(), site.browser()
    browser.post("/login", user="bob")
    other.post("/login", user="bob")
    devices = browser.get("/devices").json
    assert [device["current"] for device in devices].count(True) == 1
    assert len(devices) >= 2
    assert browser.sid not in browser.get("/devices").body


def test_devices_have_labels(site: Site) -> None:
    browser = site.browser()
    browser.post("/login", user="bob")
    (label,) = [device["label"] for device in browser.get("/devices").json if device["current"]]
    assert label == "Firefox on Linux, 127.0.0.1"


def test_label_survives_new_id(site: Site) -> None:
    browser = site.browser()
    browser.post("/login", user="bob")
    for path in ("/renew", "/renew?again=yes"):
        browser.agent = "curl/8.5.0"
        assert browser.post(path).status == 200
        (label,) = [device["label"] for device in browser.get("/devices").json if device["current"]]
        assert label == "Firefox on Linux, 127.0.0.1"


def test_end_device_logs_it_out(site: Site, store: Store) -> None:
    browser, other = site.browser(), site.browser()
    browser.post("/login", user="bob")
    other.post("/login", user="bob")
    ref = store.ref(other.sid)
    assert ref is not None
    assert browser.post("/end-device", ref=ref.hex()).json == {"ended": True}
    assert other.get("/get").json == {}
    assert browser.post("/end-device", ref=ref.hex()).json == {"ended": False}


@pytest.mark.parametrize("ref", ["", "zz", "00", "00" * 32])
def test_end_device_with_wrong_reference(site: Site, ref: str) -> None:
    browser = site.browser()
    browser.post("/login", user="bob")
    assert browser.post("/end-device", ref=ref).json == {"ended": False}


def test_end_device_of_another_user_is_refused(site: Site, store: Store) -> None:
    browser, victim = site.browser(), site.browser()
    browser.post("/login", user="bob")
    victim.post("/login", user="alice")
    ref = store.ref(victim.sid)
    assert ref is not None
    assert browser.post("/end-device", ref=ref.hex()).json == {"ended": False}
    assert victim.get("/get").json[site.user_key]


def test_end_others_keeps_this_device(site: Site) -> None:
    browser, other = site.browser(), site.browser()
    browser.post("/login", user="bob")
    other.post("/login", user="bob")
    assert browser.post("/end-others").json["ended"] >= 1
    assert other.get("/get").json == {}
    assert browser.get("/get").json[site.user_key]


# Failures.


def test_crashed_request_writes_nothing(site: Site) -> None:
    browser = site.browser()
    browser.post("/set", a="1")
    assert browser.get("/crash").status == 500
    data = browser.get("/get").json
    if site.framework != "flask":  # which saves the session of a request that fails, as it always has
        assert data == {"a": "1"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("path", ["/get", "/set"])
def test_unreachable_store_is_503(framework: str, path: str) -> None:
    with serving(framework, "redis://127.0.0.1:1?deadline=200ms") as site:
        browser = site.browser("D" * 128)
        response = browser.request("GET" if path == "/get" else "POST", path, {"a": "1"})
        assert (response.status, list(response.cookies)) == (503, [])
        assert int(response.headers["Retry-After"]) > 0
        assert "not logged out" in response.body
        assert browser.sid == "D" * 128
        assert site.browser().get("/plain").status == 200
        # Without a cookie, the first write fails.
        assert site.browser().post("/set", a="1").status == 503


def test_no_id_in_responses(site: Site) -> None:
    browser = site.browser()
    browser.post("/login", user="alice")
    for path in ("/get", "/devices"):
        assert not re.search("[A-Za-z0-9_-]{128}", browser.get(path).body)


def test_secure_can_be_switched_off() -> None:
    results: dict[str, Any] = {}
    for framework in FRAMEWORKS:
        with TemporaryStore() as temporary, serving(framework, temporary.url(), secure=False) as site:
            results[framework] = site.browser().post("/set", a="1").cookies["sid"]["secure"]
    assert results == dict.fromkeys(FRAMEWORKS, "")
