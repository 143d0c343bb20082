# Two requests that write one session at the same time: the callbacks as Plug calls them, each
# request in its own process.
defmodule SessionServerStore.ConflictTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.{Error, Store}

  defp init(opts \\ []), do: SessionServerStore.init(opts)

  # A request that reads the session, and writes it when told.
  defp request(sid, config, change) do
    test = self()

    task =
      Task.async(fn ->
        {^sid, data} = SessionServerStore.get(nil, sid, config)
        send(test, :read)
        receive do: (:write -> SessionServerStore.put(nil, sid, change.(data), config))
      end)

    assert_receive :read, 30_000
    task
  end

  defp write(task) do
    send(task.pid, :write)
    Task.await(task, 30_000)
  end

  # Two requests read; the first writes; then the second does.
  defp overlap(data, config, first, second) do
    sid = SessionServerStore.put(nil, nil, data, config)
    tasks = for change <- [first, second], do: request(sid, config, change)
    for task <- tasks, do: assert(write(task) == sid)
    sid
  end

  test "changes of different keys are merged" do
    before = %{"old" => 1, "gone" => 2, "changed" => 3}
    first = &(&1 |> Map.put("a", 1) |> Map.delete("gone"))
    second = &(&1 |> Map.put("b", 2) |> Map.put("changed", 4))
    sid = overlap(before, init(), first, second)
    assert {:ok, %{data: %{"old" => 1, "a" => 1, "b" => 2, "changed" => 4} = data, version: 3}} = Store.get(sid)
    refute is_map_key(data, "gone")
  end

  test "of one key the last write stays" do
    sid = overlap(%{"n" => 0}, init(), &%{&1 | "n" => 1}, &%{&1 | "n" => 2})
    assert {:ok, %{data: %{"n" => 2}}} = Store.get(sid)
    sid = overlap(%{"n" => 0, "m" => 0}, init(), &%{&1 | "n" => 1}, &Map.delete(&1, "n"))
    assert {:ok, %{data: data}} = Store.get(sid)
    assert data == %{"m" => 0}
  end

  test "unchanged keys do not undo another request" do
    sid = overlap(%{"n" => 0}, init(), &Map.put(%{&1 | "n" => 1}, "new", 1), & &1)
    assert {:ok, %{data: %{"n" => 1, "new" => 1}}} = Store.get(sid)
  end

  test "1 and 1.0 are different values" do
    sid = overlap(%{"n" => 1}, init(), &Map.put(&1, "a", 1), &%{&1 | "n" => 1.0})
    assert {:ok, %{data: %{"n" => n, "a" => 1}}} = Store.get(sid)
    assert is_float(n)
  end

  test "twenty requests keep twenty keys" do
    config = init()
    sid = SessionServerStore.put(nil, nil, %{"start" => true}, config)
    tasks = for n <- 1..20, do: request(sid, config, &Map.put(&1, "key #{n}", n))
    for task <- tasks, do: send(task.pid, :write)
    for task <- tasks, do: assert(Task.await(task, 60_000) == sid)
    {:ok, %{data: data}} = Store.get(sid)
    assert data == Map.new(1..20, &{"key #{&1}", &1}) |> Map.put("start", true)
  end

  test "session emptied by two requests ends" do
    sid = overlap(%{"a" => 1, "b" => 2}, init(), &Map.delete(&1, "a"), &Map.delete(&1, "b"))
    assert Store.get(sid) == {:error, :not_found}
  end

  test "cleared session ends whatever the other request wrote" do
    sid = overlap(%{"a" => 1}, init(), &Map.put(&1, "b", 1), fn _ -> %{} end)
    assert Store.get(sid) == {:error, :not_found}
  end

  test "merge keeps and changes the user" do
    config = init(principal_key: "user")
    name = "conflict-#{System.unique_integer()}"
    sid = overlap(%{"a" => 1}, config, &Map.put(&1, "user", name), &Map.put(&1, "b", 1))
    assert {:ok, [_]} = Store.list(name)
    assert {:ok, %{data: %{"user" => ^name, "b" => 1}}} = Store.get(sid)

    {:ok, 1} = Store.revoke(name)
    sid = overlap(%{"user" => name, "a" => 1}, config, &Map.put(&1, "b", 1), &Map.delete(&1, "user"))
    assert Store.list(name) == {:ok, []}
    assert {:ok, %{data: %{"a" => 1, "b" => 1}}} = Store.get(sid)
  end

  test "session ended meanwhile stays ended" do
    config = init()
    sid = SessionServerStore.put(nil, nil, %{"a" => 1}, config)
    task = request(sid, config, &Map.put(&1, "b", 1))
    :ok = Store.delete(sid)
    assert write(task) == sid
    assert Store.get(sid) == {:error, :not_found}
  end

  test "last replaces the session" do
    sid = overlap(%{"n" => 0}, init(conflict: :last), &Map.put(&1, "a", 1), &Map.put(&1, "b", 2))
    assert {:ok, %{data: data}} = Store.get(sid)
    assert data == %{"n" => 0, "b" => 2}
  end

  test "error raises and writes nothing" do
    config = init(conflict: :error)
    sid = SessionServerStore.put(nil, nil, %{"n" => 0}, config)
    {^sid, data} = SessionServerStore.get(nil, sid, config)
    {:ok, _} = Store.put(sid, %{"n" => 1})
    error = assert_raise Error, fn -> SessionServerStore.put(nil, sid, Map.put(data, "b", 2), config) end
    assert {error.reason, error.plug_status} == {:conflict, 409}
    assert {:ok, %{data: data}} = Store.get(sid)
    assert data == %{"n" => 1}
  end

  test "error raises if the session has ended" do
    config = init(conflict: :error)
    sid = SessionServerStore.put(nil, nil, %{"n" => 0}, config)
    {^sid, data} = SessionServerStore.get(nil, sid, config)
    :ok = Store.delete(sid)
    error = assert_raise Error, ~r/has ended/, fn -> SessionServerStore.put(nil, sid, Map.put(data, "b", 2), config) end
    assert {error.reason, error.plug_status} == {:conflict, 409}
  end

  test "put without a read replaces the session" do
    config = init()
    sid = SessionServerStore.put(nil, nil, %{"n" => 0}, config)
    {:ok, _} = Store.put(sid, %{"other" => 1})
    assert SessionServerStore.put(nil, sid, %{"n" => 2}, config) == sid
    assert {:ok, %{data: data}} = Store.get(sid)
    assert data == %{"n" => 2}
  end

  test "wrong option is named" do
    for wrong <- [nil, :overwrite, "merge"] do
      assert_raise ArgumentError, ~r/:conflict must be :merge or :last or :error/, fn -> init(conflict: wrong) end
    end
  end
end
