# Many processes on one session through the NIF. The engines' own race tests are in tests/.
defmodule SessionServerStore.RaceTest do
  use ExUnit.Case, async: true

  alias SessionServerStore.Store

  setup do
    temporary = TemporaryStore.new()
    {:ok, store} = Store.open(TemporaryStore.url(temporary))

    on_exit(fn ->
      Store.close(store)
      TemporaryStore.remove(temporary)
    end)

    {:ok, store: store}
  end

  # Runs all functions at the same time and returns their results.
  defp run_together(functions) do
    tasks =
      for function <- functions do
        Task.async(fn ->
          receive do: (:go -> :ok)
          function.()
        end)
      end

    Enum.each(tasks, &send(&1.pid, :go))
    Task.await_many(tasks, 50_000)
  end

  test "deleted session never comes back", %{store: store} do
    for _ <- 1..200 do
      {:ok, sid, _} = Store.create(store, %{n: 0})

      results =
        run_together([
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

  test "concurrent updates lose nothing", %{store: store} do
    {:ok, sid, _} = Store.create(store, %{n: 0})

    increment = fn increment ->
      case Store.update(store, sid, &%{&1 | n: &1.n + 1}) do
        {:ok, _} -> :ok
        {:error, %{reason: :conflict}} -> increment.(increment)
      end
    end

    run_together(for _ <- 1..8, do: fn -> for(_ <- 1..50, do: increment.(increment)) end)
    assert {:ok, %{data: %{n: 400}, version: 401}} = Store.get(store, sid)
  end
end
