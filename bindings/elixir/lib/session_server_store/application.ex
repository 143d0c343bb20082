# Owns the application's store and starts the sweeper. The store is kept outside all processes, so that no death of a
# process can lose sessions. Must not be needed for stores that somebody opens on his own.
defmodule SessionServerStore.Application do
  @moduledoc """
  The store that `SessionServerStore` and `SessionServerStore.Store` work on unless they are told otherwise.

      config :session_server_store,
        url: "memory:?max_sessions=1000000",
        sweep_interval: 60

    * `:url` - what to open, default `"memory:"`; with `"lmdb:/var/lib/app/sessions"` sessions survive restarts, and
      other processes of the host can share them; with `"redis://host"` and its kin other hosts can, and the application
      starts also while they are down. Its `timeout` and `idle_timeout` are those of every session that has
      none of its own
    * `:sweep_interval` - seconds between two sweeps of expired sessions, default `60`; `:infinity` for none

  Sessions in memory live as long as the application runs: they survive the death of each of its processes, its
  supervisor included, and are gone after `Application.stop/1`.
  """

  use Application

  alias SessionServerStore.{Store, Sweeper}

  @supervisor SessionServerStore.Supervisor

  @impl true
  def start(_type, _args) do
    url = Application.fetch_env!(:session_server_store, :url)
    interval = Application.fetch_env!(:session_server_store, :sweep_interval)

    # What a crash left behind is taken up again, if it is what the configuration asks for.
    with :ok <- Store.open_default(url) do
      # The sweeper has no state that could be at fault, and it waits before it works: starting it again is always right.
      limits = [max_restarts: 1_000, max_seconds: 1]
      Supervisor.start_link([{Sweeper, interval}], [strategy: :one_for_one, name: @supervisor] ++ limits)
    end
  end

  # Is somebody stopping the application, or has its supervisor died? Sessions are to outlive the latter.
  @impl true
  def prep_stop(_state), do: if(Process.whereis(@supervisor), do: :stopping, else: :crashed)

  @impl true
  def stop(:crashed), do: :ok
  def stop(:stopping), do: Store.close(Store.default())
end
