# How long a read from lmdb: keeps a scheduler: it must be far below a millisecond to be done on the scheduler of its caller
# (see bindings/elixir/README.md). In bindings/elixir: MIX_ENV=prod mix run ../../benches/elixir/lmdb_reads.exs
alias SessionServerStore.Native

measure = fn size, sessions, gets ->
  directory = Path.join(System.tmp_dir!(), "sss-bench-#{System.pid()}")
  {:ok, handle} = Native.open("lmdb:#{directory}?idle_timeout=1h")
  payload = :crypto.strong_rand_bytes(size)
  ids = for _ <- 1..sessions, do: handle |> Native.create_waiting(payload, {0, 0, :keep, 0}) |> elem(1) |> elem(0)
  ids = List.to_tuple(ids)
  random = for _ <- 1..gets, do: elem(ids, :rand.uniform(sessions) - 1)

  times =
    for sid <- random do
      begun = System.monotonic_time(:nanosecond)
      {:ok, read} = Native.get(handle, sid, false)
      taken = System.monotonic_time(:nanosecond) - begun
      ^payload = elem(read, 0)
      taken
    end

  sorted = times |> Enum.sort() |> List.to_tuple()
  at = fn part -> Float.round(elem(sorted, min(round(gets * part), gets - 1)) / 1000, 1) end

  IO.puts("""
  #{size} bytes, #{gets} gets of #{sessions} sessions, with the time it takes to look at the clock:
    mean #{Float.round(Enum.sum(times) / gets / 1000, 1)} µs, median #{at.(0.5)} µs, p99 #{at.(0.99)} µs, \
  p99.9 #{at.(0.999)} µs, longest #{at.(1.0)} µs\
  """)

  :ok = Native.close(handle)
  File.rm_rf!(directory)
end

measure.(256, 100_000, 100_000)
measure.(4_096, 20_000, 100_000)
measure.(64 * 1024, 500, 5_000)
# The longest there are, by default.
measure.(1024 * 1024, 100, 1_000)
