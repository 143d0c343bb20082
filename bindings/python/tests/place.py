"""Where a store of its own is: a name in memory, a directory that is removed again, or a prefix in a Redis server.

Which engine is under test says SSS_TEST_ENGINE: memory (also if it is not set), lmdb, lmdb-power, or one of redis, for
which tests/processes/with_redis.rs starts the servers and says in SSS_TEST_REDIS what the URLs are.
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


class Place:
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
            given.append("max_bytes=16MiB")  # tests make many stores, and each file is reserved as a whole
        if self.engine == "lmdb-power":
            given.append("durability=power")
        return f"lmdb:{self.directory}?{'&'.join(given)}"

    def remove(self) -> None:
        if self.engine.startswith("lmdb"):
            shutil.rmtree(self.directory, ignore_errors=True)  # it may never have been opened

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.remove()
