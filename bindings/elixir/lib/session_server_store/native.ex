# The functions that native/sss_nif implements, and nothing else: a loaded NIF library cannot be upgraded in place, so
# this module must stay free of code that has a reason to change. Called by SessionServerStore.Store only.
defmodule SessionServerStore.Native do
  @moduledoc false
  @compile {:autoload, false}
  @on_load :load

  @typedoc """
  The application's store, or one that `open/1` returned: that is closed when the last copy of the reference is gone.

  Do not erase a persistent term that holds the reference: OTP 25 then takes it for gone while processes still have it.
  """
  @type handle :: :application | reference
  @typedoc "Version, then created, last seen and expires in Unix milliseconds."
  @type meta :: {version :: pos_integer, integer, integer, integer}
  @typedoc "Timeouts and grace time in milliseconds, numbers as in the C ABI."
  @type options :: {integer, integer, :keep | :clear | binary, integer}
  @type failure :: {:error, :not_found | {reason :: atom, code :: neg_integer, message :: String.t()}}

  @spec load :: :ok | {:error, {atom, charlist}}
  def load, do: :erlang.load_nif(:filename.join(:code.priv_dir(:session_server_store), 'sss_nif'), 0)

  @spec open(url :: String.t()) :: {:ok, reference} | failure
  def open(_url), do: missing()

  @spec open_application(url :: String.t()) :: :ok | failure
  def open_application(_url), do: missing()

  @spec close(handle) :: :ok | failure
  def close(_handle), do: missing()

  @spec sweep(handle, max :: non_neg_integer) :: {:ok, non_neg_integer} | failure
  def sweep(_handle, _max), do: missing()

  @spec list(handle, principal :: binary) :: {:ok, [{ref :: binary, size :: non_neg_integer, meta}]} | failure
  def list(_handle, _principal), do: missing()

  @spec revoke(handle, principal :: binary, except :: binary | nil) :: {:ok, non_neg_integer} | failure
  def revoke(_handle, _principal, _except), do: missing()

  @spec advance_clock(handle, ms :: integer) :: :ok | failure
  def advance_clock(_handle, _ms), do: missing()

  # One session. Each runs on the scheduler of the caller, unless the store's engine may wait there, or the payload is larger
  # than 128 KiB: then the answer is `:wait`, nothing was done, and the second of the pair is to be called, which runs on a
  # dirty scheduler.

  @spec create(handle, payload :: binary, options) :: {:ok, {sid :: binary, meta}} | failure | :wait
  def create(_handle, _payload, _options), do: missing()
  def create_waiting(_handle, _payload, _options), do: missing()

  # Authentic: nobody but a caller of this library can have written the payload.
  @spec get(handle, sid :: binary, peek :: boolean) ::
          {:ok, {payload :: binary, meta, authentic :: boolean}} | failure | :wait
  def get(_handle, _sid, _peek), do: missing()
  def get_waiting(_handle, _sid, _peek), do: missing()

  @spec put(handle, sid :: binary, payload :: binary, options) :: {:ok, meta} | failure | :wait
  def put(_handle, _sid, _payload, _options), do: missing()
  def put_waiting(_handle, _sid, _payload, _options), do: missing()

  @spec put_if(handle, sid :: binary, version :: non_neg_integer, payload :: binary, options) ::
          {:ok, meta} | failure | :wait
  def put_if(_handle, _sid, _version, _payload, _options), do: missing()
  def put_if_waiting(_handle, _sid, _version, _payload, _options), do: missing()

  @spec touch(handle, sid :: binary) :: {:ok, meta} | failure | :wait
  def touch(_handle, _sid), do: missing()
  def touch_waiting(_handle, _sid), do: missing()

  @spec renew(handle, sid :: binary, payload :: binary | nil, options) ::
          {:ok, {sid :: binary, meta}} | failure | :wait
  def renew(_handle, _sid, _payload, _options), do: missing()
  def renew_waiting(_handle, _sid, _payload, _options), do: missing()

  @spec delete(handle, sid :: binary) :: :ok | failure | :wait
  def delete(_handle, _sid), do: missing()
  def delete_waiting(_handle, _sid), do: missing()

  @spec reference(handle, sid :: binary) :: {:ok, ref :: binary} | failure | :wait
  def reference(_handle, _sid), do: missing()
  def reference_waiting(_handle, _sid), do: missing()

  @spec delete_ref(handle, ref :: binary) :: :ok | failure | :wait
  def delete_ref(_handle, _ref), do: missing()
  def delete_ref_waiting(_handle, _ref), do: missing()

  @spec stats(handle) :: {:ok, keyword(non_neg_integer)} | failure | :wait
  def stats(_handle), do: missing()
  def stats_waiting(_handle), do: missing()

  @spec reasons :: [{reason :: atom, code :: neg_integer, text :: String.t()}]
  def reasons, do: missing()

  defp missing, do: :erlang.nif_error(:nif_not_loaded)
end
