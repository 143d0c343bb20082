# The typed API: checks what callers give, turns data into payloads and answers into structs. No rule of the store is
# decided here, they are all behind SessionServerStore.Native.
defmodule SessionServerStore.Store do
  @moduledoc """
  Sessions without Plug: create, read, change, renew, end, list and revoke them.

      iex> alias SessionServerStore.Store
      iex> {:ok, sid, _session} = Store.create(%{name: "Alice"}, principal: "alice")
      iex> {:ok, session} = Store.get(sid)
      iex> session.data
      %{name: "Alice"}
      iex> {:ok, new_sid, _session} = Store.renew(sid)
      iex> Store.get(sid)
      {:error, :not_found}
      iex> Store.delete(new_sid)
      :ok

  Every function works on the store of the application (`SessionServerStore.Application`), or on the one that is given
  as its first argument (`open/2`). They may be called from any process at any time.

  ## Results

  `{:ok, ...}` or `:ok`; `{:error, :not_found}` if there is no such living session: unknown, malformed, expired and
  deleted ids are all the same; `{:error, %SessionServerStore.Error{}}` for everything else. Arguments of a wrong type
  and unknown options raise.

  ## Data

  Data is any term but an empty one (`nil`, `%{}`, `[]`, `{}`, `""`): an empty session is not stored. It is kept in the
  external term format. From a store on disk that is not sealed (`lmdb:` with `seal=off`) only what is harmless is taken,
  since others may have written the file: no function, nothing compressed, and no atom that this VM does not have;
  anything else is `:corrupt`. A store that was opened with `raw: true` takes and gives binaries as they are, also empty ones.

  ## Options

  For `create`, `put`, `put_if` and `renew`:

    * `:timeout` - seconds from creation after which the session is dead, however much it is used
    * `:idle_timeout` - seconds without use after which it is dead
    * `:principal` - whose session it is: a binary such as a user id, for `list` and `revoke`. `nil` is nobody

  Timeouts are whole seconds, `{number, :millisecond}` or `:infinity`; `0` is dead at once. Without the option a new
  session follows its store, and an existing one keeps what it has.
  """

  alias SessionServerStore.{Dispatch, Duration, Error, Native, Session, SessionInfo}

  @enforce_keys [:handle, :raw]
  defstruct @enforce_keys

  @typedoc "An open store. What is in it is nobody's business but this module's."
  @type t :: %__MODULE__{handle: Native.handle(), raw: boolean}
  @type sid :: binary
  @type ref :: binary
  @type timeout_option :: non_neg_integer | {non_neg_integer, :millisecond} | :infinity
  @type option :: {:timeout, timeout_option} | {:idle_timeout, timeout_option} | {:principal, binary | nil}
  @type renew_option :: option | {:data, term} | {:grace, timeout_option}
  @type missing :: {:error, :not_found}
  @type failure :: {:error, Error.t()}

  # "The data stay as they are" is not a term that anybody can mean to store.
  @keep :"$session_server_store_keep"

  ## The store

  @doc """
  Opens a store: `"memory:"` is a new one, `"memory:NAME"` one that all who open that name share, `"lmdb:/dir"` one in a
  directory, for all processes of the host that open it.

  The URL's query sets timeouts and limits: `"memory:?timeout=3h&idle_timeout=10m&max_sessions=100000"`.
  The store lives until the last copy of the returned term is gone or it is closed. Keep the term in the state of a
  process or in an ETS table, not in a persistent term that is erased some day: OTP 25 loses count of such copies.

  With `raw: true` data are binaries, stored as they are.

      iex> {:error, error} = SessionServerStore.Store.open("memory:?timout=3h")
      iex> {error.reason, error.code}
      {:url, -9}
  """
  @spec open(url :: String.t(), raw: boolean) :: {:ok, t} | failure
  def open(url, opts \\ []) do
    raw = only_option(opts, :raw, false, &is_boolean/1)

    with {:ok, handle} <- answer(Native.open(url)), do: {:ok, %__MODULE__{handle: handle, raw: raw}}
  end

  @doc """
  Closes a store now. All later calls on it are errors with the reason `:handle`; calls in flight finish.
  """
  @spec close(t) :: :ok | failure
  def close(%__MODULE__{} = store), do: answer(Native.close(store.handle))

  @doc false
  @spec open_default(url :: String.t()) :: :ok | failure
  def open_default(url), do: answer(Native.open_application(url))

  @doc "The store of the application."
  @spec default :: t
  def default, do: %__MODULE__{handle: :application, raw: false}

  ## One session

  # A call without a store arrives here with its arguments one place to the left, and is moved to the right place.

  @doc """
  Stores a new session. Returns its id: 128 characters that nobody can guess, for the client to keep.

      create(data), create(data, opts), create(store, data), create(store, data, opts)
  """
  @spec create(t | data, data | [option], [option]) :: {:ok, sid, Session.t()} | failure when data: term
  def create(store \\ default(), data, opts \\ [])

  def create(%__MODULE__{} = store, data, opts) do
    options = options(opts, :keep)

    with {:ok, payload} <- encode(store, data),
         {:ok, {sid, meta}} <- Dispatch.create(store.handle, payload, options) do
      {:ok, sid, session(data, meta)}
    else
      error -> answer(error)
    end
  end

  def create(data, opts, []), do: create(default(), data, opts)

  @doc """
  Reads a session. This is a use of it: its idle timeout begins anew, unless `peek: true` is given.

      get(sid), get(sid, opts), get(store, sid), get(store, sid, opts)
  """
  @spec get(t | sid, sid | [peek: boolean], peek: boolean) :: {:ok, Session.t()} | missing | failure
  def get(store \\ default(), sid, opts \\ [])

  def get(%__MODULE__{} = store, sid, opts) do
    case read(store, sid, only_option(opts, :peek, false, &is_boolean/1)) do
      {:unreadable, why} -> {:error, Error.new(:corrupt, why)}
      answer -> answer
    end
  end

  def get(sid, opts, []), do: get(default(), sid, opts)

  @doc false
  # What the store holds but what is not a term of Elixir is `:unreadable`; damage is a failure of the store.
  @spec read(t, sid, boolean) :: {:ok, Session.t()} | {:unreadable, why :: String.t()} | missing | failure
  def read(%__MODULE__{} = store, sid, peek) do
    with {:ok, {payload, meta, authentic}} <- Dispatch.get(store.handle, sid, peek),
         {:ok, data} <- decode(store, payload, authentic) do
      {:ok, session(data, meta)}
    else
      error -> answer(error)
    end
  end

  @doc "Reads a session without using it: `get` with `peek: true`."
  @spec peek(t, sid) :: {:ok, Session.t()} | missing | failure
  def peek(store \\ default(), sid), do: get(store, sid, peek: true)

  @doc """
  Replaces the data of a living session. Never creates one and never brings one back.

      put(sid, data), put(sid, data, opts), put(store, sid, data), put(store, sid, data, opts)
  """
  @spec put(t | sid, sid | data, data | [option], [option]) :: {:ok, Session.t()} | missing | failure when data: term
  def put(store \\ default(), sid, data, opts \\ [])

  def put(%__MODULE__{} = store, sid, data, opts) do
    options = options(opts, :clear)

    with {:ok, payload} <- encode(store, data),
         {:ok, meta} <- Dispatch.put(store.handle, sid, payload, options) do
      {:ok, session(data, meta)}
    else
      error -> answer(error)
    end
  end

  def put(sid, data, opts, []), do: put(default(), sid, data, opts)

  @doc """
  The same, but only if the session still has the version that was read; if not, the error's reason is `:conflict`.

      put_if(sid, version, data), put_if(sid, version, data, opts),
      put_if(store, sid, version, data), put_if(store, sid, version, data, opts)
  """
  @spec put_if(t | sid, sid | version, version | data, data | [option], [option]) ::
          {:ok, Session.t()} | missing | failure
        when version: non_neg_integer, data: term
  def put_if(store \\ default(), sid, version, data, opts \\ [])

  def put_if(%__MODULE__{} = store, sid, version, data, opts) do
    options = options(opts, :clear)

    with {:ok, payload} <- encode(store, data),
         {:ok, meta} <- Dispatch.put_if(store.handle, sid, version, payload, options) do
      {:ok, session(data, meta)}
    else
      error -> answer(error)
    end
  end

  def put_if(sid, version, data, opts, []), do: put_if(default(), sid, version, data, opts)

  @doc "Uses a session without reading it: its idle timeout begins anew."
  @spec touch(t, sid) :: {:ok, Session.t()} | missing | failure
  def touch(store \\ default(), sid) do
    case Dispatch.touch(store.handle, sid) do
      {:ok, meta} -> {:ok, session(nil, meta)}
      error -> answer(error)
    end
  end

  @doc """
  Gives a session a new id, in one step; the old one is dead. Do this at every login.

  Creation time and absolute timeout stay. Besides the options of `create`:

    * `:data` - new data, if they are to change with the id
    * `:grace` - how long the old id can still be read, though never written

  The session in the answer has its `:data` only if they were given.

      renew(sid), renew(sid, opts), renew(store, sid), renew(store, sid, opts)
  """
  @spec renew(t | sid, sid | [renew_option], [renew_option]) :: {:ok, sid, Session.t()} | missing | failure
  def renew(store \\ default(), sid, opts \\ [])

  def renew(%__MODULE__{} = store, sid, opts) do
    {data, opts} = Keyword.pop(opts, :data, @keep)
    options = options(opts, :clear)

    with {:ok, payload} <- encode(store, data),
         {:ok, {new_sid, meta}} <- Native.renew(store.handle, sid, payload, options) do
      {:ok, new_sid, session(if(data != @keep, do: data), meta)}
    else
      error -> answer(error)
    end
  end

  def renew(sid, opts, []), do: renew(default(), sid, opts)

  @doc "Ends a session."
  @spec delete(t, sid) :: :ok | missing | failure
  def delete(store \\ default(), sid), do: answer(Dispatch.delete(store.handle, sid))

  @doc "32 bytes that name a session to `delete_ref/2`, as in `list/2`. They are no secret like the id."
  @spec ref(t, sid) :: {:ok, ref} | missing | failure
  def ref(store \\ default(), sid), do: answer(Dispatch.reference(store.handle, sid))

  @doc "Ends the session that a reference names."
  @spec delete_ref(t, ref) :: :ok | missing | failure
  def delete_ref(store \\ default(), ref), do: answer(Dispatch.delete_ref(store.handle, ref))

  ## All of somebody's sessions

  @doc "The living sessions of a principal, the oldest first."
  @spec list(t, principal :: binary) :: {:ok, [SessionInfo.t()]} | failure
  def list(store \\ default(), principal) do
    with {:ok, entries} <- answer(Native.list(store.handle, principal)) do
      {:ok, Enum.map(entries, &info/1)}
    end
  end

  @doc """
  Ends all sessions of a principal, or all but the one with the id `:except`. Returns how many.

      revoke(principal), revoke(principal, opts), revoke(store, principal), revoke(store, principal, opts)
  """
  @spec revoke(t | (principal :: binary), principal :: binary | [except: sid | nil], except: sid | nil) ::
          {:ok, non_neg_integer} | failure
  def revoke(store \\ default(), principal, opts \\ [])

  def revoke(%__MODULE__{} = store, principal, opts) do
    except = only_option(opts, :except, nil, &(is_nil(&1) or is_binary(&1)))
    answer(Native.revoke(store.handle, principal, except))
  end

  def revoke(principal, opts, []), do: revoke(default(), principal, opts)

  ## Housekeeping

  @doc """
  Removes expired sessions, at most `max` of them. Returns how many; fewer than `max` means that none is left.

  The application does this by itself; a store of your own wants it from time to time.
  """
  @spec sweep(t | (max :: non_neg_integer), max :: non_neg_integer) :: {:ok, non_neg_integer} | failure
  def sweep(store \\ default(), max \\ 1_000)
  def sweep(%__MODULE__{} = store, max), do: answer(Native.sweep(store.handle, max))
  def sweep(max, _) when is_integer(max), do: sweep(default(), max)

  @doc "Counters: `:sessions` and `:bytes` as they are now, all others since the store was opened."
  @spec stats(t) :: {:ok, %{required(atom) => non_neg_integer}} | failure
  def stats(store \\ default()) do
    with {:ok, stats} <- answer(Dispatch.stats(store.handle)), do: {:ok, Map.new(stats)}
  end

  @doc """
  Moves the clock of a store that was opened with `clock=manual`, for tests: seconds or `{number, :millisecond}`.
  """
  @spec advance_clock(t, integer | {integer, :millisecond}) :: :ok | failure
  def advance_clock(store, span) do
    case Duration.to_ms(span) do
      {:ok, ms} -> answer(Native.advance_clock(store.handle, ms))
      :error -> raise ArgumentError, "not a span of time: #{inspect(span)}"
    end
  end

  ## Between terms and payloads

  defp encode(_store, @keep), do: {:ok, nil}
  defp encode(%{raw: true}, data) when is_binary(data), do: {:ok, data}

  defp encode(%{raw: true}, _data), do: raise(ArgumentError, "a store with raw: true takes binaries")

  defp encode(_store, data) when data in [nil, [], {}, ""] or data == %{},
    do: {:error, Error.new(:invalid, "an empty session is not stored")}

  defp encode(_store, data), do: {:ok, :erlang.term_to_binary(data)}

  defp decode(%{raw: true}, payload, _authentic), do: {:ok, payload}

  # Written by this VM, or sealed: [:safe] (no new atoms) would protect nobody, and refuse atoms that are not loaded yet.
  defp decode(_store, payload, true) do
    {:ok, :erlang.binary_to_term(payload)}
  rescue
    ArgumentError -> {:unreadable, "the stored data is not in the external term format"}
  end

  # A file that others may have written. Compressed, a few bytes could become more than there is memory for; a function
  # would be run by whoever takes it for a list.
  defp decode(_store, <<131, ?P, _::binary>>, false), do: {:unreadable, "the stored data is compressed"}

  defp decode(_store, payload, false) do
    data = :erlang.binary_to_term(payload, [:safe])
    if executable?(data), do: {:unreadable, "the stored data holds a function"}, else: {:ok, data}
  rescue
    ArgumentError -> {:unreadable, "the stored data is not in the external term format, or holds unknown atoms"}
  end

  defp executable?(data) when is_function(data), do: true
  defp executable?([head | tail]), do: executable?(head) or executable?(tail)
  defp executable?(data) when is_tuple(data), do: data |> Tuple.to_list() |> executable?()
  defp executable?(data) when is_map(data), do: data |> :maps.to_list() |> executable?()
  defp executable?(_data), do: false

  defp session(data, {version, created_ms, last_seen_ms, expires_ms}) do
    %Session{
      data: data,
      version: version,
      created_ms: created_ms,
      last_seen_ms: last_seen_ms,
      expires_ms: expires_ms
    }
  end

  defp info({ref, size, {version, created_ms, last_seen_ms, expires_ms}}) do
    %SessionInfo{
      ref: ref,
      size: size,
      version: version,
      created_ms: created_ms,
      last_seen_ms: last_seen_ms,
      expires_ms: expires_ms
    }
  end

  ## Options and errors

  @unchanged {:keep, :keep, :keep, 0}

  # `nobody` is what `principal: nil` means: in a new session nothing is to be cleared.
  defp options([], _nobody), do: @unchanged
  defp options(opts, nobody) when is_list(opts), do: Enum.reduce(opts, @unchanged, &option(&1, &2, nobody))
  defp options(_, _), do: raise(ArgumentError, "options must be a keyword list")

  defp option({:timeout, value}, options, _), do: put_elem(options, 0, own(:timeout, value))
  defp option({:idle_timeout, value}, options, _), do: put_elem(options, 1, own(:idle_timeout, value))
  defp option({:principal, nil}, options, nobody), do: put_elem(options, 2, nobody)
  defp option({:principal, value}, options, _) when is_binary(value), do: put_elem(options, 2, value)

  defp option({:grace, value}, options, _) do
    case Duration.to_ms(value) do
      {:ok, ms} -> put_elem(options, 3, ms)
      :error -> raise ArgumentError, ":grace is not a span of time: #{inspect(value)}"
    end
  end

  # The value is not shown: it may be somebody's data.
  defp option({name, _}, _, _), do: raise(ArgumentError, "unknown option or bad value: #{inspect(name)}")
  defp option(_, _, _), do: raise(ArgumentError, "options must be a keyword list")

  defp own(name, value), do: name |> Duration.timeout!(value) |> Duration.from_ms()

  defp only_option([], _name, default, _valid?), do: default

  defp only_option(opts, name, _default, valid?) do
    with [{^name, value}] <- opts, true <- valid?.(value) do
      value
    else
      # The value is not shown: it may be an id.
      _ -> raise ArgumentError, "unknown option or bad value: only #{inspect(name)} is known here"
    end
  end

  defp answer({:error, {reason, code, message}}),
    do: {:error, Error.new(reason, code, message)}

  defp answer(other), do: other
end
