# Telemetry events of a store. Must work without the package telemetry, and must never put an id, a
# reference, a principal or session data into an event.
defmodule SessionServerStore.Telemetry do
  @moduledoc """
  The events that the store sends with [telemetry](https://hexdocs.pm/telemetry), if that package is
  there.

  | event | measurements | metadata |
  |---|---|---|
  | `[:session_server_store, operation, :stop]` | `:duration`, in native time units; `:count` for `revoke`, `revoke_all` and `sweep`: how many sessions ended | `:store`, `:engine`, `:result` |
  | `[:session_server_store, :stats]` | `:sessions` and `:bytes` now; `:created`, `:hits`, `:misses`, `:puts`, `:deleted`, `:renewed`, `:conflicts`, `:revoked`, `:expired`, `:rejected` and `:errors` since the store was opened | `:store`, `:engine` |

  The operations are `:create`, `:get` (also for `peek`), `:put` (also for `put_if`), `:touch` (also
  for `touch_ref`), `:renew`, `:delete` (also for `delete_ref`), `:ref`, `:list`, `:revoke`,
  `:revoke_all` and `:sweep`. `update` sends the events of its reads and writes.

    * `:store` - the name of the store; `nil` for a store of `SessionServerStore.Store.open/2`
    * `:engine` - `:memory`, `:lmdb` or `:redis`
    * `:result` - `:ok`, `:not_found`, or the reason of a `SessionServerStore.Error`

  No event holds an id, a reference, a principal or session data. The stats of a store with a name
  are sent every `:stats_interval`.

  With `Telemetry.Metrics`:

      [
        summary("session_server_store.get.stop.duration", unit: {:native, :microsecond}, tags: [:store]),
        counter("session_server_store.create.stop.duration", tags: [:store, :result]),
        last_value("session_server_store.stats.sessions", tags: [:store])
      ]
  """

  alias SessionServerStore.Error

  @counted [:revoke, :revoke_all, :sweep]

  @doc false
  # Tested in each call, in some nanoseconds: the package may be loaded later than this one.
  @spec enabled? :: boolean
  def enabled?, do: :erlang.function_exported(:telemetry, :execute, 3)

  @doc false
  @spec span(operation :: atom, store :: atom, engine :: atom, fun) :: term
  def span(operation, store, engine, fun) do
    if enabled?() do
      start = System.monotonic_time()
      result = fun.()
      duration = System.monotonic_time() - start
      metadata = %{store: store, engine: engine, result: outcome(result)}
      :telemetry.execute([:session_server_store, operation, :stop], measurements(operation, duration, result), metadata)
      result
    else
      fun.()
    end
  end

  @doc false
  @spec stats(store :: atom, engine :: atom, stats :: map) :: :ok
  def stats(store, engine, stats),
    do: :telemetry.execute([:session_server_store, :stats], stats, %{store: store, engine: engine})

  defp measurements(operation, duration, {:ok, count}) when operation in @counted,
    do: %{duration: duration, count: count}

  defp measurements(_operation, duration, _result), do: %{duration: duration}

  defp outcome({:error, %Error{reason: reason}}), do: reason
  defp outcome({:error, reason}) when is_atom(reason), do: reason
  defp outcome({:unreadable, _reason}), do: :corrupt
  defp outcome(_ok), do: :ok
end
