# Owns the application's store and starts the sweeper. The store is kept outside of all processes,
# so that the death of a process loses no session. Stores from SessionServerStore.Store.open/2 must
# not depend on it.
defmodule SessionServerStore.Application do
  @moduledoc """
  The store that `SessionServerStore` uses, and `SessionServerStore.Store` unless it is given
  another one.

      config :session_server_store,
        url: "memory:?max_sessions=1000000",
        sweep_interval: 60

    * `:url` - the store to open, default `"memory:"`. With `"lmdb:/var/lib/app/sessions"` sessions
      survive restarts, and the processes of a host share them. With `"redis://host"` several hosts
      share them, and the application also starts while the server is down. `timeout` and
      `idle_timeout` in the URL apply to all sessions that have none of their own
    * `:sweep_interval` - how often expired sessions are removed: seconds, a number with a unit such
      as `{5, :minute}`, or `:infinity` for never. Default is `60`. A plain number above 3600 is
      refused, because it is most likely in milliseconds

  The application does not start with other keys or wrong values.

  Sessions in memory live as long as the application runs. They survive the death of each of its
  processes, also of its supervisor, and end with `Application.stop/1`.
  """

  use Application

  alias SessionServerStore.{Duration, Store, Sweeper}

  @app :session_server_store
  @keys [:url, :sweep_interval]
  @supervisor SessionServerStore.Supervisor

  @impl true
  def start(_type, _args) do
    check_keys!()
    url = Application.fetch_env!(@app, :url)
    interval = Duration.to_ms!(:sweep_interval, Application.fetch_env!(@app, :sweep_interval))

    # After a crash of the supervisor the store is still open. It stays, unless the URL is another
    # one.
    with :ok <- Store.open_default(url) do
      # The sweeper holds no state that could make it fail again, and it waits before it works: it
      # is always restarted.
      options = [strategy: :one_for_one, name: @supervisor, max_restarts: 1_000, max_seconds: 1]
      Supervisor.start_link([{Sweeper, interval}], options)
    end
  end

  # Without its supervisor the application is not being stopped, it has crashed: the sessions must
  # survive that.
  @impl true
  def prep_stop(_state), do: if(Process.whereis(@supervisor), do: :stopping, else: :crashed)

  @impl true
  def stop(:crashed), do: :ok
  def stop(:stopping), do: Store.close(Store.default())

  defp check_keys! do
    for {key, _value} <- Application.get_all_env(@app), key not in @keys do
      raise ArgumentError,
            "unknown key #{inspect(key)} in the configuration of #{inspect(@app)}: " <>
              "the keys are #{Enum.map_join(@keys, " and ", &inspect/1)}"
    end
  end
end
