# Wrong arguments to every NIF: an exception or an error, never a crash of the VM or a panic.
defmodule SessionServerStore.NativeTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.Native

  @options {:keep, :keep, :keep, 0, nil, false}

  setup do
    {:ok, handle} = Native.open("memory:?clock=manual")
    {:ok, {sid, _}} = Native.create(handle, "payload", @options)

    {:ok,
     good: [
       open: ["memory:"],
       open_named: [__MODULE__, "memory:", self()],
       stopped: [__MODULE__, self()],
       close_stopped: [__MODULE__, self()],
       create: [handle, "p", @options],
       create_dirty: [handle, "p", @options],
       get: [handle, sid, true],
       get_dirty: [handle, sid, true],
       put: [handle, sid, "p", @options],
       put_dirty: [handle, sid, "p", @options],
       put_if: [handle, sid, 1, "p", @options],
       put_if_dirty: [handle, sid, 1, "p", @options],
       touch: [handle, sid],
       touch_dirty: [handle, sid],
       renew: [handle, sid, nil, @options],
       delete: [handle, sid],
       delete_dirty: [handle, sid],
       sweep: [handle, 10],
       list: [handle, "alice"],
       revoke: [handle, "alice", nil],
       revoke_all: [handle],
       reference: [handle, sid],
       reference_dirty: [handle, sid],
       touch_ref: [handle, :binary.copy(<<1>>, 32), true],
       touch_ref_dirty: [handle, :binary.copy(<<1>>, 32), true],
       delete_ref: [handle, :binary.copy(<<1>>, 32), "alice"],
       delete_ref_dirty: [handle, :binary.copy(<<1>>, 32), nil],
       stats: [handle],
       stats_dirty: [handle],
       advance_clock: [handle, 1],
       close: [handle]
     ]}
  end

  @junk [
    :junk,
    nil,
    true,
    -1,
    0,
    2 ** 64,
    -(2 ** 63),
    2 ** 63 - 1,
    2 ** 200,
    1.5,
    "",
    "short",
    <<0>>,
    <<1::1>>,
    [],
    ["iolist"],
    ~c"charlist",
    %{},
    {},
    {0, 0, :keep},
    {0, 0, :keep, 0},
    {0, 0, :junk, 0, nil, false},
    {0, 0, "", 0, nil, false},
    {:junk, 0, :keep, 0, nil, false},
    {-1, 0, :keep, 0, nil, false},
    {1.5, 0, :keep, 0, nil, false},
    {0, 2 ** 64, :keep, 0, nil, false},
    {0, 0, :keep, 0, :junk, false},
    {0, 0, :keep, 0, nil, :junk},
    {0, 0, "alice", 0, String.duplicate("x", 256), true},
    {0, 2 ** 64 - 1, :clear, 2 ** 64 - 1, "", true},
    {:infinity, :inherit, :clear, 2 ** 63, "label", false}
  ]

  test "table covers every function", %{good: good} do
    functions = for {name, arity} <- Native.__info__(:functions), name not in [:load, :reasons], do: {name, arity}
    assert Enum.sort(functions) == Enum.sort(for {name, arguments} <- good, do: {name, length(arguments)})
  end

  test "junk in any position never crashes", %{good: good} do
    junk = @junk ++ [make_ref(), self(), fn -> 1 end, :binary.copy("x", 3_000_000)]

    for {name, arguments} <- good, name != :close, position <- 0..(length(arguments) - 1)//1, wrong <- junk do
      answer =
        try do
          apply(Native, name, List.replace_at(arguments, position, wrong))
        rescue
          ArgumentError -> :refused
        end

      # A payload of 3 MB is not for a normal scheduler.
      assert answer in [:ok, :refused, :would_block] or (is_tuple(answer) and elem(answer, 0) in [:ok, :error]),
             "#{name} with #{inspect(wrong, limit: 3)} in position #{position} gave #{inspect(answer, limit: 3)}"
    end
  end

  test "wrong type is an ArgumentError", %{good: good} do
    for {name, arguments} <- good,
        position <- 0..(length(arguments) - 1)//1,
        # An atom may be the name of a store.
        wrong <- [1.5, %{}, make_ref(), <<1::1>>] do
      assert_raise ArgumentError, "argument error", fn ->
        apply(Native, name, List.replace_at(arguments, position, wrong))
      end
    end

    assert_raise ArgumentError, fn -> Native.delete_ref(hd(good[:stats]), "not 32 bytes", nil) end
  end

  test "closed store fails every function", %{good: good} do
    [handle] = good[:close]
    assert Native.close(handle) == :ok

    for {name, arguments} <- good, name not in [:open, :open_named, :stopped, :close_stopped] do
      assert {:error, {:handle, -2, "the store is closed"}} = apply(Native, name, arguments)

      assert {:error, {:handle, -2, "the store MyApp.Sessions is not running"}} =
               apply(Native, name, List.replace_at(arguments, 0, MyApp.Sessions))
    end
  end

  test "close during use is safe" do
    for _ <- 1..20 do
      {:ok, handle} = Native.open("memory:")
      {:ok, {sid, _}} = Native.create(handle, "payload", @options)

      test = self()

      users =
        for _ <- 1..8 do
          Task.async(fn ->
            send(test, :started)

            Enum.find_value(Stream.cycle([0]), fn _ ->
              with {:ok, {"payload", _, true}} <- Native.get(handle, sid, false),
                   {:ok, 0} <- Native.sweep(handle, 10),
                   do: nil
            end)
          end)
        end

      for _ <- users, do: assert_receive(:started, 30_000)
      assert Native.close(handle) == :ok
      for answer <- Task.await_many(users, 30_000), do: assert({:error, {:handle, -2, _}} = answer)
    end
  end

  test "store outlives the process that opened it" do
    test = self()
    spawn(fn -> send(test, Native.open("memory:")) end)
    assert_receive {:ok, handle}, 30_000
    :erlang.garbage_collect()
    {:ok, {sid, _}} = Native.create(handle, "payload", @options)
    assert {:ok, {"payload", _, true}} = Native.get(handle, sid, false)
  end

  test "read payload outlives its session" do
    {:ok, handle} = Native.open("memory:")
    payload = :crypto.strong_rand_bytes(100_000)
    {:ok, {sid, _}} = Native.create(handle, payload, @options)
    {:ok, {read, _, true}} = Native.get(handle, sid, false)
    :ok = Native.delete(handle, sid)
    :ok = Native.close(handle)
    :erlang.garbage_collect()
    assert read == payload
  end
end
