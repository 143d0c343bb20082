# Many processes on one session: nothing comes back, nothing is lost, one of many wins.
defmodule SessionServerStore.RaceTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.{Error, Store}

  setup do
    place = Place.new()
    {:ok, store} = Store.open(Place.url(place))

    on_exit(fn ->
      Store.close(store)
      Place.remove(place)
    end)

    {:ok, store: store}
  end

  # Runs all functions at once, and gives their results.
  defp together(functions) do
    tasks =
      for function <- functions do
        Task.async(fn ->
          receive do: (:go -> :ok)
          function.()
        end)
      end

    Enum.each(tasks, &send(&1.pid, :go))
    Task.await_many(tasks, 30_000)
  end

  test "what is deleted never comes back, whoever writes, touches or renews meanwhile", %{store: store} do
    for _ <- 1..200 do
      {:ok, sid, _} = Store.create(store, %{n: 0})

      results =
        together([
          fn -> Store.delete(store, sid) end,
          fn -> Store.put(store, sid, %{n: 1}) end,
          fn -> Store.touch(store, sid) end,
          fn -> Store.put_if(store, sid, 1, %{n: 2}) end,
          fn -> Store.renew(store, sid) end
        ])

      assert Store.get(store, sid) == {:error, :not_found}

      # Either the deletion or the renewal came first, never both.
      case {hd(results), List.last(results)} do
        {:ok, renewed} -> assert renewed == {:error, :not_found}
        {{:error, :not_found}, {:ok, new, _}} -> assert :ok = Store.delete(store, new)
      end
    end

    assert {:ok, %{sessions: 0, bytes: 0}} = Store.stats(store)
  end

  test "revoke ends whatever was returned before it was called", %{store: store} do
    for round <- 1..100 do
      user = "user-#{round}"
      {:ok, sid, _} = Store.create(store, 1, principal: user)

      [_, renewed | _] =
        together([
          fn -> Store.revoke(store, user) end,
          fn -> Store.renew(store, sid) end,
          fn -> Store.put(store, sid, 2, principal: user) end
        ])

      assert Store.get(store, sid) == {:error, :not_found}

      with {:ok, new, _} <- renewed do
        # The renewal may have been later than the revocation only if it found the session alive: then it is listed.
        case Store.get(store, new) do
          {:ok, _} -> assert {:ok, [_]} = Store.list(store, user)
          {:error, :not_found} -> assert {:ok, []} = Store.list(store, user)
        end
      end
    end
  end

  test "put_if loses no update", %{store: store} do
    {:ok, sid, _} = Store.create(store, %{n: 0})

    increment = fn increment ->
      {:ok, session} = Store.get(store, sid)

      case Store.put_if(store, sid, session.version, %{n: session.data.n + 1}) do
        {:ok, _} -> :ok
        {:error, %Error{reason: :conflict}} -> increment.(increment)
      end
    end

    together(for _ <- 1..8, do: fn -> for(_ <- 1..200, do: increment.(increment)) end)
    assert {:ok, %{data: %{n: 1_600}, version: 1_601}} = Store.get(store, sid)
  end

  test "one of many renewals wins", %{store: store} do
    for _ <- 1..100 do
      {:ok, sid, _} = Store.create(store, "data")
      results = together(for _ <- 1..6, do: fn -> Store.renew(store, sid) end)
      assert [{:ok, new, _}] = Enum.reject(results, &(&1 == {:error, :not_found}))
      assert {:ok, %{data: "data"}} = Store.get(store, new)
      :ok = Store.delete(store, new)
    end

    assert {:ok, %{sessions: 0}} = Store.stats(store)
  end

  test "readers see whole payloads while writers replace them", %{store: store} do
    payloads = for byte <- [?a, ?b], size <- [10, 5_000], do: :binary.copy(<<byte>>, size)
    {:ok, sid, _} = Store.create(store, hd(payloads))

    writers = for payload <- payloads, do: fn -> for(_ <- 1..500, do: {:ok, _} = Store.put(store, sid, payload)) end

    readers =
      for _ <- 1..2 do
        fn ->
          for _ <- 1..2_000 do
            {:ok, session} = Store.get(store, sid)
            assert session.data in payloads
          end
        end
      end

    together(writers ++ readers)
  end
end
