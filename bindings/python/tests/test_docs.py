"""The Python examples of the documents compile, and those of the frameworks run."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ("django", "flask", "starlette", "aiohttp", "migrating-python")


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL)


def run(page: str, tmp_path: Path, count: int) -> dict[str, Any]:
    """The names that the first examples define, on a store of this test."""
    names: dict[str, Any] = {"__name__": page}
    for code in examples(page)[:count]:
        exec(code.replace("lmdb:/var/lib/app/sessions?", f"lmdb:{tmp_path}/store?max_bytes=16MiB&"), names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_examples_compile(page: str) -> None:
    assert examples(page)
    for number, code in enumerate(examples(page)):
        compile(code, f"{page}.md, example {number}", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / f"{page}.md").read_text("utf-8")):
        assert (DOCS / target).exists(), target


def test_flask_example(tmp_path: Path) -> None:
    client = run("flask", tmp_path, 3)["app"].test_client()
    assert client.post("/login", data={"user": "alice"}).text == "logged in"
    (device,) = client.get("/devices").json
    assert device["this"]
    assert client.post("/password").json == {"ended": 0}
    (device,) = client.get("/devices").json
    assert client.post("/devices/end", data={"ref": device["ref"]}).json == {"ended": True}
    assert client.post("/logout").text == "logged out"


def test_starlette_example(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", exc_type=ImportError)
    from starlette.testclient import TestClient

    client = TestClient(run("starlette", tmp_path, 2)["app"], base_url="https://site.example")
    client.post("/login?user=alice")
    (device,) = client.get("/devices").json()
    assert device["this"]
    assert client.post("/password").json() == {"ended": 0}
    assert client.post(f"/devices/end?ref={device['ref']}").json() == {"ended": False}  # renewed since
    client.post("/logout")
    assert not client.cookies


def test_aiohttp_example(tmp_path: Path) -> None:
    from aiohttp.test_utils import TestClient, TestServer

    async def use() -> None:
        app = run("aiohttp", tmp_path, 1)["app"]
        async with TestClient(TestServer(app)) as client:
            login = await client.post("/login?user=alice")
            cookie = login.cookies["AIOHTTP_SESSION"].value
            headers = {"Cookie": f"AIOHTTP_SESSION={cookie}"}
            (device,) = await (await client.get("/devices", headers=headers)).json()
            assert device["this"]
            assert (await client.post("/logout", headers=headers)).status == 200

    asyncio.run(use())
