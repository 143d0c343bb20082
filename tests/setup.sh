#!/usr/bin/env bash
# Brings a machine to where `make test` (or `make demo`) can run: Debian packages by apt when root, else a list of what to
# install; and a virtual environment in .venv with the Python tools. Does nothing where everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-test}

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}"); }
need gcc gcc libc6-dev
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages+=(python3 python3-venv)
if [ "$purpose" = test ]; then
  need g++ g++
  need nm binutils
  need valgrind valgrind
  need mix elixir
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "setup: cargo is not installed: see https://rustup.rs (Rust 1.95 or later)" >&2
  exit 1
fi

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install: ${packages[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
  fi
  rm -f "$log"
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
if [ "$purpose" = test ]; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "./bindings/python[test]"
else
  .venv/bin/python -m pip install --quiet --disable-pip-version-check ./bindings/python
fi
