"""Lets a test stop a request in its middle. The views of all frameworks call ``wait``."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

HANG_SECONDS: Final = 30


class Hold:
    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()


_holds: Final[dict[str, Hold]] = {}


def new(name: str) -> Hold:
    return _holds.setdefault(name, Hold())


def wait(name: str) -> None:
    hold = new(name)
    hold.reached.set()
    assert hold.released.wait(HANG_SECONDS), "the test has not released the request"


async def wait_in_loop(name: str) -> None:
    """For views of an event loop: any number of them wait without threads."""
    hold = new(name)
    hold.reached.set()
    end = time.monotonic() + HANG_SECONDS
    while not hold.released.is_set():
        assert time.monotonic() < end, "the test has not released the request"
        await asyncio.sleep(0.005)
