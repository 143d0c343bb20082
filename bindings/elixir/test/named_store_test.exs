# Stores with names in a supervision tree: they are separate, and their sessions outlive each process
# of the tree.
defmodule SessionServerStore.NamedStoreTest do
  use ExUnit.Case, async: true
  @moduletag :capture_log
  import Eventually
  import ExUnit.CaptureLog

  alias SessionServerStore.{Error, Store}

  # Names are atoms, so each test takes its own from its module and line.
  setup context, do: {:ok, name: Module.concat(__MODULE__, "Line#{context.line}")}

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 30_000
  end

  defp restarted(name, pid), do: eventually(fn -> Process.whereis(name) not in [nil, pid] end)

  # A supervisor that is not linked to the test.
  defp start_tree(children, options \\ [strategy: :one_for_one]) do
    {:ok, supervisor} = Supervisor.start_link(children, options)
    Process.unlink(supervisor)
    on_exit(fn -> if Process.alive?(supervisor), do: Supervisor.stop(supervisor) end)
    supervisor
  end

  test "stores do not share sessions", %{name: name} do
    other = Module.concat(name, Other)
    start_supervised!({SessionServerStore, name: name})
    start_supervised!({SessionServerStore, name: other})
    public = SessionServerStore.init(name: name, principal_key: "user_id")
    admin = SessionServerStore.init(name: other, principal_key: "user_id")

    sid = SessionServerStore.put(nil, nil, %{"user_id" => "alice"}, public)
    assert {^sid, %{"user_id" => "alice"}} = SessionServerStore.get(nil, sid, public)
    assert SessionServerStore.get(nil, sid, admin) == {nil, %{}}
    assert SessionServerStore.get(nil, sid, SessionServerStore.init([])) == {nil, %{}}
    assert SessionServerStore.put(nil, sid, %{"user_id" => "root"}, admin) == sid
    assert Store.list(other, "alice") == {:ok, []}
    assert Store.revoke(other, "alice") == {:ok, 0}
    assert Store.delete(other, sid) == {:error, :not_found}
    assert {:ok, [_]} = Store.list(name, "alice")
    assert {:ok, %{data: %{"user_id" => "alice"}}} = Store.get(name, sid)
  end

  test "functions take the name", %{name: name} do
    start_supervised!({SessionServerStore, name: name, url: "memory:?clock=manual"})
    {:ok, sid, session} = Store.create(name, %{"a" => 1}, principal: "alice")
    {:ok, _} = Store.put(name, sid, %{"a" => 2})
    {:ok, %{version: 3}} = Store.put_if(name, sid, session.version + 1, %{"a" => 3})
    {:ok, %{data: %{"a" => 4}}} = Store.update(name, sid, &%{&1 | "a" => 4})
    {:ok, _} = Store.touch(name, sid)
    {:ok, sid, _} = Store.renew(name, sid)
    {:ok, ref} = Store.ref(name, sid)
    assert {:ok, [%{ref: ^ref}]} = Store.list(name, "alice")
    assert {:ok, %{sessions: 1}} = Store.stats(name)
    :ok = Store.advance_clock(name, {11, :minute})
    assert Store.peek(name, sid) == {:error, :not_found}
    assert Store.sweep(name) == {:ok, 1}
  end

  test "store that is not running is named", %{name: name} do
    for call <- [
          fn -> Store.create(name, %{"a" => 1}) end,
          fn -> Store.get(name, "sid") end,
          fn -> Store.list(name, "alice") end,
          fn -> Store.stats(name) end
        ] do
      assert {:error, %Error{reason: :handle, message: message}} = call.()
      assert message == "the store #{inspect(name)} is not running"
    end

    opts = SessionServerStore.init(name: name)
    assert_raise Error, ~r/is not running/, fn -> SessionServerStore.put(nil, nil, %{"a" => 1}, opts) end
    assert_raise Error, ~r/is not running/, fn -> SessionServerStore.get(nil, "sid", opts) end
  end

  describe "sessions outlive" do
    test "the store's process, killed or failing", %{name: name} do
      start_tree([{SessionServerStore, name: name}])
      {:ok, sid, _} = Store.create(name, %{"a" => 1})

      for stop <- [&kill/1, &GenServer.stop(&1, {:shutdown, :test}), &GenServer.stop(&1, :failure)] do
        pid = Process.whereis(name)
        capture_log(fn -> stop.(pid) end)
        assert {:ok, _} = Store.get(name, sid)
        restarted(name, pid)
        assert {:ok, _} = Store.get(name, sid)
      end
    end

    test "the crash of a sibling", %{name: name} do
      sibling = Module.concat(name, Sibling)

      children = [
        %{id: :sibling, start: {Agent, :start_link, [fn -> nil end, [name: sibling]]}},
        {SessionServerStore, name: name}
      ]

      start_tree(children, strategy: :one_for_all)
      {:ok, sid, _} = Store.create(name, %{"a" => 1})
      pid = Process.whereis(name)
      kill(Process.whereis(sibling))
      restarted(name, pid)
      assert {:ok, _} = Store.get(name, sid)
    end

    test "the end of a supervisor that gives up", %{name: name} do
      sibling = Module.concat(name, Sibling)

      children = [
        %{id: :sibling, start: {Agent, :start_link, [fn -> nil end, [name: sibling]]}},
        {SessionServerStore, name: name}
      ]

      inner = %{
        id: :inner,
        type: :supervisor,
        start: {Supervisor, :start_link, [children, [strategy: :one_for_one, max_restarts: 0]]}
      }

      outer = start_tree([inner])
      {:ok, sid, _} = Store.create(name, %{"a" => 1})
      pid = Process.whereis(name)
      [{:inner, supervisor, _, _}] = Supervisor.which_children(outer)
      kill(Process.whereis(sibling))
      restarted(name, pid)
      refute Process.alive?(supervisor)
      assert {:ok, _} = Store.get(name, sid)
      :ok = Supervisor.stop(outer)
      eventually(fn -> match?({:error, %Error{reason: :handle}}, Store.get(name, sid)) end)
    end

    test "the supervisor's death", %{name: name} do
      inner = %{
        id: :inner,
        type: :supervisor,
        start: {Supervisor, :start_link, [[{SessionServerStore, name: name}], [strategy: :one_for_one]]}
      }

      outer = start_tree([inner])
      {:ok, sid, _} = Store.create(name, %{"a" => 1})
      pid = Process.whereis(name)
      [{:inner, supervisor, _, _}] = Supervisor.which_children(outer)
      kill(supervisor)
      restarted(name, pid)
      assert {:ok, _} = Store.get(name, sid)
    end
  end

  test "orderly end of the supervisor ends the sessions", %{name: name} do
    supervisor = start_tree([{SessionServerStore, name: name}])
    {:ok, sid, _} = Store.create(name, %{"a" => 1})
    :ok = Supervisor.stop(supervisor)
    eventually(fn -> match?({:error, %Error{reason: :handle}}, Store.get(name, sid)) end)
    start_tree([{SessionServerStore, name: name}])
    assert Store.get(name, sid) == {:error, :not_found}
  end

  test "next supervisor gets a new store", %{name: name} do
    # As in consecutive tests that use the same name: nothing waits for the first store to be closed.
    for _ <- 1..50 do
      {:ok, supervisor} = Supervisor.start_link([{SessionServerStore, name: name}], strategy: :one_for_one)
      assert {:ok, %{sessions: 0}} = Store.stats(name)
      {:ok, _, _} = Store.create(name, %{"a" => 1})
      :ok = Supervisor.stop(supervisor)
    end
  end

  test "two processes cannot have one name", %{name: name} do
    start_supervised!({SessionServerStore, name: name})
    {:ok, sid, _} = Store.create(name, %{"a" => 1})
    assert {:error, {:already_started, _}} = SessionServerStore.start_link(name: name, url: "memory:")
    assert {:ok, _} = Store.get(name, sid)
  end

  test "expired sessions are swept", %{name: name} do
    start_supervised!({SessionServerStore, name: name, sweep_interval: {20, :millisecond}})
    for n <- 1..10, do: {:ok, _, _} = Store.create(name, n, timeout: {1, :millisecond})
    eventually(fn -> match?({:ok, %{sessions: 0}}, Store.stats(name)) end)
  end

  describe "boot error names" do
    defp boot_error(opts) do
      {:error, {reason, _child}} = start_supervised({SessionServerStore, opts})
      Exception.format_exit(with {:EXIT, raised} <- reason, do: raised)
    end

    test "the part of a wrong URL", %{name: name} do
      assert boot_error(name: name, url: "momory:") =~
               "(SessionServerStore.Error) the store #{inspect(name)} cannot be opened: "

      assert boot_error(name: name, url: "momory:") =~ "momory"
      assert boot_error(name: name, url: "memory:?timout=3h") =~ "timout"
    end

    test "a directory that is a file", %{name: name} do
      path = Path.join(System.tmp_dir!(), "sss-elixir-#{System.pid()}-file")
      File.write!(path, "taken")
      on_exit(fn -> File.rm!(path) end)
      assert boot_error(name: name, url: "lmdb:#{path}") =~ path
      assert boot_error(name: name, url: "lmdb:#{path}/inside") =~ path
    end

    test "a store that is open with other settings", %{name: name} do
      temporary = TemporaryStore.new("lmdb")
      on_exit(fn -> TemporaryStore.remove(temporary) end)
      {:ok, store} = Store.open(TemporaryStore.url(temporary, ["seal=on"]))

      assert boot_error(name: name, url: TemporaryStore.url(temporary, ["seal=off"])) =~
               TemporaryStore.directory(temporary)

      Store.close(store)
    end

    test "a wrong option", %{name: name} do
      for {option, value} <- [sweep_interval: 0, stats_interval: "60", url: nil, pubsub: "PubSub", sweep_intervall: 5] do
        assert boot_error([{:name, name}, {option, value}]) =~ to_string(if option == :url, do: "URL", else: option)
      end

      for wrong <- [nil, true, "sessions"], do: assert(boot_error(name: wrong) =~ ":name")
    end
  end
end
