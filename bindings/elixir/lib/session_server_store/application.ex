# Starts the default store, and what closes stores with names. Stores from
# SessionServerStore.Store.open/2 must not depend on it.
defmodule SessionServerStore.Application do
  @moduledoc """
  The default store: the one that `SessionServerStore` and the functions of
  `SessionServerStore.Store` use if they are given no other.

      config :session_server_store,
        url: "memory:?max_sessions=1000000",
        sweep_interval: 60

  The keys are the options of `SessionServerStore.child_spec/1` except `:name`, and:

    * `:default_store` - `false` starts no default store, for applications that have their stores in
      their own supervision tree. Default is `true`

  The application does not start with other keys or wrong values.

  Sessions in memory live as long as the application runs. They survive the death of each of its
  processes, also of its supervisor, and end with `Application.stop/1`.
  """

  use Application

  alias SessionServerStore.{Closer, Server, Store}

  @app :session_server_store
  @supervisor SessionServerStore.Supervisor

  @impl true
  def start(_type, _args) do
    env = Application.get_all_env(@app)
    {default?, opts} = Keyword.pop(env, :default_store, true)
    check!(default?, opts)
    # The events are sent if it is loaded.
    Code.ensure_loaded(:telemetry)

    children =
      if default?, do: [Closer, {SessionServerStore, [name: SessionServerStore.Default] ++ opts}], else: [Closer]

    # The children hold no state that could make them fail again, and wait before they work: they are
    # always restarted.
    Supervisor.start_link(children, strategy: :one_for_one, name: @supervisor, max_restarts: 1_000, max_seconds: 1)
  end

  # Without its supervisor the application is not being stopped, it has crashed: the sessions must
  # survive that.
  @impl true
  def prep_stop(_state), do: if(Process.whereis(@supervisor), do: :stopping, else: :crashed)

  @impl true
  def stop(:crashed), do: :ok
  def stop(:stopping), do: Store.close(Store.default())

  defp check!(default?, opts) do
    if not is_boolean(default?),
      do: raise(ArgumentError, ":default_store must be true or false, got: #{inspect(default?)}")

    keys = Keyword.keys(Server.defaults())

    for {key, _value} <- opts, key not in keys do
      raise ArgumentError,
            "unknown key #{inspect(key)} in the configuration of #{inspect(@app)}: " <>
              "the keys are :default_store, #{Enum.map_join(keys, ", ", &inspect/1)}"
    end
  end
end
