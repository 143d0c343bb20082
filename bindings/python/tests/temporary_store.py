"""The URL of a store for one test: a name in memory, a temporary directory, or a Redis prefix.

SSS_TEST_ENGINE names the engine under test: memory (the default), lmdb, lmdb-power, or a kind of
redis. For redis, tests/processes/with_redis.rs starts the servers and sets SSS_TEST_REDIS to their
URL.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Optional

ENGINE = os.environ.get("SSS_TEST_ENGINE", "memory")
IS_REDIS = ENGINE.startswith("redis")
assert IS_REDIS or ENGINE in ("memory", "lmdb", "lmdb-power"), f"SSS_TEST_ENGINE is {ENGINE}"

_numbers = itertools.count()


class TemporaryStore:
    """Has a URL. Removes what the store leaves behind."""

    def __init__(self, engine: str = ENGINE) -> None:
        self.engine = engine
        self.name = f"sss-python-{os.getpid()}-{next(_numbers)}"
        self.directory = Path(tempfile.gettempdir(), self.name)

    def url(self, *options: str) -> str:
        given = list(options)
        if self.engine == "memory":
            return f"memory:{self.name}?{'&'.join(given)}"
        if self.engine.startswith("redis"):
            return "&".join([os.environ["SSS_TEST_REDIS"].replace("{name}", self.name), *given])
        if not any(option.startswith("max_bytes=") for option in given):
            given.append("max_bytes=16MiB")  # the default of 256 MiB is reserved on disk
        if self.engine == "lmdb-power":
            given.append("durability=power")
        return f"lmdb:{self.directory}?{'&'.join(given)}"

    def remove(self) -> None:
        if self.engine.startswith("lmdb"):
            shutil.rmtree(self.directory, ignore_errors=True)  # it exists only if the store was opened

    def __enter__(self) -> TemporaryStore:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.remove()
