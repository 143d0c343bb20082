"""What the binaries contain besides this project's own code: `third_party.py notices` prints
THIRD-PARTY-NOTICES, `third_party.py sbom` a CycloneDX document.

Both come from `cargo metadata` and the crates' own files, so that nothing outside of the registry
is asked. A crate that offers the Apache licence is used under it; of any other, all texts are
quoted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NIF = ROOT / "bindings" / "elixir" / "native" / "sss_nif"
OWN = {"session-server-store", "sss_nif"}
TEXTS = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE)", re.IGNORECASE)
# C code inside of a crate: where its licence is. Its version is the name of the crate's release.
VENDORED = {"lmdb-master-sys": ("LMDB", "OLDAP-2.8", "lmdb/libraries/liblmdb")}

Package = dict[str, Any]


def packages(manifest: Path) -> list[Package]:
    """The crates that a build of the manifest links, with `dependencies` reduced to such crates."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    answer = subprocess.run([*command, "--manifest-path", manifest], check=True, stdout=subprocess.PIPE)
    metadata = json.loads(answer.stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    by_id = {package["id"]: package for package in metadata["packages"]}
    # Procedural macros run in the compiler.
    linked: dict[str, list[str]] = {}
    waiting = [metadata["resolve"]["root"]]
    while waiting:
        identity = waiting.pop()
        if identity in linked or any("proc-macro" in target["kind"] for target in by_id[identity]["targets"]):
            continue
        linked[identity] = [
            dependency["pkg"]
            for dependency in nodes[identity]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        waiting += linked[identity]
    return [
        by_id[identity] | {"linked": [by_id[other] for other in others if other in linked]}
        for identity, others in linked.items()
    ]


def all_packages() -> list[Package]:
    """Of the library, the command and the NIF, in the order of their names."""
    found = {(package["name"], package["version"]): package for package in packages(NIF / "Cargo.toml")}
    found |= {(package["name"], package["version"]): package for package in packages(ROOT / "Cargo.toml")}
    return [found[key] for key in sorted(found) if key[0] not in OWN]


def licence(package: Package) -> str:
    return re.sub(r"\s*/\s*", " OR ", package["license"])


def texts(package: Package) -> Iterator[tuple[str, str]]:
    """The licence texts that a distributor of the crate has to pass on, with their names."""
    folder = Path(package["manifest_path"]).parent
    apache = "Apache-2.0" in re.split(r" OR |[()]", licence(package))
    for path in sorted(folder.iterdir()):
        if path.is_file() and TEXTS.match(path.name) and (not apache or path.name.upper().startswith("NOTICE")):
            yield path.name, path.read_text("utf-8").strip()
    if package["name"] in VENDORED:
        name, _, where = VENDORED[package["name"]]
        for path in sorted((folder / where).iterdir()):
            if TEXTS.match(path.name):
                yield f"{name}: {path.name}", path.read_text("utf-8").strip()


def notices() -> str:
    crates = all_packages()
    by_text: dict[str, list[str]] = {}
    for package in crates:
        for name, text in texts(package):
            by_text.setdefault(text, []).append(f"{package['name']} {package['version']}, {name}")
    lines = [
        "Third-party code in the binaries of libsss",
        "",
        "libsss itself is licensed under Apache-2.0 OR MIT. Its libraries, its command and its NIF contain",
        "the crates below, LMDB, and the standard library of Rust (Apache-2.0 OR MIT). Crates that offer",
        "Apache-2.0 are used under it: see LICENSE-APACHE. The texts of the others follow the list.",
        "",
        *(f"  {package['name']} {package['version']}: {licence(package)}" for package in crates),
    ]
    for text, users in by_text.items():
        lines += ["", "-" * 100, *users, "-" * 100, "", text]
    return "\n".join(line.rstrip() for line in "\n".join(lines).split("\n")) + "\n"


def reference(package: Package) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: Package, checksums: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        "licenses": [{"expression": licence(package)}],
    }
    if checksum := checksums.get(reference(package)):
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["name"] in VENDORED:
        name, terms, _ = VENDORED[package["name"]]
        found["components"] = [{"type": "library", "name": name, "licenses": [{"license": {"id": terms}}]}]
    return found


def sbom() -> str:
    lock = (ROOT / "Cargo.lock").read_text() + (NIF / "Cargo.lock").read_text()
    locked = re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource = .*\nchecksum = "(.*)"', lock)
    checksums = {f"pkg:cargo/{name}@{version}": checksum for name, version, checksum in locked}
    crates = all_packages()
    own = next(package for package in packages(ROOT / "Cargo.toml") if package["name"] in OWN)
    moment = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), timezone.utc)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": component(own, {})},
        "components": [component(package, checksums) for package in crates],
        "dependencies": [
            {
                "ref": reference(package),
                "dependsOn": sorted({reference(other) for other in package["linked"] if other["name"] not in OWN}),
            }
            for package in [own, *crates]
        ],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write({"notices": notices, "sbom": sbom}[sys.argv[1]]())
