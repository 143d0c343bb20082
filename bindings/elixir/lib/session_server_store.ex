# The Plug store: turns the answers of SessionServerStore.Store into what Plug.Session expects. Must compile and work
# without Plug, and must not touch the conn.
defmodule SessionServerStore do
  @moduledoc """
  Keeps sessions on the server; the client holds an id of 128 characters and nothing else.

      plug Plug.Session,
        store: SessionServerStore,
        key: "sid",
        timeout: 86_400,
        idle_timeout: :infinity

  It can be used with `Plug.Session` and with `SessionHeaderPlug`. The store itself is configured in
  `SessionServerStore.Application`; `SessionServerStore.Store` is the same store without Plug.

  ## Options

    * `:timeout` - seconds after which a session is dead, however much it is used. Default is `10800`
    * `:idle_timeout` - seconds without use after which it is dead. Default is `600`
    * `:principal_key` - the session key under which the application keeps whose session it is, such as `"user_id"`.
      With it, `SessionServerStore.Store.list/2` and `SessionServerStore.Store.revoke/3` know all sessions of a user.
      The value must be a string or an integer; an integer is the principal as a string

  Timeouts are whole seconds, `{number, :millisecond}` or `:infinity`; `0` is dead at once. A timeout that is not given
  is the one in the `:url` of the application's configuration, and the default above if there is none. A session has the
  timeouts of the pipeline that wrote it last.

  Other options are ignored, because frameworks hand on options that are meant for others (`:signing_salt`, `:same_site`);
  one that looks like a misspelt timeout is refused.

  ## What to expect

    * An id is only ever made by the store. An unknown, expired or deleted one is an empty session, and what is then
      written gets a new id
    * A session that ended while a request was under way stays ended: what the request wrote is not stored
    * An empty session is not stored. Writing one over a living session (`Plug.Conn.clear_session/1`) ends it
    * Stored data that cannot be read back as a map is an empty session and a line in the log
    * If the store cannot answer, or is full, or damaged, or the session is too large, a `SessionServerStore.Error` is
      raised: that is never mistaken for a session that is not there

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

  alias SessionServerStore.{Duration, Error, Session, Store}

  require Logger

  plug? = Code.ensure_loaded?(Plug.Session.Store)
  if plug?, do: @behaviour(Plug.Session.Store)

  @type sid :: binary | nil
  @type config :: {timeouts :: keyword, principal_key :: term}

  @timeouts [:timeout, :idle_timeout]
  @random_bytes 96

  @doc """
  Checks the options. Plug calls this when it compiles a pipeline, so it needs no running application.

      iex> SessionServerStore.init(idle_timeout: -1)
      ** (ArgumentError) :idle_timeout must be a number of seconds (0 or more), {milliseconds, :millisecond} or :infinity, got: -1
  """
  @spec init(keyword) :: config
  if plug?, do: @impl(true)

  def init(opts) do
    for {name, _} <- opts, name not in @timeouts, known <- @timeouts, misspelt?(name, known) do
      raise ArgumentError, "unknown option #{inspect(name)}, did you mean #{inspect(known)}?"
    end

    timeouts = for name <- @timeouts, {:ok, value} <- [Keyword.fetch(opts, name)], do: {name, value}
    Enum.each(timeouts, fn {name, value} -> Duration.timeout!(name, value) end)
    {timeouts, opts[:principal_key]}
  end

  @doc "Reads the session that a client presents: `{nil, %{}}` if there is none."
  @spec get(conn :: term, cookie :: binary, config) :: {sid, map}
  if plug?, do: @impl(true)

  def get(_conn, sid, _config) when is_binary(sid) do
    case Store.read(Store.default(), sid, _peek = false) do
      {:ok, %Session{data: data}} when is_map(data) -> {sid, data}
      {:error, :not_found} -> {nil, %{}}
      {:ok, _not_a_map} -> unreadable("it is not a map")
      {:unreadable, why} -> unreadable(why)
      {:error, error} -> raise error
    end
  end

  def get(_conn, _sid, _config), do: {nil, %{}}

  @doc """
  Stores a session and returns the id for the client.

  Without an id it is a new session. With the id of a session that is gone, nothing is stored and the dead id comes back.
  An empty session is not stored either: with an id, that session ends; without one, the id that comes back names nothing.
  """
  @spec put(conn :: term, sid, data :: map, config) :: sid :: binary
  if plug?, do: @impl(true)

  # Plug wants a cookie in any case.
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
      {:error, %Error{} = error} -> raise error
      _ended_or_gone -> :ok
    end
  end

  def delete(_conn, _sid, _config), do: :ok

  defp store_options(_data, {timeouts, nil}), do: timeouts
  defp store_options(data, {timeouts, key}), do: [{:principal, principal(key, data[key])} | timeouts]

  defp principal(_key, nobody) when nobody in [nil, ""], do: nil
  defp principal(_key, user) when is_binary(user), do: user
  defp principal(_key, user) when is_integer(user), do: Integer.to_string(user)

  defp principal(key, _user),
    do: raise(ArgumentError, "the session's #{inspect(key)} (:principal_key) must be a string or an integer")

  defp misspelt?(name, known), do: String.jaro_distance("#{name}", "#{known}") > 0.85

  # Never the id or the data: logs are read by others.
  defp unreadable(why) do
    Logger.error("a stored session cannot be read and is taken as empty: #{why}")
    {nil, %{}}
  end
end
