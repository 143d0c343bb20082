# The typed API: checks arguments, converts data to payloads and answers to structs. Must not decide
# any rule of the store: those are in the native library.
defmodule SessionServerStore.Store do
  @moduledoc """
  Sessions without Plug: create, read, change, renew, end, list and revoke them.

      iex> alias SessionServerStore.Store
      iex> {:ok, visitor, _session} = Store.create(%{cart: [42]})
      iex> {:ok, sid, _session} = Store.renew(visitor, principal: "alice", label: "Firefox on Linux")
      iex> Store.get(visitor)
      {:error, :not_found}
      iex> {:ok, session} = Store.update(sid, &Map.put(&1, :theme, "dark"))
      iex> session.data
      %{cart: [42], theme: "dark"}
      iex> {:ok, [info]} = Store.list("alice")
      iex> info.label
      "Firefox on Linux"
      iex> Store.delete_ref(info.ref, principal: "alice")
      :ok

  Every function takes a store as its first argument: its name (`SessionServerStore.child_spec/1`),
  or what `open/2` returned. Without it, it uses the default store
  (`SessionServerStore.Application`). Any process can call them at any time.

      Store.list(MyApp.Sessions, user_id)

  ## Results

    * `:ok`, `{:ok, ...}`
    * `{:error, :not_found}` - no such session. Unknown, malformed, expired and deleted ids are not
      told apart
    * `{:error, %SessionServerStore.Error{}}` - every other failure

  Wrong types and unknown options raise an `ArgumentError`.

  Every function has a variant with a `!` that returns the result without `:ok`, and raises a
  `SessionServerStore.Error` instead of returning one. For a missing session its reason is
  `:not_found`.

  ## Data

  Data is any term except an empty one (`nil`, `%{}`, `[]`, `{}`, `""`), and is stored in the
  external term format. With `lmdb:` or `redis:` and `seal=off`, other programs may have written the
  stored bytes. Data that holds functions or unknown atoms, or is compressed, is then refused with
  the reason `:corrupt`. A store that is opened with `raw: true` keeps binaries as they are, also
  empty ones.

  ## Options

  `create`, `put`, `put_if`, `update` and `renew` take:

    * `:timeout` - how long after its creation the session expires, however much it is used
    * `:idle_timeout` - how long after its last use the session expires
    * `:principal` - the user to whom the session belongs, for `list` and `revoke`: a string, or an
      integer, which stands for its digits (`42` is `"42"`). `nil` is no user
    * `:label` - with a principal only: up to 255 bytes that `list` shows, such as the device and how
      the user logged in. It stays while the principal stays, and `""` takes it away. Stores that
      seal their data encrypt it

  A duration is a number of seconds, a number with a unit such as `{12, :hour}` (`:millisecond`,
  `:second`, `:minute`, `:hour`, `:day` or `:week`), or `:infinity`. `0` expires at once. A plain
  number above 366 days is refused, because it is most likely in milliseconds. Without the option a
  new session has the timeouts of its store, and an existing session keeps those that it has.
  `:inherit` gives an existing session the timeout of its store again.
  """

  alias SessionServerStore.{Arguments, Disconnect, Dispatch, Duration, Error, Native, Payload, Session, SessionInfo}
  alias SessionServerStore.Telemetry

  @derive {Inspect, only: [:name, :engine, :raw]}
  @enforce_keys [:handle, :name, :engine, :raw, :pubsub]
  defstruct @enforce_keys

  @opaque opened :: %__MODULE__{
            handle: Native.handle(),
            name: atom,
            engine: :memory | :lmdb | :redis | nil,
            raw: boolean,
            pubsub: atom
          }
  @typedoc "The name of a store (`SessionServerStore.child_spec/1`), or what `open/2` returned."
  @type t :: opened | (name :: atom)
  @type sid :: binary
  @type ref :: <<_::256>>
  @type principal :: binary | integer
  @type timeout_option :: Duration.t() | :inherit
  @type option ::
          {:timeout, timeout_option}
          | {:idle_timeout, timeout_option}
          | {:principal, principal | nil}
          | {:label, binary | nil}
  @type renew_option :: option | {:data, term} | {:grace, Duration.t()} | {:reauthenticated, boolean}
  @type missing :: {:error, :not_found}
  @type failure :: {:error, Error.t()}

  ## The store

  @doc """
  Opens a store.

    * `"memory:"` - a new store in this VM
    * `"memory:NAME"` - a store in this VM that every caller with this name shares
    * `"lmdb:/dir"` - a store in a directory, which the processes of one host share
    * `"redis://host"` - a store in a Redis or Valkey server, which several hosts share

  The query of the URL sets timeouts and limits:
  `"memory:?timeout=3h&idle_timeout=10m&max_sessions=100000"`.

  The store stays open until `close/1`, or until no process holds the returned term. Keep the term
  in the state of a process or in an ETS table. A persistent term is safe only if it is never
  erased: OTP 25 then frees the store while processes still hold the term.

  With `raw: true` data is a binary that is stored as it is.

      iex> {:error, error} = SessionServerStore.Store.open("memory:?timout=3h")
      iex> {error.reason, error.code}
      {:url, -9}
  """
  @spec open(url :: String.t(), raw: boolean) :: {:ok, t} | failure
  def open(url, opts \\ []) do
    raw = Arguments.option!(opts, :raw, false, &is_boolean/1)

    with {:ok, handle} <- result(Native.open(Arguments.url!(url))) do
      {:ok, %__MODULE__{handle: handle, name: nil, engine: engine(url), raw: raw, pubsub: nil}}
    end
  end

  @doc """
  Closes a store. Every later call on it fails with the reason `:handle`; calls in progress finish.
  """
  @spec close(t) :: :ok | failure
  def close(store), do: result(Native.close(handle(store)))

  @default SessionServerStore.Default

  @doc """
  The default store, see `SessionServerStore.Application`. Its name is `#{inspect(@default)}`.
  """
  @spec default :: t
  def default, do: named(@default)

  @doc false
  # Its persistent term holds no reference, so it can be replaced at any time.
  @spec register(name :: atom, url :: String.t(), pubsub :: atom) :: opened
  def register(name, url, pubsub) do
    store = %__MODULE__{handle: name, name: name, engine: engine(url), raw: false, pubsub: pubsub}
    :persistent_term.put({__MODULE__, name}, store)
    store
  end

  @doc false
  # Where sockets wait for the end of their session.
  @spec pubsub(t) :: atom
  def pubsub(store), do: store!(store).pubsub

  # The calls on a store that is not running return an error that says so.
  defp named(name) do
    unknown = %__MODULE__{handle: name, name: name, engine: nil, raw: false, pubsub: nil}
    :persistent_term.get({__MODULE__, name}, unknown)
  end

  # "memory:", "lmdb:", and "redis:" with its variants, such as "redis+cluster:".
  defp engine("memory:" <> _), do: :memory
  defp engine("lmdb:" <> _), do: :lmdb
  defp engine("redis" <> _), do: :redis
  defp engine(_other), do: nil

  ## One session

  # Without a store, the other arguments arrive one place to the left. The second clause of each
  # function moves them.
  defguardp is_store(term) when is_struct(term, __MODULE__) or (is_atom(term) and term not in [nil, true, false])

  @doc """
  Stores a new session. Returns its id for the client: 128 characters that cannot be guessed.

      create(data), create(data, opts), create(store, data), create(store, data, opts)
  """
  @spec create(t | data, data | [option], [option]) :: {:ok, sid, Session.t()} | failure when data: term
  def create(store \\ default(), data, opts \\ [])

  def create(store, data, opts) when is_store(store) do
    store = store!(store)
    options = Arguments.session_options!(opts, :keep)

    span(:create, store, fn ->
      with {:ok, payload} <- Payload.encode(data, store.raw),
           {:ok, {sid, meta}} <- Dispatch.create(store.handle, payload, options) do
        {:ok, sid, Session.new(data, meta)}
      end
    end)
  end

  def create(data, opts, []), do: create(default(), data, opts)
  def create(store, _data, _opts), do: not_a_store!(store)

  @doc """
  Reads a session. This counts as a use, which restarts the idle timeout, unless `peek: true` is
  given.

      get(sid), get(sid, opts), get(store, sid), get(store, sid, opts)
  """
  @spec get(t | sid, sid | [peek: boolean], peek: boolean) :: {:ok, Session.t()} | missing | failure
  def get(store \\ default(), sid, opts \\ [])

  def get(store, sid, opts) when is_store(store) do
    sid = Arguments.sid!(sid)
    peek = Arguments.option!(opts, :peek, false, &is_boolean/1)

    case read(store, sid, peek) do
      {:unreadable, reason} -> {:error, Error.new(:corrupt, reason)}
      result -> result
    end
  end

  def get(sid, opts, []), do: get(default(), sid, opts)
  def get(store, _sid, _opts), do: not_a_store!(store)

  @doc false
  # `:unreadable` is a payload that is stored correctly but is not data of Elixir.
  @spec read(t, sid, boolean) :: {:ok, Session.t()} | {:unreadable, reason :: String.t()} | missing | failure
  def read(store, sid, peek) do
    store = store!(store)

    span(:get, store, fn ->
      with {:ok, {payload, meta, authentic}} <- Dispatch.get(store.handle, sid, peek),
           {:ok, data} <- Payload.decode(payload, authentic, store.raw) do
        {:ok, Session.new(data, meta)}
      end
    end)
  end

  @doc "Reads a session without using it: `get` with `peek: true`."
  @spec peek(t, sid) :: {:ok, Session.t()} | missing | failure
  def peek(store \\ default(), sid), do: get(store!(store), sid, peek: true)

  @doc """
  Replaces the data of a session. Never creates a session, and never brings one back that has ended.

      put(sid, data), put(sid, data, opts), put(store, sid, data), put(store, sid, data, opts)
  """
  @spec put(t | sid, sid | data, data | [option], [option]) :: {:ok, Session.t()} | missing | failure when data: term
  def put(store \\ default(), sid, data, opts \\ [])

  def put(store, sid, data, opts) when is_store(store),
    do: write(store!(store), Arguments.sid!(sid), :any, data, Arguments.session_options!(opts, :clear))

  def put(sid, data, opts, []), do: put(default(), sid, data, opts)
  def put(store, _sid, _data, _opts), do: not_a_store!(store)

  @doc """
  Replaces the data of a session only if it still has the version that was read; the error's reason
  is `:conflict` if not.

      put_if(sid, version, data), put_if(sid, version, data, opts),
      put_if(store, sid, version, data), put_if(store, sid, version, data, opts)
  """
  @spec put_if(t | sid, sid | version, version | data, data | [option], [option]) ::
          {:ok, Session.t()} | missing | failure
        when version: non_neg_integer, data: term
  def put_if(store \\ default(), sid, version, data, opts \\ [])

  def put_if(store, sid, version, data, opts) when is_store(store) do
    version = Arguments.version!(version)
    write(store!(store), Arguments.sid!(sid), version, data, Arguments.session_options!(opts, :clear))
  end

  def put_if(sid, version, data, opts, []), do: put_if(default(), sid, version, data, opts)
  def put_if(store, _sid, _version, _data, _opts), do: not_a_store!(store)

  defp write(store, sid, version, data, options) do
    span(:put, store, fn ->
      with {:ok, payload} <- Payload.encode(data, store.raw),
           {:ok, meta} <- write_payload(store, sid, version, payload, options) do
        {:ok, Session.new(data, meta)}
      end
    end)
  end

  defp write_payload(store, sid, :any, payload, options), do: Dispatch.put(store.handle, sid, payload, options)

  defp write_payload(store, sid, version, payload, options),
    do: Dispatch.put_if(store.handle, sid, version, payload, options)

  @update_attempts 20

  @doc """
  Changes the data of a session: reads it, applies `fun` to it, and writes the result with `put_if`.

  If another request wrote the session in between, `fun` is applied again to the new data, up to
  #{@update_attempts} times with a short random pause between them. After that the error's reason is
  `:conflict`. So `fun` should have no side effects. The read does not count as a use; the write
  does.

      update(sid, fun), update(sid, fun, opts), update(store, sid, fun), update(store, sid, fun, opts)

      iex> alias SessionServerStore.Store
      iex> {:ok, sid, _session} = Store.create(%{visits: 1})
      iex> {:ok, session} = Store.update(sid, fn data -> %{data | visits: data.visits + 1} end)
      iex> session.data
      %{visits: 2}
  """
  @spec update(t | sid, sid | (data -> data), (data -> data) | [option], [option]) ::
          {:ok, Session.t()} | missing | failure
        when data: term
  def update(store \\ default(), sid, fun, opts \\ [])

  def update(store, sid, fun, opts) when is_store(store) and is_function(fun, 1),
    do: attempt_update(store!(store), Arguments.sid!(sid), fun, Arguments.session_options!(opts, :clear), 1)

  def update(store, _sid, fun, _opts) when is_store(store),
    do: Arguments.invalid!("fun must be a function of one argument", fun)

  def update(sid, fun, opts, []), do: update(default(), sid, fun, opts)
  def update(store, _sid, _fun, _opts), do: not_a_store!(store)

  defp attempt_update(store, sid, fun, options, attempt) do
    with {:ok, session} <- peek(store, sid),
         {:error, %Error{reason: :conflict}} when attempt < @update_attempts <-
           write(store, sid, session.version, fun.(session.data), options) do
      Process.sleep(:rand.uniform(attempt) - 1)
      attempt_update(store, sid, fun, options, attempt + 1)
    end
  end

  @doc "Uses a session without reading it: restarts the idle timeout."
  @spec touch(t, sid) :: {:ok, Session.t()} | missing | failure
  def touch(store \\ default(), sid) do
    store = store!(store)
    sid = Arguments.sid!(sid)

    span(:touch, store, fn ->
      with {:ok, meta} <- Dispatch.touch(store.handle, sid), do: {:ok, Session.new(nil, meta)}
    end)
  end

  @doc """
  Gives a session a new id in one step; the old id ends. Call this at every login.

    * A *login* gives the session another `:principal` than it had, or its first one. Both timeouts
      restart, and `authenticated_ms` is now
    * With `reauthenticated: true` the user has proved their identity again, with a password or a
      passkey. The same happens
    * Otherwise the absolute deadline and `authenticated_ms` stay

  The creation time always stays. Takes the options of `create`, and:

    * `:data` - new data
    * `:reauthenticated` - see above
    * `:grace` - how long the old id can still be read, but not written: at most an hour as a plain
      number of seconds. For ids that rotate; with a login or `reauthenticated: true` the error's
      reason is `:invalid`, because an attacker may know the old id

  The returned session has its `:data` only if the option was given.

      renew(sid), renew(sid, opts), renew(store, sid), renew(store, sid, opts)
  """
  @spec renew(t | sid, sid | [renew_option], [renew_option]) :: {:ok, sid, Session.t()} | missing | failure
  def renew(store \\ default(), sid, opts \\ [])

  def renew(store, sid, opts) when is_store(store) do
    store = store!(store)
    sid = Arguments.sid!(sid)
    {new_data, opts} = opts |> Arguments.keyword!() |> Keyword.split([:data])
    options = Arguments.session_options!(opts, :clear)

    disconnecting_session(store, sid, fn ->
      span(:renew, store, fn ->
        with {:ok, payload} <- encode_new_data(new_data, store.raw),
             {:ok, {new_sid, meta}} <- Native.renew(store.handle, sid, payload, options) do
          {:ok, new_sid, Session.new(new_data[:data], meta)}
        end
      end)
    end)
  end

  def renew(sid, opts, []), do: renew(default(), sid, opts)
  def renew(store, _sid, _opts), do: not_a_store!(store)

  defp encode_new_data([], _raw), do: {:ok, nil}
  defp encode_new_data([{:data, data} | _], raw), do: Payload.encode(data, raw)

  @doc "Ends a session."
  @spec delete(t, sid) :: :ok | missing | failure
  def delete(store \\ default(), sid) do
    store = store!(store)
    sid = Arguments.sid!(sid)
    disconnecting_session(store, sid, fn -> span(:delete, store, fn -> Dispatch.delete(store.handle, sid) end) end)
  end

  @doc """
  The reference of a session: 32 bytes that name it in `list/2`, and to `touch_ref/3` and
  `delete_ref/3`. It gives no access to the data, so it need not be kept secret like the id.
  """
  @spec ref(t, sid) :: {:ok, ref} | missing | failure
  def ref(store \\ default(), sid) do
    store = store!(store)
    sid = Arguments.sid!(sid)
    span(:ref, store, fn -> Dispatch.reference(store.handle, sid) end)
  end

  @doc """
  Uses the session with this reference: restarts the idle timeout. With `peek: true` it is not used,
  and the result says whether it is still alive.

  For long-lived connections, which do not hold the id. The reference of a session that was renewed is
  `:not_found`.

      touch_ref(ref), touch_ref(ref, opts), touch_ref(store, ref), touch_ref(store, ref, opts)
  """
  @spec touch_ref(t | ref, ref | [peek: boolean], peek: boolean) :: {:ok, Session.t()} | missing | failure
  def touch_ref(store \\ default(), ref, opts \\ [])

  def touch_ref(store, ref, opts) when is_store(store) do
    store = store!(store)
    ref = Arguments.ref!(ref)
    peek = Arguments.option!(opts, :peek, false, &is_boolean/1)

    span(:touch, store, fn ->
      with {:ok, meta} <- Dispatch.touch_ref(store.handle, ref, peek), do: {:ok, Session.new(nil, meta)}
    end)
  end

  def touch_ref(ref, opts, []), do: touch_ref(default(), ref, opts)
  def touch_ref(store, _ref, _opts), do: not_a_store!(store)

  @doc """
  Ends the session with this reference. On behalf of a user give the `:principal`: then only a session
  of theirs ends, and any other is `:not_found`.

      delete_ref(ref), delete_ref(ref, opts), delete_ref(store, ref), delete_ref(store, ref, opts)
  """
  @spec delete_ref(t | ref, ref | [principal: principal], principal: principal) :: :ok | missing | failure
  def delete_ref(store \\ default(), ref, opts \\ [])

  def delete_ref(store, ref, opts) when is_store(store) do
    store = store!(store)
    ref = Arguments.ref!(ref)
    principal = Arguments.owner!(opts)

    with :ok <- span(:delete, store, fn -> Dispatch.delete_ref(store.handle, ref, principal) end),
         do: disconnect(store, [ref])
  end

  def delete_ref(ref, opts, []), do: delete_ref(default(), ref, opts)
  def delete_ref(store, _ref, _opts), do: not_a_store!(store)

  ## All sessions of a principal

  @doc "The sessions of a principal, the oldest first."
  @spec list(t, principal) :: {:ok, [SessionInfo.t()]} | failure
  def list(store \\ default(), principal) do
    store = store!(store)
    principal = Arguments.principal!(principal)

    span(:list, store, fn ->
      with {:ok, entries} <- Native.list(store.handle, principal), do: {:ok, Enum.map(entries, &SessionInfo.new/1)}
    end)
  end

  @doc """
  Ends all sessions of a principal, or all except the one with the id `:except`. Returns how many
  have ended.

      revoke(principal), revoke(principal, opts), revoke(store, principal), revoke(store, principal, opts)
  """
  @spec revoke(t | principal, principal | [except: sid | nil], except: sid | nil) ::
          {:ok, non_neg_integer} | failure
  def revoke(store \\ default(), principal, opts \\ [])

  def revoke(store, principal, opts) when is_store(store) do
    store = store!(store)
    principal = Arguments.principal!(principal)
    except = Arguments.option!(opts, :except, nil, &(is_nil(&1) or is_binary(&1)))
    refs = refs(store, principal, except)

    with {:ok, _count} = revoked <- span(:revoke, store, fn -> Native.revoke(store.handle, principal, except) end) do
      disconnect(store, refs)
      revoked
    end
  end

  def revoke(principal, opts, []), do: revoke(default(), principal, opts)
  def revoke(store, _principal, _opts), do: not_a_store!(store)

  @doc """
  Ends all sessions of the store, after an incident such as a leaked key. Returns how many have ended.
  """
  @spec revoke_all(t) :: {:ok, non_neg_integer} | failure
  def revoke_all(store \\ default()) do
    store = store!(store)

    with {:ok, _count} = revoked <- span(:revoke_all, store, fn -> Native.revoke_all(store.handle) end) do
      if store.pubsub, do: Disconnect.broadcast(store.pubsub, Disconnect.topic_of_all(store.name))
      revoked
    end
  end

  ## Maintenance

  @doc """
  Removes up to `max` expired sessions. Returns how many; fewer than `max` means that none is left.

  The process of a store with a name does this on a timer. For other stores, call it from time to
  time.
  """
  @spec sweep(t | (max :: non_neg_integer), max :: non_neg_integer) :: {:ok, non_neg_integer} | failure
  def sweep(store \\ default(), max \\ 1_000)

  def sweep(store, max) when is_store(store) do
    store = store!(store)
    max = Arguments.max!(max)
    span(:sweep, store, fn -> Native.sweep(store.handle, max) end)
  end

  def sweep(max, 1_000), do: sweep(default(), max)
  def sweep(store, _max), do: not_a_store!(store)

  @doc "Counters. `:sessions` and `:bytes` are current values; all others count since the store was opened."
  @spec stats(t) :: {:ok, %{required(atom) => non_neg_integer}} | failure
  def stats(store \\ default()) do
    with {:ok, stats} <- result(Dispatch.stats(handle(store))), do: {:ok, Map.new(stats)}
  end

  @doc false
  @spec report_stats(t) :: :ok
  def report_stats(store) do
    store = store!(store)

    with true <- Telemetry.enabled?(), {:ok, stats} <- stats(store) do
      Telemetry.stats(store.name, store.engine, stats)
    else
      _not_enabled_or_failed -> :ok
    end
  end

  @doc "Moves the clock of a store that was opened with `clock=manual`, for tests."
  @spec advance_clock(t, Duration.t()) :: :ok | failure
  def advance_clock(store, duration) do
    case Duration.to_ms(duration) do
      {:ok, ms} when is_integer(ms) -> result(Native.advance_clock(handle(store), ms))
      _ -> Arguments.invalid!("the clock advances by seconds or {number, unit}", duration)
    end
  end

  ## Sockets

  # Runs a function that ends the session of this id.
  defp disconnecting_session(%{pubsub: nil}, _sid, fun), do: fun.()

  defp disconnecting_session(store, sid, fun) do
    ref = Dispatch.reference(store.handle, sid)
    result = fun.()
    if match?({:ok, _}, ref) and not match?({:error, _}, result), do: disconnect(store, [elem(ref, 1)])
    result
  end

  # The references of the sessions that `revoke` is about to end.
  defp refs(%{pubsub: nil}, _principal, _except), do: []

  defp refs(store, principal, except) do
    spared = with sid when sid != nil <- except, {:ok, ref} <- Dispatch.reference(store.handle, sid), do: ref

    case Native.list(store.handle, principal) do
      {:ok, entries} -> for entry <- entries, elem(entry, 0) != spared, do: elem(entry, 0)
      {:error, _} -> []
    end
  end

  defp disconnect(%{pubsub: nil}, _refs), do: :ok
  defp disconnect(store, refs), do: Enum.each(refs, &Disconnect.broadcast(store.pubsub, Disconnect.topic(&1)))

  ## Variants that raise

  variants = [
    open: 1..2,
    close: 1..1,
    create: 1..3,
    get: 1..3,
    peek: 1..2,
    put: 2..4,
    put_if: 3..5,
    update: 2..4,
    touch: 1..2,
    renew: 1..3,
    delete: 1..2,
    ref: 1..2,
    touch_ref: 1..3,
    delete_ref: 1..3,
    list: 1..2,
    revoke: 1..3,
    revoke_all: 0..1,
    sweep: 0..2,
    stats: 0..1,
    advance_clock: 2..2
  ]

  for {name, arities} <- variants, arity <- arities do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    @doc "`#{name}/#{arity}`, but returns the bare result and raises a `SessionServerStore.Error`."
    def unquote(:"#{name}!")(unquote_splicing(arguments)),
      do: bare!(unquote(name)(unquote_splicing(arguments)))
  end

  defp bare!(:ok), do: :ok
  defp bare!({:ok, value}), do: value
  defp bare!({:ok, sid, session}), do: {sid, session}
  defp bare!({:error, :not_found}), do: raise(Error.new(:not_found, "no such session"))
  defp bare!({:error, error}), do: raise(error)

  ## Stores and results

  defp handle(store), do: store!(store).handle

  defp store!(%__MODULE__{} = store), do: store
  defp store!(name) when is_store(name), do: named(name)
  defp store!(other), do: not_a_store!(other)

  @spec not_a_store!(term) :: no_return
  defp not_a_store!(other),
    do: Arguments.invalid!("the store must be the name of one, or one that open/2 returned", other)

  defp span(operation, store, fun), do: Telemetry.span(operation, store.name, store.engine, fn -> result(fun.()) end)

  defp result({:error, {reason, code, message}}), do: {:error, Error.new(reason, code, message)}
  defp result(other), do: other
end
