"""The version, in all its places: `version.py` compares them, `version.py 0.2.0` sets them.

The header and the CHANGELOG have places of their own: `make header` writes the former, and
RELEASING.md says what to do with the latter.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NIF = "bindings/elixir/native/sss_nif"
OWN = "(?:session-server-store|sss_nif|sss-bench)"
MANIFEST = r'^version = "(.*)"$'
LOCK = rf'^name = "{OWN}"\nversion = "(.*)"$'
# Where it is, and how it is written there.
PLACES = {
    "Cargo.toml": MANIFEST,
    "Cargo.lock": LOCK,
    "benches/Cargo.toml": MANIFEST,
    "benches/Cargo.lock": LOCK,
    f"{NIF}/Cargo.toml": MANIFEST,
    f"{NIF}/Cargo.lock": LOCK,
    "bindings/python/pyproject.toml": MANIFEST,
    "bindings/python/src/session_server_store/_version.py": r'^__version__ = "(.*)"$',
    "bindings/elixir/mix.exs": r'^  @version "(.*)"$',
}
HEADER = {"include/sss.h": r'^#define SSS_VERSION_STRING "(.*)"$'}


def found() -> dict[str, set[str]]:
    """The versions in each place."""
    places = (PLACES | HEADER).items()
    return {place: set(re.findall(pattern, (ROOT / place).read_text(), re.MULTILINE)) for place, pattern in places}


def bump(version: str) -> None:
    for place, pattern in PLACES.items():
        path = ROOT / place
        # The group is the version.
        replaced = re.sub(
            pattern,
            lambda match: (
                match[0][: match.start(1) - match.start()] + version + match[0][match.end(1) - match.start() :]
            ),
            path.read_text(),
            flags=re.MULTILINE,
        )
        path.write_text(replaced)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        if not re.fullmatch(r"\d+\.\d+\.\d+", sys.argv[1]):
            raise SystemExit("version.py: three numbers are wanted, such as 0.2.0")
        bump(sys.argv[1])
    elif len({frozenset(versions) for versions in found().values()}) != 1:
        raise SystemExit("\n".join(f"{place}: {', '.join(sorted(versions))}" for place, versions in found().items()))
