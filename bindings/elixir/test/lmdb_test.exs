# The engine lmdb:, as an application meets it: configured by its URL, shared with another VM, never in the way of the
# schedulers, and loud when it cannot answer. The contract itself is played by SSS_TEST_ENGINE=lmdb mix test
# test/conformance_test.exs. Restarts the application, so it runs alone.
defmodule SessionServerStore.LmdbTest do
  use ExUnit.Case, async: false
  import Configured, only: [configured: 1, restart: 0]

  alias SessionServerStore.{Call, Error, Native, Store}

  @app :session_server_store

  setup do
    place = Place.new("lmdb")
    on_exit(fn -> Place.remove(place) end)
    {:ok, place: place}
  end

  # Another VM, whose application is on this URL; it ends with the test.
  defp other_vm(url) do
    code_path = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    {:ok, peer, _} = :peer.start_link(%{connection: :standard_io, args: code_path, wait_boot: 60_000})
    :ok = :peer.call(peer, :application, :load, [@app])
    :ok = :peer.call(peer, :application, :set_env, [@app, :url, url])
    {:ok, _} = :peer.call(peer, :application, :ensure_all_started, [@app])
    {peer, peer |> :peer.call(:os, :getpid, []) |> List.to_string()}
  end

  defp signal(signal, pid), do: {"", 0} = System.cmd("kill", ["-#{signal}", pid])

  describe "the application's store" do
    test "keeps sessions over restarts, and Plug's options mean what they always mean", %{place: place} do
      :ok = configured(url: Place.url(place), sweep_interval: 60)
      opts = SessionServerStore.init(timeout: 100, idle_timeout: 50, principal_key: "user_id")
      sid = SessionServerStore.put(nil, nil, %{"user_id" => 7}, opts)
      :ok = restart()
      assert SessionServerStore.get(nil, sid, opts) == {sid, %{"user_id" => 7}}
      {:ok, session} = Store.peek(sid)
      assert session.expires_ms - session.last_seen_ms == 50_000
      assert {:ok, [_]} = Store.list("7")
      assert SessionServerStore.put(nil, sid, %{"user_id" => 7, "n" => 1}, opts) == sid
      :ok = restart()
      assert {:ok, %{data: %{"n" => 1}, version: 2}} = Store.get(sid)
      assert SessionServerStore.delete(nil, sid, opts) == :ok
      :ok = restart()
      assert SessionServerStore.get(nil, sid, opts) == {nil, %{}}
    end

    test "is where the README's configuration says", %{place: place} do
      readme = Path.expand("../README.md", __DIR__)
      [_, lines] = Regex.run(~r/^```elixir\n(config [^`]*"lmdb:[^`]*)^```/m, File.read!(readme))
      [session_server_store: config] = Config.Reader.eval!(readme, "import Config\n" <> lines)
      assert config[:url] =~ "lmdb:/var/lib/app/sessions"
      url = String.replace(config[:url], "/var/lib/app/sessions", Place.directory(place))
      :ok = configured(url: url, sweep_interval: 60)
      {:ok, sid, session} = Store.create(%{n: 1})
      assert session.expires_ms - session.last_seen_ms == 15 * 60_000
      :ok = restart()
      assert {:ok, %{data: %{n: 1}}} = Store.get(sid)
    end

    test "is swept", %{place: place} do
      :ok = configured(url: Place.url(place), sweep_interval: {50, :millisecond})
      for n <- 1..1_500, do: {:ok, _, _} = Store.create(n, timeout: {100, :millisecond})
      {:ok, %{sessions: sessions}} = Store.stats()
      assert sessions > 0
      assert Enum.any?(1..300, fn _ -> match?({:ok, %{sessions: 0}}, Store.stats()) || Process.sleep(10) != :ok end)
    end

    test "does not start in a directory that others can reach, and says what to do", %{place: place} do
      :ok = configured(url: Place.url(place), sweep_interval: 60)
      File.chmod!(Place.directory(place), 0o755)
      assert {:error, reason} = restart()
      assert inspect(reason) =~ "chmod"
    end
  end

  describe "another VM" do
    test "shares the sessions, whatever terms they hold", %{place: place} do
      {peer, _} = other_vm(Place.url(place))
      {:ok, store} = Store.open(Place.url(place))
      theirs = fn function, arguments -> :peer.call(peer, Store, function, arguments) end
      data = %{"list" => [1, :two, "three"], {1, 2} => 3.5, "nothing" => nil}

      {:ok, sid, _} = Store.create(store, data, principal: "alice")
      assert {:ok, %{data: ^data}} = theirs.(:get, [sid])
      {:ok, %{version: 2}} = theirs.(:put_if, [sid, 1, %{"n" => 2}])
      assert {:error, %Error{reason: :conflict}} = Store.put_if(store, sid, 1, data)
      assert {:ok, %{data: %{"n" => 2}}} = Store.get(store, sid)
      {:ok, new, _} = theirs.(:renew, [sid])
      assert Store.get(store, sid) == {:error, :not_found}
      assert {:ok, 1} = Store.revoke(store, "alice")
      assert theirs.(:get, [new]) == {:error, :not_found}
    end

    test "that is stopped in the middle of a write holds up those who write, and nobody else", %{place: place} do
      url = Place.url(place, ["max_bytes=64MiB", "max_payload=16MiB"])
      {peer, pid} = other_vm(url)
      {:ok, store} = Store.open(url)
      {:ok, sid, _} = Store.create(store, "x", principal: "alice")
      {:ok, their_sid, _} = Store.create(store, "x")
      put_forever = "for _ <- Stream.cycle([1]), do: {:ok, _} = SessionServerStore.Store.put(sid, large)"
      :ok = :peer.cast(peer, Code, :eval_string, [put_forever, [sid: their_sid, large: :binary.copy("x", 4_000_000)]])

      write = stopped_in_a_write(pid, store, sid)
      # If these took the threads of schedulers, none would be left.
      others = for _ <- 1..(2 * System.schedulers_online()), do: Task.async(fn -> Store.put(store, sid, "z") end)
      started = System.monotonic_time(:millisecond)

      for _ <- 1..2_000 do
        assert {:ok, _} = Store.get(store, sid)
        assert {:ok, _} = Store.peek(store, sid)
        assert {:ok, _} = Store.touch(store, sid)
        assert {:ok, _} = Store.ref(store, sid)
        assert {:ok, [_]} = Store.list(store, "alice")
        assert {:ok, _} = Store.stats(store)
      end

      assert Task.await(Task.async(fn -> Enum.sum(1..100_000) end)) == 5_000_050_000
      assert Enum.all?([write | others], &(Task.yield(&1, 0) == nil))
      assert System.monotonic_time(:millisecond) - started < 5_000
      signal("CONT", pid)
      for write <- [write | others], do: assert({:ok, _} = Task.await(write))
    end
  end

  # Stops the other VM again and again, until a write of ours has to wait for one of its.
  defp stopped_in_a_write(pid, store, sid) do
    Process.sleep(5)
    signal("STOP", pid)
    # Whatever happens here, it does not stay stopped.
    {_, 0} = System.cmd("sh", ["-c", "(sleep 10; kill -CONT #{pid}) >/dev/null 2>&1 &"])
    write = Task.async(fn -> Store.put(store, sid, "y") end)

    case Task.yield(write, 1_000) do
      nil ->
        write

      {:ok, {:ok, _}} ->
        signal("CONT", pid)
        stopped_in_a_write(pid, store, sid)
    end
  end

  describe "the scheduler" do
    test "is the caller's for memory:, and for what only reads from lmdb:", %{place: place} do
      options = {0, 0, :keep, 0}
      {:ok, memory} = Native.open("memory:")
      {:ok, lmdb} = Native.open(Place.url(place))
      {:ok, power} = Native.open(Place.url(%{Place.new("lmdb-power") | name: place.name <> "-power"}))
      on_exit(fn -> File.rm_rf!(Place.directory(place) <> "-power") end)

      for {handle, reads, writes} <- [{memory, false, false}, {lmdb, false, true}, {power, true, true}] do
        {:ok, {sid, _}} = Native.create_waiting(handle, "x", options)
        {:ok, ref} = Native.reference_waiting(handle, sid)

        for {waits, call} <- [
              {reads, fn -> Native.get(handle, sid, false) end},
              {reads, fn -> Native.get(handle, sid, true) end},
              {reads, fn -> Native.touch(handle, sid) end},
              {reads, fn -> Native.reference(handle, sid) end},
              {reads, fn -> Native.stats(handle) end},
              {writes, fn -> Native.create(handle, "x", options) end},
              {writes, fn -> Native.put(handle, sid, "x", options) end},
              {writes, fn -> Native.put_if(handle, sid, 1, "x", options) end},
              {writes, fn -> Native.delete_ref(handle, ref) end},
              {writes, fn -> Native.renew(handle, sid, nil, options) end},
              {writes, fn -> Native.delete(handle, sid) end}
            ],
            do: assert(call.() == :wait == waits)

        :ok = Native.close(handle)
      end
    end
  end

  describe "a large payload" do
    test "is read and written on a dirty scheduler, whatever the engine, and is not used twice", %{place: place} do
      options = {0, 0, :keep, 0}
      [small, large] = for size <- [128 * 1024, 128 * 1024 + 1], do: :binary.copy("x", size)

      for url <- ["memory:", "memory:?seal=on", Place.url(place)] do
        {:ok, handle} = Native.open(url)
        {:ok, {sid, _}} = Call.create(handle, small, options)
        assert dirty(fn -> {:ok, {^small, _, true}} = Call.get(handle, sid, false) end) == []
        {:ok, {version, _, _, _}} = Call.put(handle, sid, large, options)
        assert version == 2
        {:ok, stats} = Native.stats(handle)
        assert dirty(fn -> {:ok, {^large, _, true}} = Call.get(handle, sid, false) end) == [:get_waiting]
        {:ok, after_get} = Native.stats(handle)
        assert after_get[:hits] == stats[:hits] + 1

        for {name, arguments} <- [
              create: [handle, large, options],
              put: [handle, sid, large, options],
              put_if: [handle, sid, 3, large, options],
              renew: [handle, sid, large, options]
            ],
            do: assert(dirty(fn -> {:ok, _} = apply(Call, name, arguments) end) == [:"#{name}_waiting"])

        :ok = Native.close(handle)
      end
    end
  end

  # The functions of the library that run on a dirty scheduler (which the VM numbers 0) while another process does this.
  defp dirty(f) do
    test = self()

    worker =
      spawn_link(fn ->
        receive do: (:go -> f.())
        send(test, {:done, self()})
      end)

    1 = :erlang.trace(worker, true, [:running, :scheduler_id])
    send(worker, :go)
    assert_receive {:done, ^worker}, 10_000
    delivered = :erlang.trace_delivered(worker)
    assert_receive {:trace_delivered, ^worker, ^delivered}, 10_000
    dirty_of(worker)
  end

  defp dirty_of(worker) do
    receive do
      {:trace, ^worker, :in, {Native, name, _}, 0} -> [name | dirty_of(worker)]
      {:trace, ^worker, _, _, _} -> dirty_of(worker)
    after
      0 -> []
    end
  end

  test "redis: is always waited for on another scheduler" do
    # Nobody listens there, and nobody needs to.
    {:ok, handle} = Native.open("redis://127.0.0.1:1")
    sid = String.duplicate("x", 128)

    for call <- [
          fn -> Native.get(handle, sid, false) end,
          fn -> Native.touch(handle, sid) end,
          fn -> Native.stats(handle) end,
          fn -> Native.create(handle, "x", {0, 0, :keep, 0}) end,
          fn -> Native.delete(handle, sid) end
        ],
        do: assert(call.() == :wait)

    assert {:error, {:unavailable, _, _}} = Native.get_waiting(handle, sid, false)
    :ok = Native.close(handle)
  end

  describe "what cannot be trusted" do
    test "from a file that is not sealed, nothing is built but plain terms with known atoms", %{place: place} do
      {:ok, store} = Store.open(Place.url(place, ["seal=off"]))
      raw = %{store | raw: true}

      for data <- [%{"a" => [1, :ok, {2.5, "x"}]}, [1 | 2], ~D[2020-02-29]] do
        {:ok, sid, _} = Store.create(store, data)
        assert {:ok, %{data: ^data}} = Store.get(store, sid)
      end

      unknown = "an_atom_nobody_knows_#{System.unique_integer([:positive])}"
      planted = <<131, 119, byte_size(unknown), unknown::binary>>
      {:ok, sid, _} = Store.create(raw, planted)
      assert {:error, %Error{reason: :corrupt}} = Store.get(store, sid)
      assert_raise ArgumentError, fn -> String.to_existing_atom(unknown) end

      {:ok, sid, _} = Store.create(raw, :erlang.term_to_binary(:binary.copy("x", 1_000_000), [:compressed]))
      assert {:error, %Error{reason: :corrupt, message: message}} = Store.get(store, sid)
      assert message =~ "compressed"

      for function <- [fn -> :run end, &String.length/1, &{&1, &2}],
          data <- [function, [function], [1 | function], %{"f" => {1, function}}, %{function => 1}] do
        {:ok, sid, _} = Store.create(raw, :erlang.term_to_binary(data))
        assert {:error, %Error{reason: :corrupt, message: message}} = Store.get(store, sid)
        assert message =~ "function"
      end
    end

    test "a sealed record that was edited raises in Plug, and is no empty session", %{place: place} do
      :ok = configured(url: Place.url(place), sweep_interval: 60)
      opts = SessionServerStore.init([])
      sid = SessionServerStore.put(nil, nil, %{"blob" => :binary.copy("x", 500_000)}, opts)
      assert {^sid, _} = SessionServerStore.get(nil, sid, opts)

      edit_largest_record(Path.join(Place.directory(place), "data.mdb"))
      error = assert_raise Error, fn -> SessionServerStore.get(nil, sid, opts) end
      assert error.reason == :corrupt
      refute error.message =~ sid
    end
  end

  # Turns one bit in the middle of all pages that are not empty, most of which are those of the large payload.
  defp edit_largest_record(path) do
    page = 4096
    {:ok, file} = :file.open(path, [:read, :write, :raw, :binary])
    {:ok, bytes} = :file.read(file, 16 * 1024 * 1024)
    empty = :binary.copy(<<0>>, page)

    used =
      for {page, number} <- Enum.with_index(for <<page::binary-size(4096) <- bytes>>, do: page),
          page != empty,
          do: number

    at = Enum.at(used, div(length(used), 2)) * page + 1_000
    :ok = :file.pwrite(file, at, <<Bitwise.bxor(:binary.at(bytes, at), 1)>>)
    :ok = :file.close(file)
  end
end
