#!/usr/bin/env bash
# The benchmark suite, as `make bench` runs it (QUICK=1: fewer rounds): builds, measures, prints the results, and writes
# target/bench.json and docs/BENCHMARKS.md. QUICK=1 writes target/bench/BENCHMARKS.md instead and keeps the last whole run.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=()
[ "${QUICK:-0}" = 0 ] || quick=(--quick)
target=$PWD/target
work=$target/bench
mkdir -p "$work" docs

# Installs missing packages if possible. A part that cannot run is reported as not measured.
packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("${@:2}"); }
need redis-server redis-server
need memcached memcached
need mix elixir erlang-dev
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages+=(python3 python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "bench: installing ${packages[*]}"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } \
      >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2; exit 1; }
  else
    echo "bench: missing, so not measured: ${packages[*]}" >&2
  fi
fi

echo "bench: building"
make --silent library
CARGO_TARGET_DIR=$work/rust cargo build --release --locked --quiet --manifest-path benches/Cargo.toml
bench=$work/rust/release/sss-bench
library=$target/release/libsss.so
[ -f "$library" ] || library=$target/release/libsss.dylib
python=$work/venv/bin/python
if python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
  [ -x "$python" ] || python3 -m venv "$work/venv"
  "$python" -c 'import cachetools, django, flask_session, redis' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check cachetools 'django>=4.2,<6' 'flask>=3,<4' 'flask-session>=0.8,<1' redis
fi
if command -v mix >/dev/null 2>&1; then
  (cd bindings/elixir && MIX_ENV=prod MIX_BUILD_PATH=$work/elixir CARGO_TARGET_DIR=$work/nif mix compile) >"$work/mix.log" 2>&1 ||
    { cat "$work/mix.log" >&2; exit 1; }
fi

# A higher priority than other programs, where that is allowed.
calm=()
if [ "$(nice -n -5 nice 2>/dev/null || true)" = -5 ]; then calm=(nice -n -5); fi

facts=$work/facts.tsv about=$work/about.txt
rm -f "$facts"
first() { "$@" 2>/dev/null | head -n 1 || true; }
{
  echo "date: $(date -u '+%Y-%m-%d %H:%M UTC')"
  echo "processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
  echo "memory: $(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
  echo "kernel: $(uname -sr)"
  echo "transparent huge pages: $(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null)"
  echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
  echo "libsss: $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1), $(git describe --always --dirty 2>/dev/null || echo 'no git'), $(rustc --version | cut -d' ' -f1,2)"
  echo "crates: $(awk -F'"' '/^name = /{n=$2} /^version = /{v[n]=$2} END {printf "hashbrown %s, dashmap %s, papaya %s, moka %s, hdrhistogram %s", v["hashbrown"], v["dashmap"], v["papaya"], v["moka"], v["hdrhistogram"]}' benches/Cargo.lock)"
  echo "servers: $(first redis-server --version | cut -d' ' -f1,3), $(first memcached --version)"
  echo "Python: $(first "$python" --version), cachetools $(first "$python" -c 'import cachetools; print(cachetools.__version__)'), Django $(first "$python" -m django --version), Flask-Session $(first "$python" -c 'from importlib.metadata import version; print(version("flask-session"), "on Flask", version("flask"))')"
  echo "Elixir: $(elixir --version 2>/dev/null | sed -n 's/^Elixir \([^ ]*\).*/\1/p') on OTP $(first erl -noshell -eval 'io:format("~s~n", [erlang:system_info(otp_release)]), halt().')"
} >"$about"

# Processor time in ticks: of all programs, and of this script's children.
all() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat; }
own() { awk '{ print $16 + $17 }' "/proc/$$/stat"; }

echo "bench: measuring"
begun=$SECONDS all=$(all) own=$(own)
"${calm[@]}" "$bench" "${quick[@]}" --facts "$facts" --library "$library"
if [ -x "$python" ]; then
  export PYTHONPATH=bindings/python/src SESSION_SERVER_STORE_LIBRARY=$library PYTHONDONTWRITEBYTECODE=1
  "${calm[@]}" "$python" benches/python/sessions.py "${quick[@]}" >>"$facts"
  "${calm[@]}" "$python" benches/python/django_sessions.py "${quick[@]}" >>"$facts"
  "${calm[@]}" "$python" benches/python/web_sessions.py "${quick[@]}" >>"$facts"
fi
if [ -d "$work/elixir" ]; then
  "${calm[@]}" elixir -pa "$work/elixir/lib/session_server_store/ebin" benches/elixir/sessions.exs "${quick[@]}" >>"$facts"
fi
others=$(awk -v all=$(($(all) - all)) -v own=$(($(own) - own)) -v s=$((SECONDS - begun)) -v hz="$(getconf CLK_TCK)" -v n="$(nproc)" \
  'BEGIN { o = 100 * (all - own) / hz / s / n; printf "%.1f", (o < 0 ? 0 : o) }')
printf 'machine.others_percent\t%s\n' "$others" >>"$facts"
echo "processor time used by other programs: $others %" >>"$about"
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)" >>"$about"
echo "command: \`make bench${quick:+ QUICK=1}\`, $((SECONDS - begun)) s" >>"$about"

document=docs/BENCHMARKS.md
[ ${#quick[@]} -eq 0 ] || document=$work/BENCHMARKS.md
echo
"$bench" report --facts "$facts" --about "$about" --notes benches/notes.txt "${quick[@]}" \
  --json "$target/bench.json" --markdown "$document"
echo "bench: written to $document and $target/bench.json"
