# The functions that native/sss_nif implements, and nothing else: a loaded NIF library cannot be
# upgraded in place, so this module must contain no code that has a reason to change.
defmodule SessionServerStore.Native do
  @moduledoc false
  @compile {:autoload, false}
  @on_load :load

  @typedoc """
  The name of a store, or what `open/1` returned: that store closes when no process holds the
  reference.

  A persistent term that holds the reference must not be erased: OTP 25 then closes the store while
  processes hold it.
  """
  @type handle :: (name :: atom) | reference
  @typedoc "Times in Unix milliseconds, durations in milliseconds."
  @type meta ::
          {version :: pos_integer, created :: integer, last_seen :: integer, expires :: integer | :infinity,
           authenticated :: integer | nil, timeout :: duration, idle_timeout :: duration}
  @type duration :: non_neg_integer | :infinity
  @type entry :: {ref :: binary, size :: non_neg_integer, meta, label :: binary | nil}
  @typedoc "Durations in milliseconds. A label that is nil stays as it is."
  @type options ::
          {timeout :: timeout_change, idle_timeout :: timeout_change, principal :: :keep | :clear | binary,
           grace :: non_neg_integer, label :: binary | nil, reauthenticated :: boolean}
  @type timeout_change :: :keep | :inherit | :infinity | (ms :: non_neg_integer)
  @type failure :: {:error, :not_found | {reason :: atom, code :: neg_integer, message :: String.t()}}

  @spec load :: :ok | {:error, {atom, charlist}}
  def load, do: :erlang.load_nif(:filename.join(:code.priv_dir(:session_server_store), ~c"sss_nif"), 0)

  @spec open(url :: String.t()) :: {:ok, reference} | failure
  def open(_url), do: missing()

  # A store with a name stays open while the process that it belongs to dies and starts again. The
  # supervisor is the top of the tree that starts it.

  @spec open_named(name :: atom, url :: String.t(), supervisor :: pid) :: :ok | failure
  def open_named(_name, _url, _supervisor), do: missing()

  # The tree has stopped the process in an orderly way, and may start it again.
  @spec stopped(name :: atom, supervisor :: pid) :: :ok
  def stopped(_name, _supervisor), do: missing()

  # The tree has ended. Does nothing if it had started the process again.
  @spec close_stopped(name :: atom, supervisor :: pid) :: :ok
  def close_stopped(_name, _supervisor), do: missing()

  @spec close(handle) :: :ok | failure
  def close(_handle), do: missing()

  @spec sweep(handle, max :: non_neg_integer) :: {:ok, non_neg_integer} | failure
  def sweep(_handle, _max), do: missing()

  @spec list(handle, principal :: binary) :: {:ok, [entry]} | failure
  def list(_handle, _principal), do: missing()

  @spec revoke(handle, principal :: binary, except :: binary | nil) :: {:ok, non_neg_integer} | failure
  def revoke(_handle, _principal, _except), do: missing()

  @spec revoke_all(handle) :: {:ok, non_neg_integer} | failure
  def revoke_all(_handle), do: missing()

  @spec advance_clock(handle, ms :: integer) :: :ok | failure
  def advance_clock(_handle, _ms), do: missing()

  # One session. The first of a pair runs on the scheduler of its caller. If the call may block or
  # take too long there, it does nothing and returns `:would_block`; the second, which runs on a
  # dirty scheduler, must then be called.

  @spec create(handle, payload :: binary, options) :: {:ok, {sid :: binary, meta}} | failure | :would_block
  def create(_handle, _payload, _options), do: missing()
  def create_dirty(_handle, _payload, _options), do: missing()

  # Authentic: only a program with access to the store can have written the payload.
  @spec get(handle, sid :: binary, peek :: boolean) ::
          {:ok, {payload :: binary, meta, authentic :: boolean}} | failure | :would_block
  def get(_handle, _sid, _peek), do: missing()
  def get_dirty(_handle, _sid, _peek), do: missing()

  @spec put(handle, sid :: binary, payload :: binary, options) :: {:ok, meta} | failure | :would_block
  def put(_handle, _sid, _payload, _options), do: missing()
  def put_dirty(_handle, _sid, _payload, _options), do: missing()

  @spec put_if(handle, sid :: binary, version :: non_neg_integer, payload :: binary, options) ::
          {:ok, meta} | failure | :would_block
  def put_if(_handle, _sid, _version, _payload, _options), do: missing()
  def put_if_dirty(_handle, _sid, _version, _payload, _options), do: missing()

  @spec touch(handle, sid :: binary) :: {:ok, meta} | failure | :would_block
  def touch(_handle, _sid), do: missing()
  def touch_dirty(_handle, _sid), do: missing()

  @spec delete(handle, sid :: binary) :: :ok | failure | :would_block
  def delete(_handle, _sid), do: missing()
  def delete_dirty(_handle, _sid), do: missing()

  @spec reference(handle, sid :: binary) :: {:ok, ref :: binary} | failure | :would_block
  def reference(_handle, _sid), do: missing()
  def reference_dirty(_handle, _sid), do: missing()

  @spec touch_ref(handle, ref :: binary, peek :: boolean) :: {:ok, meta} | failure | :would_block
  def touch_ref(_handle, _ref, _peek), do: missing()
  def touch_ref_dirty(_handle, _ref, _peek), do: missing()

  @spec delete_ref(handle, ref :: binary, principal :: binary | nil) :: :ok | failure | :would_block
  def delete_ref(_handle, _ref, _principal), do: missing()
  def delete_ref_dirty(_handle, _ref, _principal), do: missing()

  @spec stats(handle) :: {:ok, keyword(non_neg_integer)} | failure | :would_block
  def stats(_handle), do: missing()
  def stats_dirty(_handle), do: missing()

  # Always on a dirty scheduler.
  @spec renew(handle, sid :: binary, payload :: binary | nil, options) :: {:ok, {sid :: binary, meta}} | failure
  def renew(_handle, _sid, _payload, _options), do: missing()

  @spec reasons :: [{reason :: atom, code :: neg_integer, text :: String.t()}]
  def reasons, do: missing()

  defp missing, do: :erlang.nif_error(:nif_not_loaded)
end
