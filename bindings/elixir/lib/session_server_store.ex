# The Plug store: converts between the results of SessionServerStore.Store and what Plug.Session
# expects. Must compile without Plug, and must work without a conn.
defmodule SessionServerStore do
  @moduledoc """
  A session store for Plug. Sessions stay on the server; the client holds an id of 128 characters.

      plug Plug.Session,
        store: SessionServerStore,
        key: "sid",
        timeout: {12, :hour},
        idle_timeout: :infinity

  It works with `Plug.Session`, `SessionServerStore.Plug` and `SessionHeaderPlug`.
  `SessionServerStore.Store` is the same store without Plug.

  ## Stores

  This uses the default store, which `SessionServerStore.Application` configures. An application
  that needs several stores, or wants to start its store itself, puts stores with names into its
  supervision tree:

      children = [
        {SessionServerStore, name: MyApp.Sessions, url: "memory:?max_sessions=1000000"},
        {SessionServerStore, name: MyApp.AdminSessions, url: "lmdb:/var/lib/my_app/admin?timeout=1h"},
        MyAppWeb.Endpoint
      ]

      plug Plug.Session, store: SessionServerStore, key: "sid", name: MyApp.Sessions

  Sessions of one store do not exist in another one. `child_spec/1` describes the options.

  ## Options

    * `:name` - the store. Default is the default store
    * `:timeout` - how long after its creation a session expires, however much it is used. Default
      is `10800`
    * `:idle_timeout` - how long after its last use a session expires. Default is `600`
    * `:principal_key` - the session key of the user id, such as `"user_id"` or `:user_id`, which
      mean the same. With it, `SessionServerStore.Store.list/2` and
      `SessionServerStore.Store.revoke/3` find all sessions of a user. The user id is a string, or
      an integer, which stands for its digits
    * `:label` - `{module, function}`: called with the conn at a login, it returns up to 255 bytes that
      the list of the user's sessions shows, such as `"Firefox on Linux, 192.0.2.1"`, or `nil`. Longer
      text is cut. Needs `:principal_key`
    * `:ref_key` - the session key under which the session's reference is read, such as
      `"session_ref"`, for `SessionServerStore.LiveView`. It is not stored
    * `:conflict` - what a write does if another request has written the session since this one read
      it. `:merge` writes the keys that this request has set or deleted, and leaves the others as
      they are stored; of a key that both have changed, the last write stays. `:last` replaces the
      whole session. `:error` writes nothing and raises a `SessionServerStore.Error` with the reason
      `:conflict`, for which Plug responds with 409, also if the session has ended. Default is
      `:merge`. For a counter, use `SessionServerStore.Store.update/3`

  A duration is a number of seconds, a number with a unit such as `{12, :hour}` (`:millisecond`,
  `:second`, `:minute`, `:hour`, `:day` or `:week`), or `:infinity`. `0` expires at once. A timeout
  that is not given here is that of the store's `:url`, or the default above. A session has the
  timeouts of the pipeline that wrote it last.

  The options of `Plug.Session` and of Plug's own stores are accepted and ignored, because some
  frameworks pass them to every store. Other options raise an `ArgumentError`.

  ## Login

  `configure_session(conn, renew: true)` gives the session a new id in one step. With `:principal_key`,
  a login is a renewal that changes the user: it restarts both timeouts and sets the session's
  `authenticated_ms`, see `SessionServerStore.Store.renew/3`. Any other renewal keeps them, except after
  `reauthenticated/1`. Without `:principal_key`, every renewal counts as a login.

  ## Guarantees

    * Only the store creates ids. An unknown, expired or deleted id reads as an empty session, and
      the next write creates a session with a new id
    * A session that ends during a request stays ended: what the request writes is not stored. Under
      `Plug.Session` the response then sets the cookie again; `SessionServerStore.Plug` leaves it
      out, because the browser may have that of a login by now
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

  alias SessionServerStore.{Arguments, Disconnect, Duration, Error, Request, Server, Session, Store}

  require Logger

  plug? = Code.ensure_loaded?(Plug.Session.Store)
  if plug?, do: @behaviour(Plug.Session.Store)

  @type sid :: binary | nil
  @opaque config :: %{
            name: atom,
            timeouts: keyword,
            principal_key: String.t() | nil,
            label: {module, atom} | nil,
            ref_key: String.t() | nil,
            conflict: :merge | :last | :error
          }

  @timeouts [:timeout, :idle_timeout]
  @options [:name] ++ @timeouts ++ [:principal_key, :label, :ref_key, :conflict]
  @conflicts [:merge, :last, :error]

  # The options of Plug.Session, Plug.Session.COOKIE and Plug.Session.ETS, and of Phoenix's sockets.
  @ignored_options [:store, :key, :domain, :max_age, :path, :secure, :http_only, :same_site, :extra] ++
                     [:encryption_salt, :signing_salt, :key_iterations, :key_length, :key_digest, :serializer, :log] ++
                     [:rotating_options, :secret_key_base, :table, :csrf_token_key]

  @random_bytes 96
  @max_label_bytes 255
  @ended "the session has ended during the request, and nothing was stored"
  @live_socket_id "live_socket_id"
  @reauthenticated :session_server_store_reauthenticated

  ## In a supervision tree

  @doc """
  A store with a name, for a supervision tree.

    * `:name` - its name, an atom (required). A process is registered under it
    * `:url` - where the sessions are, see `SessionServerStore.Store.open/2`. Default is `"memory:"`.
      `timeout` and `idle_timeout` in the URL apply to all sessions that have none of their own. Two
      stores in the same directory, or with the same server and prefix, are one store
    * `:sweep_interval` - how often expired sessions are removed: seconds, a number with a unit such
      as `{5, :minute}`, or `:infinity` for never. Default is `60`. A plain number above 3600 is
      refused, because it is most likely in milliseconds
    * `:pubsub` - the name of a `Phoenix.PubSub`, on which the sockets of a session learn at once that
      it has ended, see `SessionServerStore.LiveView`
    * `:stats_interval` - how often statistics are sent as a telemetry event, see
      `SessionServerStore.Telemetry`. Default is `60`, and `:infinity` for Redis, where they take a
      scan of all sessions

  If the store cannot be opened, the supervisor does not start, and the error names the URL's part,
  directory or file that is wrong. A store in Redis opens while its server is down.

  Sessions in memory survive the death of the store's process, of its supervisor and of its siblings.
  They end when the supervisor ends in an orderly way, as at the end of a test or when the
  application stops, or with `SessionServerStore.Store.close/1`.

  ## In tests

  Each test can have its own store, also in modules with `async: true`:

      setup do
        name = :"sessions_\#{System.unique_integer([:positive])}"
        start_supervised!({SessionServerStore, name: name, url: "memory:?clock=manual"})
        {:ok, sessions: name}
      end

      test "session expires", %{sessions: sessions} do
        {:ok, sid, _session} = Store.create(sessions, %{"user_id" => 42})
        :ok = Store.advance_clock(sessions, {11, :minute})
        assert Store.get(sessions, sid) == {:error, :not_found}
      end
  """
  @spec child_spec(keyword) :: map
  def child_spec(opts),
    do: %{id: Keyword.get(opts, :name, __MODULE__), start: {Server, :start_link, [opts]}, type: :worker}

  @doc "Starts a store with a name, linked to the calling process. The options are those of `child_spec/1`."
  @spec start_link(keyword) :: GenServer.on_start()
  defdelegate start_link(opts), to: Server

  ## Callbacks of Plug.Session.Store

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

    config = %{
      name: Arguments.store_name!(Keyword.get(opts, :name, SessionServerStore.Default)),
      timeouts: timeouts,
      principal_key: session_key(opts, :principal_key),
      label: label!(opts[:label]),
      ref_key: session_key(opts, :ref_key),
      conflict: conflict!(Keyword.get(opts, :conflict, :merge))
    }

    if config.label && !config.principal_key, do: raise(ArgumentError, ":label needs :principal_key")
    config
  end

  @doc "Reads the session of the client's id. It is `{nil, %{}}` if there is no such session."
  @spec get(conn :: term, cookie :: binary, config) :: {sid, map}
  if plug?, do: @impl(true)

  def get(_conn, sid, %{name: name} = config) when is_binary(sid) do
    case Store.read(name, sid, _peek = false) do
      {:ok, %Session{data: data} = session} when is_map(data) ->
        Request.remember(name, sid, session)
        add_ref(sid, data, config)

      {:error, :not_found} ->
        {nil, %{}}

      {:ok, _not_a_map} ->
        unreadable("it is not a map")

      {:unreadable, reason} ->
        unreadable(reason)

      {:error, error} ->
        raise error
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

  def put(conn, sid, data, config) do
    data = drop_ref(data, config)
    # Plug renews a session by `delete` and `put` without an id.
    renewed = Request.take_renewal(config.name, conn)
    read = Request.recall(config.name, sid || renewed)
    Request.forget(config.name)

    case {sid, renewed} do
      {nil, nil} -> create(conn, data, config)
      {nil, renewed} -> renew(conn, renewed, data, read, config)
      {sid, _none} -> replace(conn, sid, data, read, config)
    end
  end

  @doc "Ends a session."
  @spec delete(conn :: term, sid, config) :: :ok
  if plug?, do: @impl(true)

  def delete(conn, sid, %{name: name}) when is_binary(sid) do
    if renewing?(conn) do
      Request.begin_renewal(name, sid)
    else
      Request.forget(name)
      end_session(name, sid)
    end
  end

  def delete(_conn, _sid, _config), do: :ok

  defp renewing?(%{private: %{plug_session_info: :renew}}), do: true
  defp renewing?(_conn), do: false

  defp end_session(name, sid) do
    case Store.delete(name, sid) do
      :ok -> :ok
      {:error, :not_found} -> :ok
      {:error, %Error{} = error} -> raise error
    end
  end

  # Plug sets a cookie in any case, and needs a value for it.
  defp create(_conn, data, _config) when data == %{},
    do: Base.url_encode64(:crypto.strong_rand_bytes(@random_bytes), padding: false)

  defp create(conn, data, config) do
    case Store.create(config.name, data, options(conn, data, nil, config)) do
      {:ok, sid, _session} -> sid
      {:error, error} -> raise error
    end
  end

  defp renew(conn, sid, data, _read, config) when data == %{} do
    end_session(config.name, sid)
    create(conn, data, config)
  end

  defp renew(conn, sid, data, read, config) do
    # Without a user, a login cannot be told from other renewals.
    reauthenticated = config.principal_key == nil or conn.private[@reauthenticated] == true
    options = [{:data, data}, {:reauthenticated, reauthenticated} | options(conn, data, read, config)]

    case Store.renew(config.name, sid, options) do
      {:ok, new_sid, _session} -> new_sid
      {:error, :not_found} -> renew_ended(conn, sid, data, read, config)
      {:error, error} -> raise error
    end
  end

  # The session has ended during the request. A login makes a new one; any other renewal must not
  # bring it back after a logout.
  defp renew_ended(conn, sid, data, read, %{principal_key: key} = config) do
    if key == nil or read == nil or read.data[key] != data[key],
      do: create(conn, data, config),
      else: ended(sid)
  end

  defp replace(conn, sid, data, _read, config) when data == %{} do
    delete(conn, sid, config)
    sid
  end

  defp replace(conn, sid, data, read, config) do
    case write(conn, sid, data, read, config) do
      {:ok, _session} -> sid
      {:error, :not_found} when config.conflict == :error -> raise Error.new(:conflict, @ended)
      {:error, :not_found} -> ended(sid)
      {:error, error} -> raise error
    end
  end

  defp ended(sid) do
    Request.mark_ended(sid)
    sid
  end

  ## The session of a request

  @doc """
  The session that this request has read, with its times and without its data, or `nil`.

      session = SessionServerStore.session(conn)
      now = System.system_time(:millisecond)
      recent? = session != nil and session.authenticated_ms != nil and now - session.authenticated_ms < 600_000

  `:name` is needed only if the request has sessions of several stores. Changes of this request are not
  in it. Call it in the process of the request.
  """
  @spec session(conn, name: atom) :: Session.t() | nil when conn: struct
  def session(conn, opts \\ []) do
    with {_store, _sid, session} <- find(conn, opts), do: %{session | data: nil}
  end

  @doc """
  The reference of the session that this request has read, for a comparison with those of
  `SessionServerStore.Store.list/2`; `nil` without a session. The options are those of `session/2`.
  """
  @spec ref(conn, name: atom) :: Store.ref() | nil when conn: struct
  def ref(conn, opts \\ []) do
    with {store, sid, _session} <- find(conn, opts) do
      case Store.ref(store, sid) do
        {:ok, ref} -> ref
        {:error, :not_found} -> nil
        {:error, error} -> raise error
      end
    end
  end

  defp find(conn, opts) do
    name = Arguments.option!(opts, :name, nil, &is_atom/1)
    sessions = Request.sessions(conn)

    case if(name, do: List.keyfind(sessions, name, 0, []) |> List.wrap(), else: sessions) do
      [] -> nil
      [session] -> session
      _several -> raise ArgumentError, "the request has sessions of several stores: give the option :name"
    end
  end

  @doc """
  Marks that the user has proved their identity again, and renews the session: both its timeouts
  restart, and its `authenticated_ms` is now.

      if valid_password?(user, password), do: SessionServerStore.reauthenticated(conn)
  """
  @spec reauthenticated(conn) :: conn when conn: struct
  def reauthenticated(conn) do
    conn
    |> Plug.Conn.put_private(@reauthenticated, true)
    |> Plug.Conn.configure_session(renew: true)
  end

  # What LiveViews and other sockets know of the session. It is not stored.
  defp add_ref(sid, data, %{ref_key: nil}), do: {sid, data}

  defp add_ref(sid, data, config) do
    case Store.ref(config.name, sid) do
      {:ok, ref} ->
        {sid, data |> Map.put(config.ref_key, ref) |> Map.put_new(@live_socket_id, Disconnect.topic(ref))}

      {:error, :not_found} ->
        {nil, %{}}

      {:error, error} ->
        raise error
    end
  end

  defp drop_ref(data, %{ref_key: nil}), do: data

  defp drop_ref(data, config) do
    data = Map.delete(data, config.ref_key)
    if Disconnect.topic?(data[@live_socket_id]), do: Map.delete(data, @live_socket_id), else: data
  end

  ## Parallel requests

  defp write(conn, sid, data, %Session{} = read, %{conflict: conflict} = config) when conflict != :last do
    options = options(conn, data, read, config)

    case Store.put_if(config.name, sid, read.version, data, options) do
      {:error, %Error{reason: :conflict}} when conflict == :merge -> merge(sid, read.data, data, options, config)
      result -> result
    end
  end

  defp write(conn, sid, data, read, config),
    do: Store.put(config.name, sid, data, options(conn, data, read, config))

  # Applies what this request has changed to what is stored now.
  defp merge(sid, before, data, options, %{principal_key: key} = config) do
    set = for {key, value} <- data, not match?(%{^key => ^value}, before), into: %{}, do: {key, value}
    deleted = Map.keys(before) -- Map.keys(data)
    # The user is that of the data.
    options = if before[key] == data[key], do: Keyword.drop(options, [:principal, :label]), else: options
    apply_changes = fn current -> current |> Map.drop(deleted) |> Map.merge(set) |> throw_if_empty() end

    try do
      Store.update(config.name, sid, apply_changes, options)
    catch
      :empty -> with :ok <- Store.delete(config.name, sid), do: {:ok, :ended}
    end
  end

  # An empty session is not stored.
  defp throw_if_empty(data), do: if(data == %{}, do: throw(:empty), else: data)

  ## Options

  defp unknown_option(name) do
    "unknown option #{inspect(name)}: the options of SessionServerStore are #{Enum.map_join(@options, ", ", &inspect/1)}; " <>
      "limits and where the sessions are kept are set by the :url of the store"
  end

  # Session keys are strings: Plug.Conn.put_session/3 converts atoms. nil and booleans are atoms,
  # but no names.
  defp session_key(opts, option) do
    case Keyword.fetch(opts, option) do
      :error ->
        nil

      {:ok, key} when is_binary(key) and key != "" ->
        key

      {:ok, key} when is_atom(key) and key not in [nil, true, false] ->
        Atom.to_string(key)

      {:ok, other} ->
        example = if option == :principal_key, do: "user_id", else: "session_ref"

        raise ArgumentError,
              "#{inspect(option)} must be a session key such as #{inspect(example)} or :#{example}, got: #{inspect(other)}"
    end
  end

  defp label!(nil), do: nil
  defp label!({module, function} = label) when is_atom(module) and is_atom(function), do: label
  defp label!(other), do: raise(ArgumentError, ":label must be {module, function}, got: #{inspect(other)}")

  defp conflict!(conflict) when conflict in @conflicts, do: conflict

  defp conflict!(other) do
    raise ArgumentError,
          ":conflict must be #{Enum.map_join(@conflicts, " or ", &inspect/1)}, got: #{inspect(other)}"
  end

  # The options of a write: `read` is the session as this request has read it, or nil.
  defp options(_conn, _data, _read, %{principal_key: nil} = config), do: config.timeouts

  defp options(conn, data, read, %{principal_key: key} = config) do
    case principal!(key, data[key]) do
      nil -> [{:principal, nil} | config.timeouts]
      principal -> [{:principal, principal} | label(conn, data[key], read, config) ++ config.timeouts]
    end
  end

  # Only at a login: otherwise the session keeps its label.
  defp label(_conn, _user, _read, %{label: nil}), do: []

  defp label(_conn, user, %Session{data: before}, config) when :erlang.map_get(config.principal_key, before) == user,
    do: []

  defp label(conn, _user, _read, %{label: {module, function}}) do
    case apply(module, function, [conn]) do
      nil -> []
      label when is_binary(label) -> [label: cut(label, @max_label_bytes)]
      other -> Arguments.invalid!("the function of :label must return a string or nil", other)
    end
  end

  # Between two characters.
  defp cut(text, max) when byte_size(text) <= max, do: text

  defp cut(text, max) do
    part = binary_part(text, 0, max)
    if String.valid?(part) or not String.valid?(text), do: part, else: cut(text, max - 1)
  end

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
