# Which scheduler runs a call: calls that may block, or whose cost grows with the data, must not
# occupy a normal one.
defmodule SessionServerStore.SchedulerTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.{Dispatch, Native, Store}

  @options {:keep, :keep, :keep, 0, nil, false}
  @alice {:keep, :keep, "alice", 0, nil, false}

  setup do
    temporary = TemporaryStore.new("lmdb")
    on_exit(fn -> TemporaryStore.remove(temporary) end)
    {:ok, temporary: temporary}
  end

  defp open(url) do
    {:ok, handle} = Native.open(url)
    handle
  end

  # The native functions that run on a dirty scheduler, which the VM numbers 0, while another
  # process calls this function.
  defp dirty(function) do
    test = self()

    worker =
      spawn_link(fn ->
        receive do: (:go -> function.())
        send(test, {:done, self()})
      end)

    1 = :erlang.trace(worker, true, [:running, :scheduler_id])
    send(worker, :go)
    assert_receive {:done, ^worker}, 50_000
    delivered = :erlang.trace_delivered(worker)
    assert_receive {:trace_delivered, ^worker, ^delivered}, 50_000
    worker |> dirty_calls() |> Enum.dedup()
  end

  defp dirty_calls(worker) do
    receive do
      {:trace, ^worker, :in, {Native, name, _}, 0} -> [name | dirty_calls(worker)]
      {:trace, ^worker, _, _, _} -> dirty_calls(worker)
    after
      0 -> []
    end
  end

  describe "small payload" do
    test "blocks by engine", %{temporary: temporary} do
      power = TemporaryStore.new("lmdb-power")
      on_exit(fn -> TemporaryStore.remove(power) end)

      for {url, reads_block, writes_block} <- [
            {"memory:", false, false},
            {"memory:?seal=on", false, false},
            {TemporaryStore.url(temporary), false, true},
            {TemporaryStore.url(power), true, true}
          ] do
        handle = open(url)
        {:ok, {sid, _}} = Native.create_dirty(handle, "x", @options)
        {:ok, ref} = Native.reference_dirty(handle, sid)

        for {blocks, call} <- [
              {reads_block, fn -> Native.get(handle, sid, false) end},
              {reads_block, fn -> Native.get(handle, sid, true) end},
              {reads_block, fn -> Native.touch(handle, sid) end},
              {reads_block, fn -> Native.reference(handle, sid) end},
              {reads_block, fn -> Native.stats(handle) end},
              {writes_block, fn -> Native.create(handle, "x", @options) end},
              {writes_block, fn -> Native.create(handle, "x", @alice) end},
              {writes_block, fn -> Native.put(handle, sid, "x", @options) end},
              {writes_block, fn -> Native.put_if(handle, sid, 1, "x", @options) end},
              {reads_block, fn -> Native.touch_ref(handle, ref, false) end},
              {writes_block, fn -> Native.delete_ref(handle, ref, nil) end},
              {writes_block, fn -> Native.delete(handle, sid) end}
            ],
            do: assert(call.() == :would_block == blocks)

        :ok = Native.close(handle)
      end
    end

    test "always blocks on redis" do
      # No server listens there, and none is needed.
      handle = open("redis://127.0.0.1:1")
      sid = String.duplicate("x", 128)

      for call <- [
            fn -> Native.get(handle, sid, false) end,
            fn -> Native.touch(handle, sid) end,
            fn -> Native.stats(handle) end,
            fn -> Native.create(handle, "x", @options) end,
            fn -> Native.delete(handle, sid) end
          ],
          do: assert(call.() == :would_block)

      assert {:error, {:unavailable, _, _}} = Native.get_dirty(handle, sid, false)
      :ok = Native.close(handle)
    end
  end

  describe "large payload" do
    test "is read and written on a dirty scheduler once", %{temporary: temporary} do
      [small, large] = for size <- [128 * 1024, 128 * 1024 + 1], do: :binary.copy("x", size)

      for url <- ["memory:", "memory:?seal=on", TemporaryStore.url(temporary)] do
        handle = open(url)
        {:ok, {sid, _}} = Dispatch.create(handle, small, @options)
        assert dirty(fn -> {:ok, {^small, _, true}} = Dispatch.get(handle, sid, false) end) == []
        {:ok, meta} = Dispatch.put(handle, sid, large, @options)
        assert elem(meta, 0) == 2
        {:ok, stats} = Native.stats(handle)
        assert dirty(fn -> {:ok, {^large, _, true}} = Dispatch.get(handle, sid, false) end) == [:get_dirty]
        {:ok, after_get} = Native.stats(handle)
        assert after_get[:hits] == stats[:hits] + 1

        for {name, arguments} <- [
              create: [handle, large, @options],
              put: [handle, sid, large, @options],
              put_if: [handle, sid, 3, large, @options]
            ],
            do: assert(dirty(fn -> {:ok, _} = apply(Dispatch, name, arguments) end) == [:"#{name}_dirty"])

        :ok = Native.close(handle)
      end
    end

    test "is kept by renew on a dirty scheduler" do
      for url <- ["memory:?max_payload=16MiB", "memory:?max_payload=16MiB&seal=on"] do
        {:ok, store} = Store.open(url, raw: true)
        {:ok, sid, _} = Store.create(store, :binary.copy("x", 16 * 1024 * 1024))
        assert dirty(fn -> {:ok, _, _} = Store.renew(store, sid) end) == [:renew]
      end
    end

    test "is replaced and ended on a dirty scheduler" do
      {:ok, store} = Store.open("memory:?max_payload=16MiB", raw: true)
      large = :binary.copy("x", 16 * 1024 * 1024)
      [one, two, three, four] = for _ <- 1..4, do: store |> Store.create!(large) |> elem(0)
      {:ok, ref} = Store.ref(store, four)
      assert dirty(fn -> {:ok, _} = Store.put(store, one, "x") end) == [:put_dirty]
      assert dirty(fn -> {:ok, _} = Store.put_if(store, two, 1, "x") end) == [:put_if_dirty]
      assert dirty(fn -> :ok = Store.delete(store, three) end) == [:delete_dirty]
      assert dirty(fn -> :ok = Store.delete_ref(store, ref) end) == [:delete_ref_dirty]
      assert dirty(fn -> {:ok, _} = Store.touch(store, one) end) == []
    end
  end

  test "long principal is hashed on a dirty scheduler" do
    handle = open("memory:")
    options = {:keep, :keep, :binary.copy("p", 128 * 1024), 0, nil, false}
    assert dirty(fn -> {:ok, _} = Dispatch.create(handle, "x", options) end) == [:create_dirty]
  end

  test "many sessions of a principal are compared on a dirty scheduler" do
    for {limit, called} <- [{"1000", []}, {"1001", [:create_dirty]}, {"infinity", []}] do
      handle = open("memory:?max_per_principal=#{limit}")
      assert dirty(fn -> {:ok, _} = Dispatch.create(handle, "x", @alice) end) == called
      assert dirty(fn -> {:ok, _} = Dispatch.create(handle, "x", @options) end) == []
    end
  end

  test "whole store calls run on dirty schedulers" do
    {:ok, store} = Store.open("memory:?clock=manual")
    assert dirty(fn -> {:ok, []} = Store.list(store, "alice") end) == [:list]
    assert dirty(fn -> {:ok, 0} = Store.revoke(store, "alice") end) == [:revoke]
    assert dirty(fn -> {:ok, 0} = Store.revoke_all(store) end) == [:revoke_all]
    assert dirty(fn -> {:ok, 0} = Store.sweep(store) end) == [:sweep]
    assert dirty(fn -> :ok = Store.advance_clock(store, 1) end) == [:advance_clock]
    assert dirty(fn -> :ok = Store.close(store) end) == [:close]
    assert dirty(fn -> {:ok, _} = Store.open("memory:") end) == [:open]
  end

  # The time that a thread of this VM with this name has spent on a processor.
  defp thread_cpu_ns(name) do
    for directory <- Path.wildcard("/proc/self/task/*"),
        {:ok, ^name} <- [with({:ok, comm} <- File.read(Path.join(directory, "comm")), do: {:ok, String.trim(comm)})],
        {:ok, schedstat} <- [File.read(Path.join(directory, "schedstat"))],
        reduce: 0,
        do: (sum -> sum + (schedstat |> String.split() |> hd() |> String.to_integer()))
  end

  if File.exists?("/proc/self/task") do
    test "garbage collected store closes on another thread" do
      before_ns = thread_cpu_ns("sss-reclaim")

      # Few sessions, but wiping them takes many milliseconds.
      spawn_link(fn ->
        {:ok, store} = Store.open("memory:?max_payload=64MiB", raw: true)
        for _ <- 1..2, do: {:ok, _, _} = Store.create(store, :binary.copy("x", 32 * 1024 * 1024))
      end)

      Eventually.eventually(fn -> thread_cpu_ns("sss-reclaim") - before_ns > 2_000_000 end)
    end
  end
end
