"""Two processes of login_app.py on one store, started as docs/redis.md describes, are one site.

Uses lmdb: if the engine under test is memory:.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from temporary_store import ENGINE, TemporaryStore
from website import EXAMPLES, Site, serving

COMMAND = "python3 examples/python/login_app.py --serve --port "
DOCS = EXAMPLES.parents[1] / "docs" / "redis.md"


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    lines = [line.strip() for line in DOCS.read_text(encoding="utf-8").splitlines()]
    assert sum(line.startswith(COMMAND) for line in lines) == 2
    with TemporaryStore("lmdb" if ENGINE == "memory" else ENGINE) as temporary:
        url = temporary.url("timeout=8h", "idle_timeout=10m")
        with serving(SESSION_STORE=url) as one, serving(SESSION_STORE=url) as other:
            yield one, other


def test_login_takes_effect_on_both_servers(sites: tuple[Site, Site]) -> None:
    one, other = sites
    before = one.get("/visits").sid
    sid = one.log_in(sid=before)
    seen = other.get("/devices", sid)
    assert (seen.status, len(seen.refs)) == (200, 1)
    for site in sites:
        assert site.get("/devices", before).location == "/login"
    assert [site.get("/visits", sid).visits for site in (one, other, one)] == [2, 3, 4]


def test_logout_takes_effect_on_both_servers(sites: tuple[Site, Site]) -> None:
    one, other = sites
    sid = one.log_in()
    csrf = other.get("/devices", sid).csrf
    assert other.post("/logout", sid, csrf).status == 303
    for site in sites:
        assert site.get("/devices", sid).location == "/login"


def test_device_ended_on_other_server(sites: tuple[Site, Site]) -> None:
    one, other = sites
    laptop, phone = one.log_in(), other.log_in()
    page = one.get("/devices", laptop)
    assert one.post("/devices/end-others", laptop, page.csrf).status == 303
    assert other.get("/devices", phone).location == "/login"
    assert len(other.get("/devices", laptop).refs) == 1


def test_unreachable_redis_is_503() -> None:
    # More requests than failures after which the store stops to connect for a while.
    with serving(SESSION_STORE="redis://127.0.0.1:1") as site:
        for _ in range(5):
            for answer in (site.get("/visits"), site.get("/visits", "A" * 128)):
                assert (answer.status, answer.cookie, answer.headers["Retry-After"]) == (503, "", "5")
