# The application: it owns the store, sweeps it, and loses no session when one of its processes
# dies. Restarts the application, so it runs alone.
defmodule SessionServerStore.ApplicationTest do
  use ExUnit.Case, async: false
  @moduletag :capture_log
  import AppConfig, only: [restart: 1, restore_on_exit: 0]
  import Eventually
  import ExUnit.CaptureLog

  alias SessionServerStore.Store

  @app :session_server_store

  setup do: restore_on_exit()

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 30_000
  end

  defp running?, do: Enum.any?(Application.started_applications(), &(elem(&1, 0) == @app))

  test "default store restarts after each of many deaths" do
    {:ok, sid, _} = Store.create("data")

    for _ <- 1..20 do
      server = Process.whereis(SessionServerStore.Default)
      kill(server)
      eventually(fn -> Process.whereis(SessionServerStore.Default) not in [nil, server] end)
    end

    assert running?()
    assert {:ok, %{data: "data"}} = Store.get(sid)
  end

  test "sessions survive the supervisor's death and a restart" do
    {:ok, sid, _} = Store.create("data")

    capture_log(fn ->
      kill(Process.whereis(SessionServerStore.Supervisor))
      eventually(fn -> not running?() end)
    end)

    assert {:ok, %{data: "data"}} = Store.get(sid)
    :ok = Application.start(@app)
    assert {:ok, %{data: "data"}} = Store.get(sid)
  end

  test "sessions survive the death of each child" do
    {:ok, sid, _} = Store.create("data")
    {:ok, _} = Application.ensure_all_started(@app)
    children = Supervisor.which_children(SessionServerStore.Supervisor)
    assert children != []

    for {_, pid, _, _} <- children do
      kill(pid)
      assert {:ok, %{data: "data"}} = Store.get(sid)
    end
  end

  test "stop ends all sessions" do
    {:ok, sid, _} = Store.create("data")
    store = Store.default()
    capture_log(fn -> :ok = Application.stop(@app) end)

    assert {:error, %{reason: :handle}} = Store.get(sid)
    assert {:error, %{reason: :handle}} = Store.get(store, sid)
    :ok = Application.start(@app)
    assert Store.get(sid) == {:error, :not_found}
  end

  test "timer sweeps more than one step" do
    :ok = restart(url: "memory:", sweep_interval: {20, :millisecond})
    for n <- 1..2_500, do: {:ok, _, _} = Store.create(n, timeout: {1, :millisecond})
    {:ok, living, _} = Store.create("living")

    eventually(fn -> match?({:ok, %{sessions: 1}}, Store.stats()) end)
    assert {:ok, %{data: "living"}} = Store.get(living)
  end

  test "server continues after a failed sweep" do
    :ok = restart(url: "memory:", sweep_interval: {20, :millisecond})
    server = Process.whereis(SessionServerStore.Default)

    log =
      capture_log(fn ->
        Store.close(Store.default())
        1 = :erlang.trace(server, true, [:receive])
        for _ <- 1..3, do: assert_receive({:trace, ^server, :receive, :sweep}, 30_000)
        # The sweeps before the last one are over, and logged.
        :sys.get_state(server)
      end)

    assert log =~ "expired sessions could not be removed"
    assert Process.whereis(SessionServerStore.Default) == server
  end

  test "configured timeouts apply to sessions without their own" do
    :ok = restart(url: "memory:?timeout=5s&idle_timeout=infinity", sweep_interval: :infinity)
    sid = SessionServerStore.put(nil, nil, %{"a" => 1}, SessionServerStore.init([]))
    {:ok, session} = Store.peek(sid)
    assert session.expires_ms - session.created_ms == 5_000
  end

  test "changed URL opens a new store" do
    {:ok, sid, _} = Store.create("data")
    :ok = restart(url: "memory:?max_sessions=1", sweep_interval: 60)
    assert Store.get(sid) == {:error, :not_found}
    {:ok, _, _} = Store.create("one")
    assert {:error, %{reason: :full}} = Store.create("two")
  end

  test "revoke_all ends the sessions of the default store" do
    {:ok, _, _} = Store.create("data")
    assert {:ok, n} = Store.revoke_all()
    assert n >= 1
    assert {:ok, %{sessions: 0}} = Store.stats()
    assert Store.revoke_all!() == 0
  end

  test "default store can be turned off" do
    :ok = restart(default_store: false)
    assert Process.whereis(SessionServerStore.Default) == nil
    assert {:error, %{reason: :handle, message: message}} = Store.create("data")
    assert message =~ "the store SessionServerStore.Default is not running"

    start_supervised!({SessionServerStore, name: __MODULE__.Own})
    assert {:ok, _, _} = Store.create(__MODULE__.Own, "data")
  end

  describe "configuration" do
    test "wrong URL does not start" do
      assert {:error, reason} = restart(url: "momory:", sweep_interval: 60)
      assert inspect(reason) =~ "momory"

      for wrong <- [nil, ~c"memory:", :memory] do
        assert {:error, reason} = restart(url: wrong, sweep_interval: 60)
        assert inspect(reason) =~ "URL"
        refute running?()
      end
    end

    test "wrong sweep interval does not start" do
      for wrong <- [0, -1, "60", nil, 1.5, {5, :minutes}, :timer.minutes(1)] do
        assert {:error, reason} = restart(url: "memory:", sweep_interval: wrong)
        assert inspect(reason) =~ "sweep_interval"
        refute running?()
      end

      for right <- [1, 3_600, {5, :minute}, {1, :day}, :infinity] do
        assert restart(url: "memory:", sweep_interval: right) == :ok
      end
    end

    test "unknown key does not start" do
      assert {:error, reason} = restart(url: "memory:", sweep_interval: 60, sweep_intervall: 5)
      assert inspect(reason) =~ "sweep_intervall"
      refute running?()

      assert {:error, reason} = restart(default_store: nil)
      assert inspect(reason) =~ "default_store"
      refute running?()
    end
  end

  test "closed store raises in Plug callbacks" do
    :ok = restart(url: "memory:", sweep_interval: 60)
    opts = SessionServerStore.init([])
    sid = SessionServerStore.put(nil, nil, %{"a" => 1}, opts)
    :ok = Store.close(Store.default())

    for call <- [
          fn -> SessionServerStore.get(nil, sid, opts) end,
          fn -> SessionServerStore.put(nil, sid, %{"a" => 2}, opts) end,
          fn -> SessionServerStore.put(nil, nil, %{"a" => 2}, opts) end,
          fn -> SessionServerStore.delete(nil, sid, opts) end
        ] do
      assert_raise SessionServerStore.Error, call
    end
  end
end
