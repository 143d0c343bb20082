"""The pages of devices of the examples, in a real browser: Debian's Chromium, driven by Playwright.

With SSS_BLESS=1, the screenshots of the documents are taken again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hold import HANG_SECONDS
from ports import free_port
from temporary_store import IS_REDIS, TemporaryStore

ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = ROOT / "examples"
CHROMIUM = shutil.which("chromium")
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1"

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: see tests/setup.sh"),
    pytest.mark.skipif(IS_REDIS, reason="the engine makes no difference to a browser"),
    # Of the Playwright driver's pipes at the end.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def served(framework: str, store: str, scratch: Path) -> Iterator[str]:
    port = free_port()
    commands = {
        "django": [str(EXAMPLES / "django" / "manage.py"), "demo", f"127.0.0.1:{port}"],
        "fastapi": ["-m", "uvicorn", "--app-dir", str(EXAMPLES / "python"), "--port", str(port), "fastapi_app:app"],
    }
    environment = {**os.environ, "SESSION_STORE": store, "DJANGO_DATABASE": str(scratch / "db")}
    log = scratch / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen([sys.executable, *commands[framework]], env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            wait_for(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(HANG_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + HANG_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # The sandbox needs privileges that a container may lack; the pages are this test's own.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def log_in(page: Any, address: str, path: str = "/login") -> None:
    page.goto(address + path)
    page.locator("input[name=user], input[name=username]").fill("alice")
    page.locator("input[name=password]").fill("wonderland")
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("framework", ["django", "fastapi"])
def test_devices_page_in_two_browsers(chromium: Any, framework: str, tmp_path: Path) -> None:
    devices = "/devices/" if framework == "django" else "/devices"
    with TemporaryStore("lmdb") as temporary, served(framework, temporary.url("timeout=1d"), tmp_path) as address:
        laptop, phone = (chromium.new_page(user_agent=agent) for agent in (FIREFOX, IPHONE))
        laptop.set_viewport_size({"width": 900, "height": 380})
        for page in (phone, laptop):
            log_in(page, address, devices.replace("devices", "login"))
        # Both see both, with their labels.
        for page in (phone, laptop):
            page.goto(address + devices)
            text = page.locator("tbody").inner_text()
            assert "Firefox on Linux, 127.0.0.1" in text
            assert "Safari on iPhone, 127.0.0.1" in text
            assert text.count("this device") == 1
        if os.environ.get("SSS_BLESS") == "1":
            laptop.screenshot(path=ROOT / "docs" / f"devices-{framework}.png")
        # The laptop ends the phone, which is logged out at its next request.
        laptop.locator("tr", has_text="iPhone").get_by_role("button", name="End").click()
        assert laptop.locator("tbody tr").count() == 1
        phone.reload()
        assert "/login" in phone.url
        # The laptop stays logged in, until it logs out.
        laptop.reload()
        assert laptop.locator("tbody tr").count() == 1
        laptop.get_by_role("button", name="Log out", exact=True).click()
        laptop.goto(address + devices)
        assert "/login" in laptop.url


def test_cookie_is_out_of_reach_of_scripts(chromium: Any, tmp_path: Path) -> None:
    with TemporaryStore("lmdb") as temporary, served("fastapi", temporary.url(), tmp_path) as address:
        page = chromium.new_page()
        log_in(page, address)
        assert page.evaluate("document.cookie") == ""
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], len(cookie["value"])) == (True, "Lax", 128)
