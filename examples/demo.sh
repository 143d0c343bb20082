#!/usr/bin/env bash
# The demo: sessions from C, in a web login in Python, and from Elixir if it is installed. Each
# program checks what it prints, and fails if a check fails.
set -euo pipefail
cd "$(dirname "$0")/.."

heading() { printf '\n=== %s %s\n\n' "$1" "$(printf '=%.0s' $(seq $((100 - ${#1}))))"; }

make --silent all

heading "C: examples/c/lifecycle.c"
program=$(mktemp -d)/lifecycle
gcc -std=c99 -Wall -Wextra -Wpedantic -Werror -Iinclude examples/c/lifecycle.c -o "$program" \
  -Ltarget/release -lsss -Wl,-rpath,"$PWD/target/release"
"$program"
rm -r "$(dirname "$program")"

heading "Python: examples/python/login_app.py"
.venv/bin/python examples/python/login_app.py

heading "Elixir: examples/elixir/lifecycle.exs"
if command -v mix >/dev/null 2>&1; then
  (cd bindings/elixir && mix run ../../examples/elixir/lifecycle.exs)
else
  echo "Elixir is not installed. To run this part: apt-get install elixir, then make demo."
fi

printf '\nAll checks passed. To use the login in a browser: .venv/bin/python examples/python/login_app.py --serve\n'
