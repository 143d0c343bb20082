"""A directory that an earlier release has written is opened, with all its sessions. The last case
is one that this version writes, so that the test itself is run before the first release.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from session_server_store import Store

RELEASES = Path(__file__).resolve().parents[1] / "releases"


@pytest.fixture(params=[*sorted(path.parent.name for path in RELEASES.glob("*/sessions.json")), "this version"])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != "this version":
        return RELEASES / str(request.param)
    # Another process, as the server of before the upgrade is.
    subprocess.run([sys.executable, RELEASES / "make.py", tmp_path / "this version"], check=True)
    return tmp_path / "this version"


@pytest.mark.parametrize("durability", ["process", "power"])
def test_directory_of_the_release_is_opened(release: Path, durability: str, tmp_path: Path) -> None:
    expected = json.loads((release / "sessions.json").read_text())[durability]
    subprocess.run(["tar", "-xf", release / f"lmdb-{durability}.tar.gz", "-C", tmp_path], check=True)
    url = f"lmdb:{tmp_path / 'sessions'}?timeout=infinity&idle_timeout=infinity&max_bytes=4MiB&durability={durability}"
    with Store(url) as store:
        for sid, payload in expected["live"].items():
            session = store.get(sid)
            assert session is not None
            assert session.payload == payload
            store.put(sid, {"cart": 7})
        assert [store.get(sid) for sid in expected["dead"]] == [None, None]
        assert len(store.list("alice")) == expected["of alice"]
        assert store.revoke("alice") == expected["of alice"]
