# The engine redis:, as an application meets it when its server does not answer: an error, never an empty session, and no
# harm to the rest of the VM. What the contract says is played by the conformance tests. tests/processes/with_redis.rs starts the
# server and tells its process; without it only what needs no server runs. Stops the server, so it runs alone.
defmodule SessionServerStore.RedisTest do
  use ExUnit.Case, async: false
  import Configured, only: [configured: 1]

  alias SessionServerStore.Error

  @compile {:no_warn_undefined, [Plug.Conn, Plug.Exception, Plug.Session, Plug.Test]}

  @deadline_ms 500

  describe "for Plug, a server that is down" do
    setup do
      # Nobody listens there.
      configured(url: "redis://127.0.0.1:1?deadline=#{@deadline_ms}ms", sweep_interval: :infinity)
    end

    test "raises on get, put and delete, and never gives an empty session" do
      opts = SessionServerStore.init([])
      sid = String.duplicate("A", 128)

      # More often than the breaker takes: what it answers is no other thing.
      for _ <- 1..5,
          call <- [
            fn -> SessionServerStore.get(nil, sid, opts) end,
            fn -> SessionServerStore.put(nil, nil, %{"n" => 1}, opts) end,
            fn -> SessionServerStore.put(nil, sid, %{"n" => 1}, opts) end,
            fn -> SessionServerStore.put(nil, sid, %{}, opts) end,
            fn -> SessionServerStore.delete(nil, sid, opts) end
          ] do
        error = assert_raise(Error, call)
        assert {error.reason, error.plug_status} == {:unavailable, 503}
      end
    end

    @tag :plug
    test "is 503 under Plug.Session, before anything is sent" do
      opts = Plug.Session.init(store: SessionServerStore, key: "sid")
      session = fn conn -> conn |> Plug.Session.call(opts) |> Plug.Conn.fetch_session() end
      returning = Plug.Test.conn(:get, "/") |> Plug.Test.put_req_cookie("sid", String.duplicate("A", 128))
      new = Plug.Test.conn(:get, "/") |> session.() |> Plug.Conn.put_session("n", 1)

      for call <- [fn -> session.(returning) end, fn -> Plug.Conn.send_resp(new, 200, "") end] do
        assert Plug.Exception.status(assert_raise(Error, call)) == 503
        refute_received {:plug_conn, :sent}
      end
    end
  end

  if System.get_env("SSS_TEST_REDIS_PID") do
    @callers 50

    defp signal(name), do: {"", 0} = System.cmd("kill", ["-#{name}", System.fetch_env!("SSS_TEST_REDIS_PID")])

    # How long the VM's own file I/O takes, one after the other, until `until`: in milliseconds, the longest first.
    defp file_times(until, path, times \\ []) do
      if System.monotonic_time(:millisecond) < until do
        {us, :ok} =
          :timer.tc(fn ->
            :ok = File.write(path, "x")
            {:ok, "x"} = File.read(path)
            :ok
          end)

        Process.sleep(5)
        file_times(until, path, [us / 1000 | times])
      else
        Enum.sort(times, :desc)
      end
    end

    # Until it is told to stop; what it has seen.
    defp caller(store, sid, stop, seen \\ MapSet.new()) do
      if :atomics.get(stop, 1) == 1 do
        seen
      else
        what =
          case SessionServerStore.Store.get(store, sid) do
            {:ok, _} -> :ok
            {:error, %Error{reason: reason}} -> reason
            {:error, :not_found} -> :not_found
          end

        # As the next request of a busy site.
        if what != :ok, do: Process.sleep(1)
        caller(store, sid, stop, MapSet.put(seen, what))
      end
    end

    test "a stalled server holds up the VM's own files for a deadline at the most, once" do
      place = Place.new()
      url = place |> Place.url() |> String.replace("deadline=30s", "deadline=#{@deadline_ms}ms")
      {:ok, store} = SessionServerStore.Store.open(url)
      {:ok, sid, _} = SessionServerStore.Store.create(store, %{n: 1})
      path = Path.join(System.tmp_dir!(), place.name)
      stop = :atomics.new(1, [])
      callers = for _ <- 1..@callers, do: Task.async(fn -> caller(store, sid, stop) end)
      Process.sleep(200)
      signal("STOP")

      times =
        try do
          file_times(System.monotonic_time(:millisecond) + 3000, path)
        after
          signal("CONT")
          :atomics.put(stop, 1, 1)
          File.rm(path)
        end

      seen = callers |> Task.await_many(30_000) |> Enum.reduce(&MapSet.union/2)
      # If calls went on waiting it would be all of the time. The machine may be busy with other things.
      assert times |> Enum.filter(&(&1 > @deadline_ms / 2)) |> Enum.sum() < 2000
      refute :not_found in seen
      assert :timeout in seen or :unavailable in seen
    end
  end
end
