# Plug.Session with this store, and what a store alone cannot do: it changes the response. Compiles
# without Plug and is always defined, because Plug may be compiled or added after this package.
defmodule SessionServerStore.Plug do
  @moduledoc """
  `Plug.Session` with `SessionServerStore`, and one thing that a store alone cannot do.

      plug SessionServerStore.Plug, key: "sid", name: MyApp.Sessions

  The options are those of `Plug.Session` and `SessionServerStore`.

  Suppose that a slow request is under way while the user logs in in another tab. The login gives the
  session a new id, and the browser has its cookie. When the slow request then writes the session, its
  id has ended and nothing is stored. `Plug.Session` sets a cookie after every write, so the old id
  would replace the new one in the browser, and the user would be logged out. This plug leaves the
  cookie out of such a response. `SessionHeaderPlug` does the same with its header.
  """

  alias Plug.Conn
  alias SessionServerStore.Request

  plug? = Code.ensure_loaded?(Plug)
  if plug?, do: @behaviour(Plug)

  @doc "Checks the options, as `Plug.Session` does."
  @spec init(keyword) :: map
  if plug?, do: @impl(true)
  def init(opts), do: Plug.Session.init(Keyword.put(opts, :store, SessionServerStore))

  @doc "Makes the session available to `Plug.Conn.fetch_session/2`."
  @spec call(conn, map) :: conn when conn: struct
  if plug?, do: @impl(true)

  # Callbacks run in the reverse order of their registration: this one after that of Plug.Session.
  def call(conn, config) do
    conn
    |> Conn.register_before_send(&drop_cookie_of_ended_session(&1, config.key))
    |> Plug.Session.call(config)
  end

  defp drop_cookie_of_ended_session(conn, key) do
    case conn.resp_cookies do
      %{^key => %{value: sid}} -> if Request.ended?(sid), do: drop_cookie(conn, key), else: conn
      _ -> conn
    end
  end

  defp drop_cookie(conn, key), do: %{conn | resp_cookies: Map.delete(conn.resp_cookies, key)}
end
