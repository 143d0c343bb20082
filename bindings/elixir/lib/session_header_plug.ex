# Plug.Session over a header instead of a cookie. Only defined if Plug is there and no other package defines a module of
# this name; what earlier compilations of this package left behind is not another package.
own_path = Mix.Project.compile_path()

foreign? =
  case :code.which(SessionHeaderPlug) do
    path when is_list(path) and path != [] -> Path.dirname(path) != own_path
    _ -> false
  end

if Code.ensure_loaded?(Plug) and not foreign? do
  defmodule SessionHeaderPlug do
    @moduledoc """
    Sends and receives the session id in a header of its own: what `Plug.Session` does with a cookie, for clients that
    do not get one, such as scripts of another origin.

        plug SessionHeaderPlug, store: SessionServerStore, key: "session-id"
        plug :fetch_session

    The session is then used with the functions of `Plug.Conn`, also `Plug.Conn.configure_session/2`. A response has the
    header when the session was written: the client keeps its value and sends it in the header of its next requests.

    For scripts of another origin every response names the header in `access-control-allow-headers`, and one that has it
    also in `access-control-expose-headers`. Names that others have put there stay.

    ## Options

      * `:store` - session store module, see `Plug.Session.Store` (required)
      * `:key` - name of the header (required)

    All other options are those of the store.
    """

    import Plug.Conn

    @behaviour Plug

    @impl true
    @spec init(keyword) :: map
    def init(opts) do
      {own, store_opts} = Keyword.split(opts, [:key, :store])
      store = Plug.Session.Store.get(Keyword.fetch!(own, :store))
      # Header names have no case; Plug knows them in lower case only.
      key = own |> Keyword.fetch!(:key) |> String.downcase()
      %{key: key, store: store, store_config: store.init(store_opts)}
    end

    @impl true
    @spec call(Plug.Conn.t(), map) :: Plug.Conn.t()
    def call(conn, config) do
      conn
      |> add_to_header("access-control-allow-headers", config.key)
      |> put_private(:plug_session_fetch, &fetch(&1, config))
    end

    defp fetch(conn, config) do
      {sid, session} =
        case get_req_header(conn, config.key) do
          [value | _] -> config.store.get(conn, value, config.store_config)
          [] -> {nil, %{}}
        end

      # What was put before the session was fetched (Plug.Test.init_test_session/2) has precedence.
      session = Map.merge(session, Map.get(conn.private, :plug_session, %{}))

      conn
      |> put_private(:plug_session, session)
      |> put_private(:plug_session_fetch, :done)
      |> register_before_send(&finish(&1, &1.private[:plug_session_info], sid, config))
    end

    defp finish(conn, :write, sid, config), do: write(conn, sid, config)
    defp finish(conn, :renew, sid, config), do: conn |> drop(sid, config) |> write(nil, config)
    defp finish(conn, :drop, sid, config), do: drop(conn, sid, config)
    defp finish(conn, _unchanged_or_ignored, _sid, _config), do: conn

    defp write(conn, sid, config) do
      value = config.store.put(conn, sid, conn.private.plug_session, config.store_config)

      conn
      |> put_resp_header(config.key, value)
      |> add_to_header("access-control-expose-headers", config.key)
    end

    defp drop(conn, sid, config) do
      if sid, do: config.store.delete(conn, sid, config.store_config)
      conn
    end

    defp add_to_header(conn, header, name) do
      case get_resp_header(conn, header) do
        [] ->
          put_resp_header(conn, header, name)

        [names | _] ->
          listed? = names |> String.downcase() |> String.split(~r/\s*,\s*/) |> Enum.member?(name)
          if listed?, do: conn, else: put_resp_header(conn, header, "#{names}, #{name}")
      end
    end
  end
end
