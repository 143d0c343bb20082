# The typed API: its results, its options, and what it refuses. The conformance suite tests the
# rules of the store.
defmodule SessionServerStore.StoreTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.{Error, Session, SessionInfo, Store}

  doctest SessionServerStore.Store
  doctest SessionServerStore.Error

  setup do
    temporary = TemporaryStore.new()
    {:ok, store} = Store.open(TemporaryStore.url(temporary, ["clock=manual"]))

    on_exit(fn ->
      Store.close(store)
      TemporaryStore.remove(temporary)
    end)

    {:ok, store: store}
  end

  test "session from create to delete", %{store: store} do
    {:ok, sid, %Session{version: 1, data: "visitor"} = created} = Store.create(store, "visitor")
    assert {:ok, %Session{data: "visitor", version: 1}} = Store.get(store, sid)
    assert {:ok, %Session{data: %{n: 1}, version: 2}} = Store.put(store, sid, %{n: 1})
    assert {:ok, %Session{data: %{n: 2}, version: 3}} = Store.put_if(store, sid, 2, %{n: 2})
    assert {:error, %Error{reason: :conflict, code: -4}} = Store.put_if(store, sid, 2, %{n: 3})

    {:ok, login, %Session{data: nil, version: 3} = renewed} = Store.renew(store, sid, principal: "alice")
    assert renewed.created_ms == created.created_ms
    assert Store.get(store, sid) == {:error, :not_found}
    assert {:ok, %Session{data: %{n: 2}}} = Store.get(store, login)

    assert Store.delete(store, login) == :ok
    assert Store.delete(store, login) == {:error, :not_found}
    assert Store.put(store, login, %{n: 4}) == {:error, :not_found}
  end

  test "every function uses the default store" do
    {:ok, sid, _} = Store.create(%{a: 1})
    {:ok, sid2, _} = Store.create(%{a: 1}, principal: "by-default")
    assert {:ok, %{data: %{a: 1}}} = Store.get(sid)
    assert {:ok, _} = Store.get(sid, peek: true)
    assert {:ok, _} = Store.peek(sid)
    assert {:ok, _} = Store.put(sid, %{a: 2})
    assert {:ok, _} = Store.put(sid, %{a: 3}, timeout: 100)
    assert {:ok, _} = Store.put_if(sid, 3, %{a: 4})
    assert {:ok, %{version: 5}} = Store.put_if(sid, 4, %{a: 5}, timeout: 100)
    assert {:ok, %{data: nil}} = Store.touch(sid)
    assert {:ok, sid, _} = Store.renew(sid)
    assert {:ok, sid, %{data: %{a: 6}}} = Store.renew(sid, data: %{a: 6}, principal: "by-default")
    assert {:ok, ref} = Store.ref(sid)
    assert {:ok, [_, _]} = Store.list("by-default")
    assert {:ok, %{data: nil}} = Store.touch_ref(ref)
    assert {:ok, %{version: 6}} = Store.touch_ref(ref, peek: true)
    assert Store.delete_ref(ref, principal: "someone-else") == {:error, :not_found}
    assert Store.delete_ref(ref) == :ok
    assert Store.revoke("by-default", except: sid2) == {:ok, 0}
    assert Store.revoke("by-default") == {:ok, 1}
    assert {:ok, n} = Store.sweep()
    assert is_integer(n)
    assert Store.sweep(0) == {:ok, 0}
    assert {:ok, %{sessions: _, bytes: _, errors: 0}} = Store.stats()
    assert Store.delete(sid) == {:error, :not_found}
  end

  test "list shows no ids", %{store: store} do
    {:ok, one, _} = Store.create(store, "1", principal: "alice")
    :ok = Store.advance_clock(store, 1)
    {:ok, two, _} = Store.create(store, "22", principal: "alice")
    {:ok, _, _} = Store.create(store, "3", principal: "bob")

    {:ok, [first, second]} = Store.list(store, "alice")
    assert %SessionInfo{ref: ref, version: 1} = first
    assert Store.ref(store, one) == {:ok, ref}
    assert byte_size(ref) == 32
    assert second.created_ms == first.created_ms + 1000
    refute inspect([first, second]) =~ one
    refute inspect([first, second]) =~ two
    assert Store.delete_ref(store, ref) == :ok
    assert Store.list(store, "unknown") == {:ok, []}
  end

  test "principal nil clears in put and renew", %{store: store} do
    {:ok, sid, _} = Store.create(store, 1, principal: nil)
    {:ok, _} = Store.put(store, sid, 2, principal: "carol")
    {:ok, _} = Store.put(store, sid, 3)
    assert {:ok, [_]} = Store.list(store, "carol")
    {:ok, _} = Store.put(store, sid, 4, principal: nil)
    assert {:ok, []} = Store.list(store, "carol")
    {:ok, sid, _} = Store.renew(store, sid, principal: "carol")
    assert {:ok, [_]} = Store.list(store, "carol")
    {:ok, _, _} = Store.renew(store, sid, principal: nil)
    assert {:ok, []} = Store.list(store, "carol")
    assert {:error, %Error{reason: :invalid}} = Store.create(store, 1, principal: "")
  end

  test "timeouts take seconds, units and infinity", %{store: store} do
    for {timeout, ms} <- [
          {7, 7_000},
          {{1500, :millisecond}, 1_500},
          {{7, :second}, 7_000},
          {{5, :minute}, 300_000},
          {{12, :hour}, 43_200_000},
          {{2, :day}, 172_800_000},
          {{1, :week}, 604_800_000},
          {{43_200_000, :second}, 43_200_000_000}
        ] do
      {:ok, _, session} = Store.create(store, 1, timeout: timeout, idle_timeout: :infinity)
      assert session.expires_ms - session.created_ms == ms
      {:ok, _, session} = Store.create(store, 1, timeout: :infinity, idle_timeout: timeout)
      assert session.expires_ms - session.created_ms == ms
    end

    {:ok, _, session} = Store.create(store, 1, timeout: {10 ** 40, :day}, idle_timeout: :infinity)
    assert session.expires_ms == :infinity
    {:ok, sid, _} = Store.create(store, 1, timeout: 0)
    assert Store.get(store, sid) == {:error, :not_found}
  end

  test "inherited timeout is the store's", %{store: store} do
    {:ok, sid, _} = Store.create(store, 1, timeout: 7, idle_timeout: 5)
    {:ok, session} = Store.put(store, sid, 2, idle_timeout: :inherit)
    assert session.expires_ms - session.created_ms == 7_000
    {:ok, session} = Store.put(store, sid, 3, timeout: :inherit)
    assert session.expires_ms - session.last_seen_ms == 600_000
  end

  test "milliseconds as seconds are refused", %{store: store} do
    {:ok, sid, _} = Store.create(store, 1)

    for {value, spelling} <- [
          {:timer.hours(12), "{12, :hour}"},
          {:timer.hours(24 * 30), "{30, :day}"},
          {:timer.minutes(1234), "{1234, :minute}"},
          {10 ** 9 + 1, "{1000000001, :millisecond}"}
        ],
        call <- [
          &Store.create(store, 1, timeout: &1),
          &Store.put(store, sid, 1, idle_timeout: &1),
          &Store.renew(store, sid, grace: &1)
        ] do
      error = assert_raise ArgumentError, fn -> call.(value) end
      assert error.message =~ spelling
      assert error.message =~ "{#{value}, :second}"
    end

    # An old id that stays readable for hours defeats the renewal.
    assert_raise ArgumentError, ~r/{10, :second}/, fn -> Store.renew(store, sid, grace: :timer.seconds(10)) end
    assert {:ok, _, _} = Store.renew(store, sid, grace: 3_600, timeout: 366 * 86_400)
  end

  test "integer principal is its digits", %{store: store} do
    {:ok, sid, _} = Store.create(store, 1, principal: 42)
    assert {:ok, [info]} = Store.list(store, 42)
    assert Store.list(store, "42") == {:ok, [info]}
    {:ok, _} = Store.put(store, sid, 2, principal: -7)
    assert {:ok, [_]} = Store.list(store, "-7")
    {:ok, sid, _} = Store.renew(store, sid, principal: 42)
    assert Store.revoke(store, 42, except: sid) == {:ok, 0}
    assert Store.revoke(store, 42) == {:ok, 1}

    # Forms without a store.
    principal = System.unique_integer([:positive]) + 10 ** 12
    {:ok, sid, _} = Store.create(1, principal: principal)
    assert {:ok, [_]} = Store.list(principal)
    assert Store.revoke(principal, except: sid) == {:ok, 0}
    assert Store.revoke(principal) == {:ok, 1}

    for wrong <- [nil, 1.5, :alice, {1}, ~c"alice", %{}] do
      assert_raise ArgumentError, ~r/principal/, fn -> Store.list(store, wrong) end
      assert_raise ArgumentError, ~r/principal/, fn -> Store.revoke(store, wrong) end
      if wrong, do: assert_raise(ArgumentError, ~r/principal/, fn -> Store.create(store, 1, principal: wrong) end)
    end
  end

  test "wrong arguments are named", %{store: store} do
    {:ok, sid, _} = Store.create(store, "data")

    for wrong <- [nil, 42, :sid, ~c"sid", {sid}, <<1::1>>],
        call <- [
          &Store.get/1,
          &Store.get(store, &1),
          &Store.get(&1, peek: true),
          &Store.peek/1,
          &Store.put(&1, "data"),
          &Store.put(store, &1, "data"),
          &Store.put_if(store, &1, 1, "data"),
          &Store.update(store, &1, fn data -> data end),
          &Store.touch/1,
          &Store.renew/1,
          &Store.renew(store, &1, data: "data"),
          &Store.delete/1,
          &Store.ref/1
        ] do
      error = assert_raise ArgumentError, fn -> call.(wrong) end
      assert error.message =~ "session id"
      refute error.message =~ sid
      if wrong == nil, do: assert(error.message =~ "got: nil")
    end

    for {name, call} <- [
          {"reference", fn -> Store.delete_ref(store, "short") end},
          {"reference", fn -> Store.delete_ref(nil) end},
          {"reference", fn -> Store.touch_ref(store, sid) end},
          {"principal", fn -> Store.delete_ref(store, :binary.copy("r", 32), principal: :alice) end},
          {"principal", fn -> Store.delete_ref(store, :binary.copy("r", 32), principle: "alice") end},
          {"label", fn -> Store.create(store, "data", principal: "alice", label: :phone) end},
          {"reauthenticated", fn -> Store.renew(store, sid, reauthenticated: 1) end},
          {"version", fn -> Store.put_if(store, sid, -1, "data") end},
          {"version", fn -> Store.put_if(store, sid, "1", "data") end},
          {"version", fn -> Store.put_if(store, sid, 2 ** 64, "data") end},
          {"fun", fn -> Store.update(store, sid, "data") end},
          {"fun", fn -> Store.update(store, sid, fn -> 1 end) end},
          {"max", fn -> Store.sweep(store, -1) end},
          {"max", fn -> Store.sweep(nil) end},
          {"URL", fn -> Store.open(nil) end},
          {"except", fn -> Store.revoke(store, "alice", except: 42) end},
          {"peek", fn -> Store.get(store, sid, peek: nil) end},
          {"clock", fn -> Store.advance_clock(store, "1s") end},
          {"store", fn -> Store.peek(nil, sid) end},
          {"store", fn -> Store.touch(%{}, sid) end},
          {"store", fn -> Store.delete(true, sid) end},
          {"store", fn -> Store.list(nil, "alice") end},
          {"store", fn -> Store.stats(nil) end},
          {"store", fn -> Store.close(nil) end},
          {"store", fn -> Store.get(nil, sid, peek: true) end},
          {"store", fn -> Store.put(nil, sid, "data", timeout: 1) end},
          {"store", fn -> Store.sweep(nil, 1) end},
          {"store", fn -> Store.advance_clock(nil, 1) end}
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ name
      refute error.message =~ sid
    end
  end

  test "empty data is refused", %{store: store} do
    {:ok, sid, _} = Store.create(store, "data")

    for empty <- [nil, %{}, [], {}, ""] do
      assert {:error, %Error{reason: :invalid, message: "an empty session is not stored"}} = Store.create(store, empty)
      assert {:error, %Error{reason: :invalid}} = Store.put(store, sid, empty)
      assert {:error, %Error{reason: :invalid}} = Store.put_if(store, sid, 1, empty)
      assert {:error, %Error{reason: :invalid}} = Store.renew(store, sid, data: empty)
    end

    assert {:ok, %{data: "data", version: 1}} = Store.get(store, sid)
    assert {:ok, %{sessions: 1}} = Store.stats(store)
  end

  test "raw store keeps binaries" do
    name = "memory:raw-#{System.unique_integer([:positive])}"
    {:ok, raw} = Store.open(name, raw: true)
    {:ok, terms} = Store.open(name)

    {:ok, sid, _} = Store.create(raw, <<0, 255, 0>>)
    assert {:ok, %{data: <<0, 255, 0>>}} = Store.get(raw, sid)
    assert {:error, %Error{reason: :corrupt, code: -15}} = Store.get(terms, sid)
    assert {:ok, %{data: ""}} = Store.put(raw, sid, "")
    assert {:ok, %{data: ""}} = Store.get(raw, sid)
    {:ok, _} = Store.put(terms, sid, {:a, 1})
    {:ok, %{data: payload}} = Store.get(raw, sid)
    assert :erlang.binary_to_term(payload) == {:a, 1}
    assert_raise ArgumentError, fn -> Store.create(raw, %{no: :binary}) end
  end

  test "closed store fails and loses its sessions" do
    name = "memory:closed-#{System.unique_integer([:positive])}"
    {:ok, store} = Store.open(name)
    {:ok, sid, _} = Store.create(store, "data")
    assert Store.close(store) == :ok
    assert {:error, %Error{reason: :handle, code: -2}} = Store.get(store, sid)
    assert {:error, %Error{reason: :handle}} = Store.close(store)
    {:ok, again} = Store.open(name)
    assert Store.get(again, sid) == {:error, :not_found}
    assert {:ok, %{sessions: 0}} = Store.stats(again)
  end

  test "named store stays while a handle is open" do
    name = "memory:shared-#{System.unique_integer([:positive])}"
    {:ok, one} = Store.open(name)
    {:ok, two} = Store.open(name)
    {:ok, sid, _} = Store.create(one, "data")
    :ok = Store.close(one)
    assert {:ok, %{data: "data"}} = Store.get(two, sid)
  end

  test "wrong options are named, data is not shown", %{store: store} do
    {:ok, sid, _} = Store.create(store, "data")

    for {name, call} <- [
          {"timout", fn -> Store.create(store, "secret", timout: 5) end},
          {"timeout", fn -> Store.create(store, "secret", timeout: -1) end},
          {"idle_timeout", fn -> Store.put(store, sid, "secret", idle_timeout: "5") end},
          {"principal", fn -> Store.put(store, sid, "secret", principal: :atom) end},
          {"data", fn -> Store.put(store, sid, "secret", data: "secret") end},
          {"grace", fn -> Store.renew(store, sid, grace: "5", data: "secret") end},
          {"peek", fn -> Store.get(store, sid, pek: true) end},
          {"keyword", fn -> Store.create(store, "secret", :secret) end},
          {"keyword", fn -> Store.renew(store, sid, %{data: "secret"}) end},
          {"keyword", fn -> Store.update(store, sid, fn data -> data end, :secret) end},
          {"unknown", fn -> Store.update(store, sid, fn data -> data end, timout: 5) end},
          {"unknown", fn -> Store.revoke(store, "alice", exept: sid) end},
          {"unknown", fn -> Store.open("memory:", row: true) end}
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ name
      refute error.message =~ "secret"
      refute error.message =~ sid
    end
  end

  test "inspect shows neither id nor data", %{store: store} do
    {:ok, sid, session} = Store.create(store, "hidden data", principal: "alice")
    {:ok, read} = Store.get(store, sid)
    {:error, conflict} = Store.put_if(store, sid, 9, "hidden data")

    for shown <- [session, read, conflict, store, Store.stats(store)], secret <- [sid, "hidden data", "alice"] do
      refute inspect(shown) =~ secret
    end
  end

  test "temporary errors are 503 in Plug" do
    temporary =
      for {reason, code, text} <- Error.reasons(), Error.new(reason, code, text).plug_status == 503, do: reason

    assert Enum.sort(temporary) == [:busy, :full, :nomem, :random, :timeout, :unavailable]
  end

  test "errors are exceptions with a message" do
    {:error, error} = Store.open("momory:")
    assert %Error{reason: :url, code: -9} = error
    assert Exception.message(error) =~ "momory"
    assert_raise Error, fn -> raise error end
  end

  describe "update" do
    test "applies the function to the current data", %{store: store} do
      {:ok, sid, _} = Store.create(store, %{n: 1})
      assert {:ok, %Session{data: %{n: 2}, version: 2}} = Store.update(store, sid, &%{&1 | n: &1.n + 1})
      assert {:ok, %Session{data: %{n: 3}}} = Store.update(store, sid, &%{&1 | n: &1.n + 1}, principal: "alice")
      assert {:ok, [_]} = Store.list(store, "alice")
      assert {:error, %Error{reason: :invalid}} = Store.update(store, sid, fn _ -> %{} end)
      assert {:ok, %{data: %{n: 3}}} = Store.get(store, sid)
    end

    test "missing session calls no function", %{store: store} do
      {:ok, sid, _} = Store.create(store, 1)
      :ok = Store.delete(store, sid)
      assert Store.update(store, sid, fn _ -> flunk("called") end) == {:error, :not_found}
    end

    test "repeats on a conflict", %{store: store} do
      {:ok, sid, _} = Store.create(store, [0])

      # The first two attempts are overtaken.
      update = fn data ->
        if length(data) < 3, do: {:ok, _} = Store.put(store, sid, [length(data) | data])
        [:mine | data]
      end

      assert {:ok, %Session{data: [:mine, 2, 1, 0]}} = Store.update(store, sid, update)
    end

    test "gives up after many conflicts", %{store: store} do
      {:ok, sid, _} = Store.create(store, 0)

      overtaken = fn n ->
        {:ok, _} = Store.put(store, sid, n + 1)
        :mine
      end

      assert {:error, %Error{reason: :conflict}} = Store.update(store, sid, overtaken)
      assert {:ok, %{data: 20}} = Store.get(store, sid)
    end

    test "exception leaves the session unchanged", %{store: store} do
      {:ok, sid, _} = Store.create(store, 1)
      assert_raise RuntimeError, fn -> Store.update(store, sid, fn _ -> raise "failed" end) end
      assert {:ok, %{data: 1, version: 1}} = Store.get(store, sid)
    end
  end

  describe "variant that raises" do
    test "returns the bare result" do
      store = Store.open!("memory:?clock=manual")
      {sid, %Session{data: 1}} = Store.create!(store, 1, principal: "alice")
      assert %Session{data: 1} = Store.get!(store, sid)
      assert %Session{data: 1} = Store.peek!(store, sid)
      assert %Session{data: 2} = Store.put!(store, sid, 2)
      assert %Session{data: 3} = Store.put_if!(store, sid, 2, 3)
      assert %Session{data: 4} = Store.update!(store, sid, &(&1 + 1))
      assert %Session{data: nil} = Store.touch!(store, sid)
      {sid, %Session{}} = Store.renew!(store, sid)
      ref = Store.ref!(store, sid)
      assert [%SessionInfo{ref: ^ref}] = Store.list!(store, "alice")
      assert Store.delete_ref!(store, ref) == :ok
      assert Store.revoke!(store, "alice") == 0
      assert Store.sweep!(store) == 0
      assert %{created: 1, renewed: 1} = Store.stats!(store)
      assert Store.advance_clock!(store, 1) == :ok
      assert Store.close!(store) == :ok

      {sid, _} = Store.create!(1)
      assert %Session{data: 1} = Store.get!(sid)
      assert Store.delete!(sid) == :ok
      assert is_map(Store.stats!())
    end

    test "raises the error", %{store: store} do
      {sid, _} = Store.create!(store, 1)
      :ok = Store.delete(store, sid)
      assert_raise Error, "no such session", fn -> Store.get!(store, sid) end
      error = assert_raise Error, fn -> Store.delete!(store, sid) end
      assert {error.reason, error.code} == {:not_found, -3}
      assert_raise Error, ~r/momory/, fn -> Store.open!("momory:") end
    end

    test "exists for every function that can fail" do
      functions = Store.__info__(:functions)
      plain = for {name, arity} <- functions, not String.ends_with?("#{name}", "!"), do: {name, arity}

      for {name, arity} <- plain, name not in [:default, :pubsub, :register, :report_stats, :read, :__struct__] do
        assert {:"#{name}!", arity} in functions
      end
    end
  end
end
