# Wrong arguments to every NIF: an exception or an error, never a crash of the VM and never a panic.
defmodule SessionServerStore.NativeTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.Native

  @options {0, 0, :keep, 0}

  setup do
    {:ok, handle} = Native.open("memory:?clock=manual")
    {:ok, {sid, _}} = Native.create(handle, "payload", @options)

    {:ok,
     good: [
       open: ["memory:"],
       # The tests that run beside this one use the application's store: it stays the same.
       open_application: [Application.fetch_env!(:session_server_store, :url)],
       create: [handle, "p", @options],
       create_waiting: [handle, "p", @options],
       get: [handle, sid, true],
       get_waiting: [handle, sid, true],
       put: [handle, sid, "p", @options],
       put_waiting: [handle, sid, "p", @options],
       put_if: [handle, sid, 1, "p", @options],
       put_if_waiting: [handle, sid, 1, "p", @options],
       touch: [handle, sid],
       touch_waiting: [handle, sid],
       renew: [handle, sid, nil, @options],
       renew_waiting: [handle, sid, nil, @options],
       delete: [handle, sid],
       delete_waiting: [handle, sid],
       sweep: [handle, 10],
       list: [handle, "alice"],
       revoke: [handle, "alice", nil],
       reference: [handle, sid],
       reference_waiting: [handle, sid],
       delete_ref: [handle, :binary.copy(<<1>>, 32)],
       delete_ref_waiting: [handle, :binary.copy(<<1>>, 32)],
       stats: [handle],
       stats_waiting: [handle],
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
    'charlist',
    %{},
    {},
    {0, 0, :keep},
    {0, 0, :junk, 0},
    {0, 0, "", 0},
    {0, 2 ** 63, :keep, 0},
    {1.5, 0, :keep, 0},
    {-(2 ** 63), 2 ** 63 - 1, :clear, 2 ** 63 - 1}
  ]

  test "every function of the library is in the table", %{good: good} do
    functions = for {name, arity} <- Native.__info__(:functions), name not in [:load, :reasons], do: {name, arity}
    assert Enum.sort(functions) == Enum.sort(for {name, arguments} <- good, do: {name, length(arguments)})
  end

  test "junk in any place is refused or answered", %{good: good} do
    junk = @junk ++ [make_ref(), self(), fn -> 1 end, :binary.copy("x", 3_000_000)]

    for {name, arguments} <- good, name != :close, place <- 0..(length(arguments) - 1)//1, wrong <- junk do
      answer =
        try do
          apply(Native, name, List.replace_at(arguments, place, wrong))
        rescue
          ArgumentError -> :refused
        end

      # A payload of 3 MB is for the other one of the pair.
      assert answer in [:ok, :refused, :wait] or (is_tuple(answer) and elem(answer, 0) in [:ok, :error]),
             "#{name} with #{inspect(wrong, limit: 3)} in place #{place} gave #{inspect(answer, limit: 3)}"
    end
  end

  test "what has the wrong type is an ArgumentError", %{good: good} do
    for {name, arguments} <- good,
        place <- 0..(length(arguments) - 1)//1,
        wrong <- [:junk, 1.5, %{}, make_ref(), <<1::1>>] do
      peek? = name in [:get, :get_waiting] and place == 2

      assert_raise ArgumentError, "argument error", fn ->
        apply(Native, name, List.replace_at(arguments, place, wrong))
      end

      refute peek? and is_boolean(wrong)
    end

    assert_raise ArgumentError, fn -> Native.delete_ref(good[:stats] |> hd(), "not 32 bytes") end
  end

  test "every function on a closed store is an error", %{good: good} do
    [handle] = good[:close]
    assert Native.close(handle) == :ok

    for {name, arguments} <- good, name not in [:open, :open_application] do
      assert {:error, {:handle, -2, "the store is closed"}} = apply(Native, name, arguments)
    end
  end

  test "closing while others use the store is safe" do
    for _ <- 1..20 do
      {:ok, handle} = Native.open("memory:")
      {:ok, {sid, _}} = Native.create(handle, "payload", @options)

      users =
        for _ <- 1..8 do
          Task.async(fn ->
            Enum.find_value(Stream.cycle([0]), fn _ ->
              with {:ok, {"payload", _, true}} <- Native.get(handle, sid, false),
                   {:ok, 0} <- Native.sweep(handle, 10),
                   do: nil
            end)
          end)
        end

      Process.sleep(2)
      assert Native.close(handle) == :ok
      for answer <- Task.await_many(users), do: assert({:error, {:handle, -2, _}} = answer)
    end
  end

  test "a store works in every process that holds its term, also after the one that opened it is dead" do
    test = self()
    spawn(fn -> send(test, Native.open("memory:")) end)
    assert_receive {:ok, handle}
    :erlang.garbage_collect()
    {:ok, {sid, _}} = Native.create(handle, "payload", @options)
    assert {:ok, {"payload", _, true}} = Native.get(handle, sid, false)
  end

  test "payloads that were read stay valid after the session is gone" do
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
