"""The example login_app.py as two processes on one store, started as docs/redis.md says: they are one site.

On the engine under test, which has to be a shared one: lmdb: stands in for memory:.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from place import ENGINE, Place
from website import EXAMPLES, Site, serving

COMMAND = "python3 examples/python/login_app.py --serve --port "
DOCS = EXAMPLES.parents[1] / "docs" / "redis.md"


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    lines = [line.strip() for line in DOCS.read_text(encoding="utf-8").splitlines()]
    assert sum(line.startswith(COMMAND) for line in lines) == 2
    with Place("lmdb" if ENGINE == "memory" else ENGINE) as place:
        url = place.url("timeout=8h", "idle_timeout=10m")
        with serving(SESSION_STORE=url) as one, serving(SESSION_STORE=url) as other:
            yield one, other


def test_who_logs_in_on_one_is_in_on_both(sites: tuple[Site, Site]) -> None:
    one, other = sites
    before = one.get("/visits").sid
    sid = one.log_in(sid=before)
    seen = other.get("/devices", sid)
    assert (seen.status, len(seen.refs)) == (200, 1)
    # The id from before the login is dead on both.
    for site in sites:
        assert site.get("/devices", before).location == "/login"
    assert [site.get("/visits", sid).visits for site in (one, other, one)] == [2, 3, 4]


def test_who_logs_out_on_one_is_out_on_both(sites: tuple[Site, Site]) -> None:
    one, other = sites
    sid = one.log_in()
    csrf = other.get("/devices", sid).csrf
    assert other.post("/logout", sid, csrf).status == 303
    for site in sites:
        assert site.get("/devices", sid).location == "/login"


def test_a_device_is_ended_from_the_other_server(sites: tuple[Site, Site]) -> None:
    one, other = sites
    laptop, phone = one.log_in(), other.log_in()
    page = one.get("/devices", laptop)
    assert one.post("/devices/end-others", laptop, page.csrf).status == 303
    assert other.get("/devices", phone).location == "/login"
    assert len(other.get("/devices", laptop).refs) == 1


def test_a_redis_that_is_down_is_503_and_no_cookie_changes() -> None:
    # Nobody listens there. More requests than the store lets fail before it answers at once.
    with serving(SESSION_STORE="redis://127.0.0.1:1") as site:
        for _ in range(5):
            for answer in (site.get("/visits"), site.get("/visits", "A" * 128)):
                assert (answer.status, answer.cookie, answer.headers["Retry-After"]) == (503, "", "5")
