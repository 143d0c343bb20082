"""The example's login as it runs on several hosts: two processes that have nothing in common but the store's URL.

For the engines of `redis:`, as tests/run.py starts it on a Cluster; docs/redis.md has the command lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from place import IS_REDIS, Place
from test_login_app import serving
from website import Site

pytestmark = pytest.mark.skipif(not IS_REDIS, reason="only redis: is for several hosts")


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Site, Site]]:
    url = Place().url("timeout=12h", "idle_timeout=15m")
    with serving("--url", url) as one, serving("--url", url) as other:
        yield one, other


def test_who_logs_in_on_one_is_known_on_the_other(hosts: tuple[Site, Site]) -> None:
    one, other = hosts
    sid = one.log_in()
    assert other.get("/devices", sid).refs == one.get("/devices", sid).refs != []


def test_an_id_that_login_replaced_is_dead_on_both(hosts: tuple[Site, Site]) -> None:
    one, other = hosts
    planted = one.get("/login").sid
    sid = other.log_in(sid=planted)
    for site in hosts:
        assert site.get("/devices", sid).status == 200
        assert site.get("/devices", planted).location == "/login"


def test_logout_on_one_is_logout_on_both(hosts: tuple[Site, Site]) -> None:
    one, other = hosts
    sid = one.log_in()
    assert other.post("/logout", sid, one.get("/devices", sid).csrf).status == 303
    for site in hosts:
        assert site.get("/devices", sid).location == "/login"


def test_log_out_my_other_devices_reaches_those_on_the_other(hosts: tuple[Site, Site]) -> None:
    one, other = hosts
    here, there = one.log_in("bob", "yellow-submarine"), other.log_in("bob", "yellow-submarine")
    assert one.post("/devices/end-others", here, one.get("/devices", here).csrf).status == 303
    assert [other.get("/devices", sid).status for sid in (here, there)] == [200, 303]


def test_visits_on_both_at_once_lose_no_count(hosts: tuple[Site, Site]) -> None:
    sid = hosts[0].get("/visits").sid
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: hosts[number % 2].get("/visits", sid), range(40)))
    assert [answer.status for answer in answers] == [200] * 40
    assert sorted(answer.visits for answer in answers) == list(range(2, 42))
