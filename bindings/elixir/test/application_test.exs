# The application: it owns the store, sweeps it, and loses no session when one of its processes dies. Restarts the
# application, so it runs alone.
defmodule SessionServerStore.ApplicationTest do
  use ExUnit.Case, async: false
  @moduletag :capture_log
  import Configured, only: [as_it_was: 0, restart: 1]
  import ExUnit.CaptureLog

  alias SessionServerStore.Store

  @app :session_server_store

  setup do: as_it_was()

  defp kill(name) do
    pid = Process.whereis(name)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
  end

  defp eventually(condition), do: assert(Enum.any?(1..300, fn _ -> condition.() || Process.sleep(10) != :ok end))

  defp running?, do: Enum.any?(Application.started_applications(), &(elem(&1, 0) == @app))

  test "no death of the sweeper loses a session, and it is started again" do
    {:ok, sid, _} = Store.create("data")

    for _ <- 1..20 do
      sweeper = Process.whereis(SessionServerStore.Sweeper)
      kill(SessionServerStore.Sweeper)
      eventually(fn -> Process.whereis(SessionServerStore.Sweeper) not in [nil, sweeper] end)
    end

    assert running?()
    assert {:ok, %{data: "data"}} = Store.get(sid)
  end

  test "the death of the supervisor loses no session, not even when the application is started again" do
    {:ok, sid, _} = Store.create("data")

    capture_log(fn ->
      kill(SessionServerStore.Supervisor)
      eventually(fn -> not running?() end)
    end)

    assert {:ok, %{data: "data"}} = Store.get(sid)
    :ok = Application.start(@app)
    assert {:ok, %{data: "data"}} = Store.get(sid)
  end

  test "each process of the application may die" do
    {:ok, sid, _} = Store.create("data")
    {:ok, _} = Application.ensure_all_started(@app)
    children = Supervisor.which_children(SessionServerStore.Supervisor)
    assert children != []

    for {_, pid, _, _} <- children do
      monitor = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
      assert {:ok, %{data: "data"}} = Store.get(sid)
    end
  end

  test "stopping the application ends all sessions" do
    {:ok, sid, _} = Store.create("data")
    store = Store.default()
    capture_log(fn -> :ok = Application.stop(@app) end)

    assert {:error, %{reason: :handle}} = Store.get(sid)
    assert {:error, %{reason: :handle}} = Store.get(store, sid)
    :ok = Application.start(@app)
    assert Store.get(sid) == {:error, :not_found}
  end

  test "expired sessions are swept on a timer, more than one step's worth" do
    :ok = restart(url: "memory:", sweep_interval: {20, :millisecond})
    for n <- 1..2_500, do: {:ok, _, _} = Store.create(n, timeout: {1, :millisecond})
    {:ok, living, _} = Store.create("living")

    eventually(fn -> match?({:ok, %{sessions: 1}}, Store.stats()) end)
    assert {:ok, %{data: "living"}} = Store.get(living)
  end

  test "the sweeper goes on after a failed sweep" do
    :ok = restart(url: "memory:", sweep_interval: {20, :millisecond})
    sweeper = Process.whereis(SessionServerStore.Sweeper)

    log =
      capture_log(fn ->
        Store.close(Store.default())
        Process.sleep(100)
      end)

    assert log =~ "could not sweep"
    assert Process.whereis(SessionServerStore.Sweeper) == sweeper
  end

  test "the configured URL is opened, and its timeouts hold for sessions that have none of their own" do
    :ok = restart(url: "memory:?timeout=5s&idle_timeout=infinity", sweep_interval: :infinity)
    sid = SessionServerStore.put(nil, nil, %{"a" => 1}, SessionServerStore.init([]))
    {:ok, session} = Store.peek(sid)
    assert session.expires_ms - session.created_ms == 5_000
  end

  test "a changed URL is a new store, the same one after a crash is not" do
    {:ok, sid, _} = Store.create("data")
    :ok = restart(url: "memory:?max_sessions=1", sweep_interval: 60)
    assert Store.get(sid) == {:error, :not_found}
    {:ok, _, _} = Store.create("one")
    assert {:error, %{reason: :full}} = Store.create("two")
  end

  test "a wrong configuration does not start, and is named" do
    assert {:error, reason} = restart(url: "momory:", sweep_interval: 60)
    assert inspect(reason) =~ "momory"

    for wrong <- [0, -1, "60", nil, 1.5] do
      assert {:error, reason} = restart(url: "memory:", sweep_interval: wrong)
      assert inspect(reason) =~ "sweep_interval"
      refute running?()
    end
  end

  test "a store that is closed raises in Plug: it is not taken for a client without a session" do
    :ok = restart(url: "memory:")
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
