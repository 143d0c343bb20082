#!/usr/bin/env bash
# Dialyzer over the Elixir package. The types of Erlang and Elixir are analysed once, for some minutes, and kept in target/.
set -euo pipefail
cd "$(dirname "$0")/.."

ERL_LIBS=$(elixir -e 'IO.write(Path.dirname(:code.lib_dir(:elixir)))')
export ERL_LIBS
versions=$(elixir -e 'IO.write("elixir-#{System.version()}-otp-#{System.otp_release()}")')
types=$PWD/target/dialyzer/$versions.plt
if ! [ -f "$types" ]; then
  mkdir -p "$(dirname "$types")"
  dialyzer --build_plt --output_plt "$types.new" --apps erts kernel stdlib crypto elixir logger >"$types.log" 2>&1 || true
  mv "$types.new" "$types"
fi

cd bindings/elixir
MIX_ENV=dev mix compile --warnings-as-errors
# Functions of optional packages are unknown, which is no failure.
dialyzer --plt "$types" --no_check_plt -r _build/dev/lib/session_server_store/ebin
