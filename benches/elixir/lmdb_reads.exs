# How long a read from lmdb: occupies a scheduler. Far less than a millisecond allows it to run on a
# normal one, see bindings/elixir/README.md. In bindings/elixir: MIX_ENV=prod mix run
# ../../benches/elixir/lmdb_reads.exs
alias SessionServerStore.Native

measure = fn size, sessions, gets ->
  directory = Path.join(System.tmp_dir!(), "sss-bench-#{System.pid()}")
  {:ok, handle} = Native.open("lmdb:#{directory}?idle_timeout=1h")
  payload = :crypto.strong_rand_bytes(size)

  ids =
    for _ <- 1..sessions,
        do: handle |> Native.create_dirty(payload, {:keep, :keep, :keep, 0, nil, false}) |> elem(1) |> elem(0)

  ids = List.to_tuple(ids)
  random = for _ <- 1..gets, do: elem(ids, :rand.uniform(sessions) - 1)

  times =
    for sid <- random do
      start = System.monotonic_time(:nanosecond)
      {:ok, read} = Native.get(handle, sid, false)
      elapsed = System.monotonic_time(:nanosecond) - start
      ^payload = elem(read, 0)
      elapsed
    end

  sorted = times |> Enum.sort() |> List.to_tuple()
  at = fn part -> Float.round(elem(sorted, min(round(gets * part), gets - 1)) / 1000, 1) end

  IO.puts("""
  #{size} bytes, #{gets} gets of #{sessions} sessions, including the time to read the clock:
    mean #{Float.round(Enum.sum(times) / gets / 1000, 1)} µs, median #{at.(0.5)} µs, p99 #{at.(0.99)} µs, \
  p99.9 #{at.(0.999)} µs, longest #{at.(1.0)} µs\
  """)

  :ok = Native.close(handle)
  File.rm_rf!(directory)
end

measure.(256, 100_000, 100_000)
measure.(4_096, 20_000, 100_000)
measure.(64 * 1024, 500, 5_000)
# The default max_payload.
measure.(1024 * 1024, 100, 1_000)
