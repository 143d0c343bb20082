"""Where a store of its own is: a name in memory, or a directory that is removed again.

Which engine is under test says SSS_TEST_ENGINE: memory (also if it is not set), lmdb or lmdb-power.
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
assert ENGINE in ("memory", "lmdb", "lmdb-power"), f"SSS_TEST_ENGINE is {ENGINE}, not memory, lmdb or lmdb-power"

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
        if not any(option.startswith("max_bytes=") for option in given):
            given.append("max_bytes=16MiB")  # tests make many stores, and each file is reserved as a whole
        if self.engine == "lmdb-power":
            given.append("durability=power")
        return f"lmdb:{self.directory}?{'&'.join(given)}"

    def remove(self) -> None:
        if self.engine != "memory":
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
