#!/usr/bin/env bash
# Brings a machine to where `make test` (or `make demo`) can run: Debian packages by apt when root, else a list of what to
# install; and a virtual environment in .venv with the Python tools. Does nothing where everything is there, but for the
# Python package of this clone: that is built each time, because the sources may have changed. Only what is missing
# is fetched, so that a second run needs no network.
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
  need cmake cmake
  need mandoc mandoc
  need abidw abigail-tools
  need lintian lintian
  need pkg-config pkg-config
  need redis-server redis-server
  need redis-cli redis-tools
  need openssl openssl
  need mix elixir
  need dialyzer erlang-dialyzer
  need chromium chromium fonts-dejavu-core
  # uWSGI is compiled against it.
  python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || packages+=(python3-dev)
fi

problems=()
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! have=$(cargo --version 2>/dev/null); then
  problems+=("cargo (Rust $rust or later): see https://rustup.rs")
else
  have=$(echo "$have" | cut -d ' ' -f 2)
  if [ "$(printf '%s\n' "$rust" "$have" | sort -V | head -n 1)" != "$rust" ]; then
    problems+=("a newer Rust: this is $have, and $rust is needed: rustup update, or see https://rustup.rs")
  elif [ "$purpose" = test ]; then
    for tool in fmt:rustfmt clippy:clippy; do
      cargo "${tool%:*}" --version >/dev/null 2>&1 || problems+=("${tool#*:}: rustup component add ${tool#*:}")
    done
  fi
fi

if [ ${#packages[@]} -gt 0 ] && { [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; }; then
  problems+=("these packages (Debian's names): apt-get install ${packages[*]}")
fi
if [ ${#problems[@]} -gt 0 ]; then
  echo "setup: please install" >&2
  printf '  %s\n' "${problems[@]}" >&2
  exit 1
fi

if [ ${#packages[@]} -gt 0 ]; then
  echo "setup: installing ${packages[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
  fi
fi

# Made again if it belongs to another path (a moved clone) or is incomplete.
here="$PWD/.venv"
if [ "$(cat .venv/made-in 2>/dev/null)" != "$here" ]; then
  rm -rf .venv
  python3 -m venv .venv
  echo "$here" >.venv/made-in
fi
pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }
wanted=bindings/python/pyproject.toml
if ! cmp -s $wanted ".venv/ready-for-$purpose" && ! cmp -s $wanted .venv/ready-for-test; then
  pip_install "hatchling>=1.27"
  if [ "$purpose" = test ]; then pip_install --no-build-isolation "./bindings/python[test]"; fi
  cp $wanted ".venv/ready-for-$purpose"
fi
pip_install --no-build-isolation --no-deps ./bindings/python

# The oldest supported versions of the frameworks, in a folder for PYTHONPATH.
if [ "$purpose" = test ] && ! cmp -s $wanted .venv/oldest/ready; then
  oldest=$(sed -n 's/^oldest = \[\(.*\)\]$/\1/p' $wanted | tr -d '",')
  rm -rf .venv/oldest
  # Its packages do not fit to others in .venv, of which pip warns.
  # shellcheck disable=SC2086 # a list
  pip_install --target .venv/oldest $oldest 2>.venv/oldest.log || { cat .venv/oldest.log >&2; exit 1; }
  cp $wanted .venv/oldest/ready
fi

# It is compiled here, which may fail on other systems. Its tests are skipped then, and quote the reason.
if [ "$purpose" = test ] && ! [ -x .venv/bin/uwsgi ]; then
  pip_install "$(sed -n 's/^uwsgi = \["\(.*\)"\]$/\1/p' $wanted)" >.venv/uwsgi.log 2>&1 ||
    echo "setup: uWSGI could not be built: see .venv/uwsgi.log" >&2
fi
