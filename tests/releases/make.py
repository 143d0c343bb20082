"""Writes the store that later releases have to open: `make.py [DIRECTORY]`, by default
tests/releases/VERSION. Run it once for each release, with the package of that release installed;
tests/packages/test_releases.py opens all of them.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path

import session_server_store as sss

URL = "lmdb:{}?timeout=infinity&idle_timeout=infinity&max_bytes=4MiB&durability={}"


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for durability in ("process", "power"):
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch, "sessions")
            with sss.Store(URL.format(directory, durability)) as store:
                plain = store.create({"cart": 3})
                owned = store.create({"cart": 4}, principal="alice")
                old = store.create({"cart": 5}, principal="alice")
                renewed = store.renew(old)
                ended = store.create({"cart": 6})
                store.delete(ended)
            with tarfile.open(folder / f"lmdb-{durability}.tar.gz", "w:gz") as archive:
                archive.add(directory, "sessions")
        expected[durability] = {
            "live": {plain: {"cart": 3}, owned: {"cart": 4}, renewed: {"cart": 5}},
            "dead": [old, ended],
            "of alice": 2,
        }
    (folder / "sessions.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / sss.__version__)
