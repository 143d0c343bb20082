# Plug.Session over a header instead of a cookie. Compiles without Plug and is always defined,
# because Plug may be compiled or added after this package. Works with every session store.
defmodule SessionHeaderPlug do
  @moduledoc """
  Sends and receives the session id in a header: `Plug.Session` for clients without cookies, such as
  scripts of another origin.

      plug SessionHeaderPlug, store: SessionServerStore, key: "session-id"
      plug :fetch_session

  The functions of `Plug.Conn` read and write the session, including
  `Plug.Conn.configure_session/2`. A response has the header if the session was written. The client
  keeps the value and sends it in the header of its next requests.

  For scripts of another origin, every response names the header in `access-control-allow-headers`,
  and a response that has it also in `access-control-expose-headers`. Other names in these headers
  stay.

  ## Options

    * `:store` - session store module, see `Plug.Session.Store` (required)
    * `:key` - name of the header (required)

  All other options are those of the store.
  """

  alias Plug.Conn
  alias SessionServerStore.Request

  plug? = Code.ensure_loaded?(Plug)
  if plug?, do: @behaviour(Plug)

  @doc "Checks the options, and passes those of the store to its `init/1`."
  @spec init(keyword) :: map
  if plug?, do: @impl(true)

  def init(opts) do
    {own, store_opts} = Keyword.split(opts, [:key, :store])
    store = Plug.Session.Store.get(Keyword.fetch!(own, :store))
    # Header names are not case-sensitive, and Plug has them in lower case.
    key = own |> Keyword.fetch!(:key) |> String.downcase()
    %{key: key, store: store, store_config: store.init(store_opts)}
  end

  @doc "Makes the session available to `Plug.Conn.fetch_session/2`."
  @spec call(conn, map) :: conn when conn: struct
  if plug?, do: @impl(true)

  def call(conn, config) do
    conn
    |> add_to_header("access-control-allow-headers", config.key)
    |> Conn.put_private(:plug_session_fetch, &fetch(&1, config))
  end

  defp fetch(conn, config) do
    {sid, session} =
      case Conn.get_req_header(conn, config.key) do
        [value | _] -> config.store.get(conn, value, config.store_config)
        [] -> {nil, %{}}
      end

    # Plug.Test.init_test_session/2 puts values before the session is fetched. They take precedence.
    session = Map.merge(session, Map.get(conn.private, :plug_session, %{}))

    conn
    |> Conn.put_private(:plug_session, session)
    |> Conn.put_private(:plug_session_fetch, :done)
    |> Conn.register_before_send(&finish(&1, &1.private[:plug_session_info], sid, config))
  end

  defp finish(conn, :write, sid, config), do: write(conn, sid, config)
  defp finish(conn, :renew, sid, config), do: conn |> drop(sid, config) |> write(nil, config)
  defp finish(conn, :drop, sid, config), do: drop(conn, sid, config)
  defp finish(conn, _unchanged_or_ignored, _sid, _config), do: conn

  defp write(conn, sid, config) do
    value = config.store.put(conn, sid, conn.private.plug_session, config.store_config)

    # The client may have the id of a newer session, see SessionServerStore.Plug.
    if Request.ended?(value) do
      conn
    else
      conn
      |> Conn.put_resp_header(config.key, value)
      |> add_to_header("access-control-expose-headers", config.key)
    end
  end

  defp drop(conn, nil, _config), do: conn

  defp drop(conn, sid, config) do
    config.store.delete(conn, sid, config.store_config)
    conn
  end

  defp add_to_header(conn, header, name) do
    case Conn.get_resp_header(conn, header) do
      [] ->
        Conn.put_resp_header(conn, header, name)

      [names | _] ->
        listed? = names |> String.downcase() |> String.split(~r/\s*,\s*/) |> Enum.member?(name)
        if listed?, do: conn, else: Conn.put_resp_header(conn, header, "#{names}, #{name}")
    end
  end
end
