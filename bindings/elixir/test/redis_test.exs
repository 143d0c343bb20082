# The engine redis: in an application whose server does not respond: an error, never an empty
# session, and no effect on the rest of the VM. The conformance tests test the contract.
# tests/processes/with_redis.rs starts a server and passes its process id; without it, only tests
# without a server run. Stops the server, so it runs alone.
defmodule SessionServerStore.RedisTest do
  use ExUnit.Case, async: false
  import AppConfig, only: [configure: 1]

  alias SessionServerStore.Error

  @compile {:no_warn_undefined, [Plug.Conn, Plug.Exception, Plug.Session, Plug.Test]}

  @deadline_ms 500

  describe "server that is down" do
    setup do
      # No server listens there.
      configure(url: "redis://127.0.0.1:1?deadline=#{@deadline_ms}ms", sweep_interval: :infinity)
    end

    test "raises in every callback" do
      opts = SessionServerStore.init([])
      sid = String.duplicate("A", 128)

      # More calls than open the circuit breaker: it must answer the same.
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
    test "is 503 under Plug.Session" do
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
    @file_writes 100

    defp signal(name), do: {"", 0} = System.cmd("kill", ["-#{name}", System.fetch_env!("SSS_TEST_REDIS_PID")])

    # Reads until it is told to stop. Tells the test about its first failure. Returns all kinds of
    # results.
    defp read_until(stop, store, sid, test, results \\ MapSet.new()) do
      if :atomics.get(stop, 1) == 1 do
        results
      else
        result =
          case SessionServerStore.Store.get(store, sid) do
            {:ok, _} -> :ok
            {:error, %Error{reason: reason}} -> reason
            {:error, :not_found} -> :not_found
          end

        if result != :ok do
          if MapSet.subset?(results, MapSet.new([:ok])), do: send(test, {:failed, self()})
          # The next request of a busy site.
          Process.sleep(1)
        end

        read_until(stop, store, sid, test, MapSet.put(results, result))
      end
    end

    # If calls kept waiting for the stopped server, each write would wait for a dirty scheduler
    # until a deadline has passed: minutes for all of them. The test's own timeout tells that apart,
    # however slow the machine is.
    test "stalled server leaves schedulers to file I/O" do
      temporary = TemporaryStore.new()
      url = temporary |> TemporaryStore.url() |> String.replace("deadline=30s", "deadline=#{@deadline_ms}ms")
      {:ok, store} = SessionServerStore.Store.open(url)
      {:ok, sid, _} = SessionServerStore.Store.create(store, %{n: 1})
      path = Path.join(System.tmp_dir!(), temporary.name)
      on_exit(fn -> File.rm(path) end)
      on_exit(fn -> signal("CONT") end)
      test = self()
      stop = :atomics.new(1, [])
      callers = for _ <- 1..@callers, do: Task.async(fn -> read_until(stop, store, sid, test) end)

      signal("STOP")
      for %{pid: pid} <- callers, do: assert_receive({:failed, ^pid}, 50_000)

      for _ <- 1..@file_writes do
        assert File.write(path, "x") == :ok
        assert File.read(path) == {:ok, "x"}
      end

      signal("CONT")
      :atomics.put(stop, 1, 1)
      results = callers |> Task.await_many(50_000) |> Enum.reduce(&MapSet.union/2)
      refute :not_found in results
      assert :timeout in results or :unavailable in results
    end
  end
end
