# The Plug store: converts between the results of SessionServerStore.Store and what Plug.Session
# expects. Must compile and work without Plug, and must not use the conn.
defmodule SessionServerStore do
  @moduledoc """
  A session store for Plug. Sessions stay on the server; the client holds an id of 128 characters.

      plug Plug.Session,
        store: SessionServerStore,
        key: "sid",
        timeout: {12, :hour},
        idle_timeout: :infinity

  It works with `Plug.Session` and with `SessionHeaderPlug`. `SessionServerStore.Application`
  describes how to configure the store, and `SessionServerStore.Store` how to use it without Plug.

  ## Options

    * `:timeout` - how long after its creation a session expires, however much it is used. Default
      is `10800`
    * `:idle_timeout` - how long after its last use a session expires. Default is `600`
    * `:principal_key` - the session key of the user id, such as `"user_id"` or `:user_id`, which
      mean the same. With it, `SessionServerStore.Store.list/2` and
      `SessionServerStore.Store.revoke/3` find all sessions of a user. The user id is a string, or
      an integer, which stands for its digits

  A duration is a number of seconds, a number with a unit such as `{12, :hour}` (`:millisecond`,
  `:second`, `:minute`, `:hour`, `:day` or `:week`), or `:infinity`. `0` expires at once. A timeout
  that is not given here is that of the `:url` in the application's configuration, or the default
  above. A session has the timeouts of the pipeline that wrote it last.

  The options of `Plug.Session` and of Plug's own stores are accepted and ignored, because some
  frameworks pass them to every store. Other options raise an `ArgumentError`.

  ## Guarantees

    * Only the store creates ids. An unknown, expired or deleted id reads as an empty session, and
      the next write creates a session with a new id
    * A session that ends during a request stays ended: what the request writes is not stored
    * An empty session is not stored. Writing one over an existing session
      (`Plug.Conn.clear_session/1`) ends it
    * Stored data that is not a readable map reads as an empty session, and is logged
    * If the store is unavailable, full or damaged, or the session is too large, a
      `SessionServerStore.Error` is raised. Such a failure never reads as an empty session

  ## Without Plug

      iex> opts = SessionServerStore.init(timeout: 3600)
      iex> sid = SessionServerStore.put(nil, nil, %{"user_id" => 42}, opts)
      iex> {^sid, session} = SessionServerStore.get(nil, sid, opts)
      iex> session
      %{"user_id" => 42}
      iex> SessionServerStore.delete(nil, sid, opts)
      iex> SessionServerStore.get(nil, sid, opts)
      {nil, %{}}
  """

  alias SessionServerStore.{Arguments, Duration, Error, Session, Store}

  require Logger

  plug? = Code.ensure_loaded?(Plug.Session.Store)
  if plug?, do: @behaviour(Plug.Session.Store)

  @type sid :: binary | nil
  @type config :: {timeouts :: keyword, principal_key :: String.t() | nil}

  @timeouts [:timeout, :idle_timeout]
  @options @timeouts ++ [:principal_key]

  # The options of Plug.Session, Plug.Session.COOKIE and Plug.Session.ETS, and of Phoenix's sockets.
  @ignored_options [:store, :key, :domain, :max_age, :path, :secure, :http_only, :same_site, :extra] ++
                     [:encryption_salt, :signing_salt, :key_iterations, :key_length, :key_digest, :serializer, :log] ++
                     [:rotating_options, :secret_key_base, :table, :csrf_token_key]

  @random_bytes 96

  @doc """
  Checks the options. Plug calls this when it compiles a pipeline, so it needs no running
  application.

      iex> SessionServerStore.init(timeout: 43_200_000)
      ** (ArgumentError) :timeout is in seconds, and 43200000 looks like milliseconds: write {12, :hour}, or {43200000, :second} if seconds are meant
  """
  @spec init(keyword) :: config
  if plug?, do: @impl(true)

  def init(opts) do
    for {name, _} <- Arguments.keyword!(opts), name not in @options, name not in @ignored_options do
      raise ArgumentError, unknown_option(name)
    end

    timeouts = for name <- @timeouts, {:ok, value} <- [Keyword.fetch(opts, name)], do: {name, value}
    Enum.each(timeouts, fn {name, value} -> Duration.to_ms!(name, value) end)
    {timeouts, principal_key(Keyword.fetch(opts, :principal_key))}
  end

  @doc "Reads the session of the client's id. It is `{nil, %{}}` if there is no such session."
  @spec get(conn :: term, cookie :: binary, config) :: {sid, map}
  if plug?, do: @impl(true)

  def get(_conn, sid, _config) when is_binary(sid) do
    case Store.read(Store.default(), sid, _peek = false) do
      {:ok, %Session{data: data}} when is_map(data) -> {sid, data}
      {:error, :not_found} -> {nil, %{}}
      {:ok, _not_a_map} -> unreadable("it is not a map")
      {:unreadable, reason} -> unreadable(reason)
      {:error, error} -> raise error
    end
  end

  def get(_conn, _sid, _config), do: {nil, %{}}

  @doc """
  Stores a session and returns the id for the client.

  Without an id, this creates a session. If the id names no session, nothing is stored, and the id
  is returned as it is. An empty session is not stored: with an id, its session ends; without one,
  the returned id names no session.
  """
  @spec put(conn :: term, sid, data :: map, config) :: sid :: binary
  if plug?, do: @impl(true)

  # Plug sets a cookie in any case, and needs a value for it.
  def put(_conn, nil, data, _config) when data == %{},
    do: Base.url_encode64(:crypto.strong_rand_bytes(@random_bytes), padding: false)

  def put(_conn, nil, data, config) do
    case Store.create(data, store_options(data, config)) do
      {:ok, sid, _session} -> sid
      {:error, error} -> raise error
    end
  end

  def put(conn, sid, data, config) when data == %{} do
    delete(conn, sid, config)
    sid
  end

  def put(_conn, sid, data, config) do
    case Store.put(sid, data, store_options(data, config)) do
      {:ok, _session} -> sid
      {:error, :not_found} -> sid
      {:error, error} -> raise error
    end
  end

  @doc "Ends a session."
  @spec delete(conn :: term, sid, config) :: :ok
  if plug?, do: @impl(true)

  def delete(_conn, sid, _config) when is_binary(sid) do
    case Store.delete(sid) do
      :ok -> :ok
      {:error, :not_found} -> :ok
      {:error, %Error{} = error} -> raise error
    end
  end

  def delete(_conn, _sid, _config), do: :ok

  ## Options

  defp unknown_option(name) do
    "unknown option #{inspect(name)}: the options of SessionServerStore are #{Enum.map_join(@options, ", ", &inspect/1)}; " <>
      "limits and where the sessions are kept are set by :url in the configuration of :session_server_store"
  end

  # Session keys are strings: Plug.Conn.put_session/3 converts atoms. nil and booleans are atoms,
  # but no names.
  defp principal_key(:error), do: nil
  defp principal_key({:ok, key}) when is_binary(key) and key != "", do: key
  defp principal_key({:ok, key}) when is_atom(key) and key not in [nil, true, false], do: Atom.to_string(key)

  defp principal_key({:ok, other}) do
    raise ArgumentError, ":principal_key must be a session key such as \"user_id\" or :user_id, got: #{inspect(other)}"
  end

  defp store_options(_data, {timeouts, nil}), do: timeouts
  defp store_options(data, {timeouts, key}), do: [{:principal, principal!(key, data[key])} | timeouts]

  defp principal!(_key, no_user) when no_user in [nil, ""], do: nil

  defp principal!(key, user) do
    case Arguments.principal(user) do
      {:ok, principal} -> principal
      :error -> Arguments.invalid!("the value of #{inspect(key)} in the session must be a string or an integer", user)
    end
  end

  # Without the id and the data: other people read logs.
  defp unreadable(reason) do
    Logger.error("a stored session cannot be read and is treated as empty: #{reason}")
    {nil, %{}}
  end
end
