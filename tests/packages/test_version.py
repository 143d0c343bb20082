"""The version is the same in all its places, and the oldest Rust is one that the crates allow."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import third_party
import version

ROOT = Path(__file__).resolve().parents[2]


def test_version_is_the_same_everywhere() -> None:
    found = version.found()
    assert len({frozenset(versions) for versions in found.values()}) == 1, found


def test_bump_sets_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in version.PLACES | version.HEADER:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, tmp_path / place)
    monkeypatch.setattr(version, "ROOT", tmp_path)
    version.bump("9.8.7")
    found = version.found()
    assert {place for place, versions in found.items() if versions != {"9.8.7"}} == set(version.HEADER)


def number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))[:2]


@pytest.mark.parametrize("manifest", [ROOT / "Cargo.toml", third_party.NIF / "Cargo.toml"], ids=["crate", "nif"])
def test_rust_version_is_that_of_the_crates_or_later(manifest: Path) -> None:
    own = re.findall(r'^rust-version = "(.*)"', manifest.read_text(), re.MULTILINE)[0]
    crates = third_party.packages(manifest)
    newer = [crate["name"] for crate in crates if crate["rust_version"] and number(crate["rust_version"]) > number(own)]
    assert newer == []


def test_documents_name_the_rust_version() -> None:
    own = re.findall(r'^rust-version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]
    for page in ("README.md", "bindings/python/README.md"):
        named = set(re.findall(r"Rust (\d\.\d+)", (ROOT / page).read_text().replace("\n", " ")))
        assert named == {own}, page
