# The engine lmdb: in an application: configured by its URL, shared with another VM, and failing
# with an error on damaged files. SSS_TEST_ENGINE=lmdb mix test test/conformance_test.exs tests the
# contract. Restarts the application, so it runs alone.
defmodule SessionServerStore.LmdbTest do
  use ExUnit.Case, async: false
  import AppConfig, only: [configure: 1, restart: 0]
  import Eventually

  alias SessionServerStore.{Error, Store}

  @app :session_server_store

  setup do
    temporary = TemporaryStore.new("lmdb")
    on_exit(fn -> TemporaryStore.remove(temporary) end)
    {:ok, temporary: temporary}
  end

  # Another VM with the application on this URL. It ends with the test.
  defp other_vm(url) do
    code_path = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    {:ok, peer, _} = :peer.start_link(%{connection: :standard_io, args: code_path, wait_boot: 60_000})
    :ok = :peer.call(peer, :application, :load, [@app])
    :ok = :peer.call(peer, :application, :set_env, [@app, :url, url])
    {:ok, _} = :peer.call(peer, :application, :ensure_all_started, [@app])
    {peer, peer |> :peer.call(:os, :getpid, []) |> List.to_string()}
  end

  defp signal(signal, pid), do: {"", 0} = System.cmd("kill", ["-#{signal}", pid])

  describe "the default store" do
    test "keeps sessions over restarts", %{temporary: temporary} do
      :ok = configure(url: TemporaryStore.url(temporary), sweep_interval: 60)
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

    test "README configuration opens", %{temporary: temporary} do
      readme = Path.expand("../README.md", __DIR__)
      [_, lines] = Regex.run(~r/^```elixir\n(config [^`]*"lmdb:[^`]*)^```/m, File.read!(readme))
      [session_server_store: config] = Config.Reader.eval!(readme, "import Config\n" <> lines)
      assert config[:url] =~ "lmdb:/var/lib/app/sessions"
      url = String.replace(config[:url], "/var/lib/app/sessions", TemporaryStore.directory(temporary))
      :ok = configure(url: url, sweep_interval: 60)
      {:ok, sid, session} = Store.create(%{n: 1})
      assert session.expires_ms - session.last_seen_ms == 15 * 60_000
      :ok = restart()
      assert {:ok, %{data: %{n: 1}}} = Store.get(sid)
    end

    test "timer sweeps expired sessions", %{temporary: temporary} do
      :ok = configure(url: TemporaryStore.url(temporary), sweep_interval: {50, :millisecond})
      for n <- 1..1_500, do: {:ok, _, _} = Store.create(n, timeout: {100, :millisecond})
      {:ok, _, _} = Store.create("living")
      eventually(fn -> match?({:ok, %{sessions: 1, expired: 1_500}}, Store.stats()) end)
    end

    test "directory open to others does not start", %{temporary: temporary} do
      :ok = configure(url: TemporaryStore.url(temporary), sweep_interval: 60)
      File.chmod!(TemporaryStore.directory(temporary), 0o755)
      assert {:error, reason} = restart()
      assert inspect(reason) =~ "chmod"
    end
  end

  describe "another VM" do
    test "shares sessions of any term", %{temporary: temporary} do
      {peer, _} = other_vm(TemporaryStore.url(temporary))
      {:ok, store} = Store.open(TemporaryStore.url(temporary))
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

    test "stopped in a write blocks writes only", %{temporary: temporary} do
      url = TemporaryStore.url(temporary, ["max_bytes=64MiB", "max_payload=16MiB"])
      {peer, pid} = other_vm(url)
      {:ok, store} = Store.open(url)
      {:ok, sid, _} = Store.create(store, "x", principal: "alice")
      {:ok, their_sid, _} = Store.create(store, "x")
      put_forever = "for _ <- Stream.cycle([1]), do: {:ok, _} = SessionServerStore.Store.put(sid, large)"
      :ok = :peer.cast(peer, Code, :eval_string, [put_forever, [sid: their_sid, large: :binary.copy("x", 4_000_000)]])
      # Not from this VM: blocked reads may occupy all of its schedulers.
      {_, 0} = System.cmd("sh", ["-c", "(sleep 90; kill -CONT #{pid}) >/dev/null 2>&1 &"])
      assert Enum.any?(1..200, fn _ -> writes_pending_during_reads?(pid, store, sid) end)
    end
  end

  # Stops the other VM at a random point and reads and writes here. True if it was stopped in a
  # write, so that all writes here were still pending when the reads were done.
  defp writes_pending_during_reads?(pid, store, sid) do
    signal("STOP", pid)
    # More writes than the VM has schedulers: none may occupy one.
    writes = for _ <- 0..(2 * System.schedulers_online()), do: Task.async(fn -> Store.put(store, sid, "y") end)

    for _ <- 1..300 do
      assert {:ok, _} = Store.get(store, sid)
      assert {:ok, _} = Store.peek(store, sid)
      assert {:ok, _} = Store.touch(store, sid)
      assert {:ok, _} = Store.ref(store, sid)
      assert {:ok, [_]} = Store.list(store, "alice")
      assert {:ok, _} = Store.stats(store)
    end

    pending? = Enum.all?(writes, &(Task.yield(&1, 0) == nil))
    signal("CONT", pid)
    for write <- writes, pending?, do: assert({:ok, _} = Task.await(write, 30_000))
    pending?
  end

  describe "untrusted payload" do
    test "unsealed file yields plain terms only", %{temporary: temporary} do
      {:ok, store} = Store.open(TemporaryStore.url(temporary, ["seal=off"]))
      raw = %{store | raw: true}

      for data <- [%{"a" => [1, :ok, {2.5, "x"}]}, [1 | 2], ~D[2020-02-29]] do
        {:ok, sid, _} = Store.create(store, data)
        assert {:ok, %{data: ^data}} = Store.get(store, sid)
      end

      unknown = "an_unknown_atom_#{System.unique_integer([:positive])}"
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

    test "edited sealed record raises in Plug", %{temporary: temporary} do
      :ok = configure(url: TemporaryStore.url(temporary), sweep_interval: 60)
      opts = SessionServerStore.init([])
      sid = SessionServerStore.put(nil, nil, %{"blob" => :binary.copy("x", 500_000)}, opts)
      assert {^sid, _} = SessionServerStore.get(nil, sid, opts)

      edit_largest_record(Path.join(TemporaryStore.directory(temporary), "data.mdb"))
      error = assert_raise Error, fn -> SessionServerStore.get(nil, sid, opts) end
      assert error.reason == :corrupt
      refute error.message =~ sid
    end
  end

  # Flips a bit in the middle of all pages that are not empty, most of which belong to the large
  # payload.
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
