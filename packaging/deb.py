"""The three Debian packages, made of what `make install` put into a folder: the shared library, the
files for development, and the command. For packaging/dist.py, which checks them with lintian.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from pathlib import Path

MULTIARCH = "x86_64-linux-gnu"
MAINTAINER = "The libsss developers <maintainers@libsss.invalid>"
HOMEPAGE = "https://github.com/libsss/libsss"


@dataclass
class Package:
    name: str
    section: str
    depends: str
    summary: str
    description: str
    # Paths below the folder of the installation, and where they go if elsewhere.
    files: dict[str, str]
    more_fields: str = ""


def packages(version: str, soname: str) -> list[Package]:
    abi = soname.removeprefix("libsss.so.")
    library = f"libsession-server-store{abi}"
    lib = f"usr/lib/{MULTIARCH}"
    return [
        Package(
            library,
            "libs",
            "libc6 (>= 2.17)",
            "server-side session store, shared library",
            "The client holds an id of 128 characters; the session stays on the server, where it can be read, updated, "
            "renewed, revoked and expired. Sessions are kept in the process, in files shared by the processes of one "
            "host, or in Redis or Valkey.",
            {f"{lib}/{soname}": "", f"{lib}/libsss.so.{version}": ""},
            "Multi-Arch: same\n",
        ),
        Package(
            "libsession-server-store-dev",
            "libdevel",
            f"{library} (= {version}-1)",
            "server-side session store, files for development",
            "The header sss.h with its manual page, the static library, and the files for pkg-config and CMake.",
            dict.fromkeys(
                (
                    "usr/include/sss.h",
                    f"{lib}/libsss.so",
                    f"{lib}/libsss.a",
                    f"{lib}/pkgconfig/sss.pc",
                    f"{lib}/cmake/sss/sssConfig.cmake",
                    f"{lib}/cmake/sss/sssConfigVersion.cmake",
                    "usr/share/man/man3/sss.h.3",
                ),
                "",
            ),
            "Multi-Arch: same\n",
        ),
        Package(
            "session-server-store",
            "web",
            "libc6 (>= 2.17)",
            "server-side session store, command line",
            "The command sss inspects and maintains a session store while its servers use it: counters, a user's "
            "sessions, sweeping, revoking and checking.",
            {
                "usr/bin/sss": "",
                "usr/share/man/man1/sss.1": "",
                "usr/share/bash-completion/completions/sss": "",
                "usr/share/fish/vendor_completions.d/sss.fish": "",
                "usr/share/zsh/site-functions/_sss": "usr/share/zsh/vendor-completions/_sss",
            },
        ),
    ]


def make(installed: Path, work: Path, out: Path, version: str, epoch: int, environment: dict[str, str]) -> list[Path]:
    """Returns the packages, in `out`."""
    (library,) = (path for path in (installed / f"usr/lib/{MULTIARCH}").glob("libsss.so.*") if path.is_symlink())
    made = []
    for package in packages(version, library.name):
        tree = work / package.name
        shutil.rmtree(tree, ignore_errors=True)
        for source, target in package.files.items():
            put(installed / source, tree / (target or source))
        documents(package, tree, installed, version, epoch)
        control(package, tree, version, library.name)
        path = out / f"{package.name}_{version}-1_amd64.deb"
        build = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(path)]
        subprocess.run(build, check=True, env=environment, stdout=subprocess.DEVNULL)
        made.append(path)
    return made


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if "/man/" in str(target):
        compress(source.read_bytes(), target.with_name(target.name + ".gz"))
    else:
        shutil.copy2(source, target, follow_symlinks=False)
        if target.name.startswith("libsss.so") and not target.is_symlink():
            target.chmod(0o644)


def compress(text: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text, 9, mtime=0))


def documents(package: Package, tree: Path, installed: Path, version: str, epoch: int) -> None:
    folder = tree / "usr/share/doc" / package.name
    folder.mkdir(parents=True)
    (folder / "copyright").write_text(COPYRIGHT)
    compress((installed / "usr/share/doc/libsss/THIRD-PARTY-NOTICES").read_bytes(), folder / "THIRD-PARTY-NOTICES.gz")
    moment = format_datetime(datetime.fromtimestamp(epoch, timezone.utc))
    changelog = f"""\
session-server-store ({version}-1) unstable; urgency=medium

  * Release {version}.

 -- {MAINTAINER}  {moment}
"""
    compress(changelog.encode(), folder / "changelog.Debian.gz")
    overrides = tree / "usr/share/lintian/overrides" / package.name
    if text := OVERRIDES.get(package.section):
        overrides.parent.mkdir(parents=True)
        overrides.write_text("".join(f"# {why}\n{package.name}: {tag}\n" for tag, why in text.items()))


def control(package: Package, tree: Path, version: str, soname: str) -> None:
    folder = tree / "DEBIAN"
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    description = "\n".join(textwrap.wrap(package.description, 78, initial_indent=" ", subsequent_indent=" "))
    folder.mkdir()
    (folder / "control").write_text(
        f"Package: {package.name}\n"
        "Source: session-server-store\n"
        f"Version: {version}-1\n"
        "Architecture: amd64\n"
        f"{package.more_fields}"
        f"Maintainer: {MAINTAINER}\n"
        f"Installed-Size: {size}\n"
        f"Depends: {package.depends}\n"
        f"Section: {package.section}\n"
        "Priority: optional\n"
        f"Homepage: {HOMEPAGE}\n"
        f"Description: {package.summary}\n{description}\n"
    )
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    (folder / "md5sums").write_text("".join(sums))
    if package.section == "libs":
        (folder / "shlibs").write_text(f"libsss {soname.removeprefix('libsss.so.')} {package.name} (>= {version})\n")
        (folder / "triggers").write_text("activate-noawait ldconfig\n")


OVERRIDES = {
    "libs": {
        "package-name-doesnt-match-sonames libsss0.1": "libsss is the prefix of SSSD's libraries.",
        "embedded-library": "LMDB is compiled in: the engine reads its files by offset.",
    },
    "web": {"embedded-library": "LMDB is compiled in: the engine reads its files by offset."},
}

COPYRIGHT = f"""\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: libsss
Source: {HOMEPAGE}

Files: *
Copyright: 2026 The libsss developers
License: Apache-2.0 or Expat
Comment: The licences of the code that is compiled in, LMDB and the crates, are in
 THIRD-PARTY-NOTICES.gz beside this file.

License: Apache-2.0
 On Debian systems, the full text of the Apache License version 2.0 can be found in the file
 `/usr/share/common-licenses/Apache-2.0'.

License: Expat
 Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
 associated documentation files (the "Software"), to deal in the Software without restriction,
 including without limitation the rights to use, copy, modify, merge, publish, distribute,
 sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
 furnished to do so, subject to the following conditions:
 .
 The above copyright notice and this permission notice shall be included in all copies or
 substantial portions of the Software.
 .
 THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
 NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
 NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
 OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
 CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
