"""The Cookie header, however odd: the cookie that is asked for is found, and nothing raises."""

from __future__ import annotations

import doctest
import itertools

import pytest

import session_server_store.cookies
from session_server_store import cookie_values

SID = "A" * 128
NEIGHBOURS = [
    "[bad]=1",
    'x="',
    'x="a\\',
    'x=a"b',
    "{}",
    "=",
    "=x",
    "",
    'x={"a":1}',
    "x=a b",
    "x=\xe9",
    "x=\x01",
    "x=1,2",
    "x=a=b",
    "x",
    "sidx=1",
    "xsid=1",
    "SID=1",
    "a,b=c",
    "x/y=1",
    "@=1",
    "\xa0sid=1",
    "expires=Wed, 01 Jan 2020 00:00:00 GMT",
    "path=/",
    "secure",
    "HttpOnly",
    "$Version=1",
]


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_cookie_with_odd_neighbour(neighbour: str) -> None:
    assert cookie_values(f"{neighbour}; sid={SID}", "sid") == [SID]
    assert cookie_values(f"sid={SID}; {neighbour}", "sid") == [SID]
    assert cookie_values(f"{neighbour};sid={SID};{neighbour}", "sid") == [SID]
    assert cookie_values(neighbour, "sid") == []


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        ("sid", []),
        ("sid=", [""]),
        ("sid=a", ["a"]),
        (" \tsid = a\t ;x=1", ["a"]),
        ("sid=a=b=", ["a=b="]),
        ('sid="a"', ["a"]),
        ('sid="a', ['"a']),
        ('sid="', ['"']),
        ('sid=""', [""]),
        ("sid=b; sid=a; x=1; sid=b", ["b", "a"]),
        ("sid=a, sid=b", ["a, sid=b"]),
    ],
)
def test_values_of_header(header: str, values: list[str]) -> None:
    assert cookie_values(header, "sid") == values


def test_any_header_is_read() -> None:
    for characters in itertools.product("sid= ;\"',\\\0\xa0\xff\udcff", repeat=4):
        odd = "".join(characters)
        assert SID in cookie_values(f"{odd};sid={SID};{odd}", "sid")


def test_example_in_docstring_runs() -> None:
    result = doctest.testmod(session_server_store.cookies)
    assert (result.failed, result.attempted) == (0, 1)
