# The typed API: its results, its options, and what it refuses. The store's rules are tested by the conformance suite.
defmodule SessionServerStore.StoreTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.{Error, Session, SessionInfo, Store}

  doctest SessionServerStore.Store
  doctest SessionServerStore.Error

  setup do
    place = Place.new()
    {:ok, store} = Store.open(Place.url(place, ["clock=manual"]))

    on_exit(fn ->
      Store.close(store)
      Place.remove(place)
    end)

    {:ok, store: store}
  end

  test "the life of a session", %{store: store} do
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

  test "every function has a form for the application's store" do
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
    assert Store.delete_ref(ref) == :ok
    assert Store.revoke("by-default", except: sid2) == {:ok, 0}
    assert Store.revoke("by-default") == {:ok, 1}
    assert {:ok, n} = Store.sweep()
    assert is_integer(n)
    assert Store.sweep(0) == {:ok, 0}
    assert {:ok, %{sessions: _, bytes: _, errors: 0}} = Store.stats()
    assert Store.delete(sid) == {:error, :not_found}
  end

  test "list tells everything but the id", %{store: store} do
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
    assert Store.list(store, "nobody") == {:ok, []}
  end

  test "principal nil is nobody in create and clears in put and renew", %{store: store} do
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

  test "timeouts are seconds, milliseconds or infinity, and 0 is dead at once", %{store: store} do
    {:ok, _, s} = Store.create(store, 1, timeout: 7, idle_timeout: :infinity)
    assert s.expires_ms - s.created_ms == 7_000
    {:ok, _, s} = Store.create(store, 1, idle_timeout: {1500, :millisecond})
    assert s.expires_ms - s.created_ms == 1_500
    {:ok, _, s} = Store.create(store, 1, timeout: 10 ** 40, idle_timeout: :infinity)
    assert s.expires_ms == :infinity
    {:ok, sid, _} = Store.create(store, 1, timeout: 0)
    assert Store.get(store, sid) == {:error, :not_found}
  end

  test "grace keeps the old id readable for a while", %{store: store} do
    {:ok, old, _} = Store.create(store, "data")
    {:ok, new, _} = Store.renew(store, old, grace: 5)
    assert {:ok, %{data: "data"}} = Store.get(store, old)
    assert Store.put(store, old, "no") == {:error, :not_found}
    :ok = Store.advance_clock(store, 5)
    assert Store.get(store, old) == {:error, :not_found}
    assert {:ok, _} = Store.get(store, new)
  end

  test "peeking does not keep a session alive, getting and touching do", %{store: store} do
    {:ok, sid, _} = Store.create(store, 1, idle_timeout: 10)
    :ok = Store.advance_clock(store, 6)
    {:ok, _} = Store.get(store, sid)
    :ok = Store.advance_clock(store, 6)
    {:ok, _} = Store.touch(store, sid)
    :ok = Store.advance_clock(store, 6)
    {:ok, _} = Store.peek(store, sid)
    :ok = Store.advance_clock(store, {3999, :millisecond})
    assert {:ok, _} = Store.peek(store, sid)
    :ok = Store.advance_clock(store, {1, :millisecond})
    assert Store.peek(store, sid) == {:error, :not_found}
    assert Store.sweep(store) == {:ok, 1}
  end

  test "an empty session is not stored and changes nothing", %{store: store} do
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

  test "raw stores take and give binaries as they are" do
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

  test "a closed store says so, and its sessions are gone" do
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

  test "a named store lives as long as one of its handles" do
    name = "memory:shared-#{System.unique_integer([:positive])}"
    {:ok, one} = Store.open(name)
    {:ok, two} = Store.open(name)
    {:ok, sid, _} = Store.create(one, "data")
    :ok = Store.close(one)
    assert {:ok, %{data: "data"}} = Store.get(two, sid)
  end

  # Above and below the number of sessions from which the memory is given back on a thread of its own.
  for sessions <- [10, 3_000] do
    test "a store of #{sessions} sessions whose owner dies is given back" do
      name = "memory:dropped-#{System.unique_integer([:positive])}"

      {pid, monitor} =
        spawn_monitor(fn ->
          {:ok, store} = Store.open(name)
          for n <- 1..unquote(sessions), do: {:ok, _, _} = Store.create(store, n)
        end)

      assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 5_000

      gone? = fn ->
        {:ok, store} = Store.open(name)
        {:ok, stats} = Store.stats(store)
        :ok = Store.close(store)
        stats.sessions == 0
      end

      assert Enum.any?(1..200, fn _ -> gone?.() or Process.sleep(10) != :ok end)
    end
  end

  test "wrong options and arguments raise and name the culprit, never the data", %{store: store} do
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
          {"unknown", fn -> Store.revoke(store, "alice", exept: sid) end},
          {"unknown", fn -> Store.open("memory:", row: true) end}
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ name
      refute error.message =~ "secret"
      refute error.message =~ sid
    end
  end

  test "no id and no data shows up in what is inspected", %{store: store} do
    {:ok, sid, session} = Store.create(store, "hidden data", principal: "alice")
    {:ok, read} = Store.get(store, sid)
    {:error, conflict} = Store.put_if(store, sid, 9, "hidden data")

    for shown <- [session, read, conflict, store, Store.stats(store)], secret <- [sid, "hidden data", "alice"] do
      refute inspect(shown) =~ secret
    end
  end

  test "errors are exceptions with a line for a person" do
    {:error, error} = Store.open("momory:")
    assert %Error{reason: :url, code: -9} = error
    assert Exception.message(error) =~ "momory"
    assert_raise Error, fn -> raise error end
  end
end
