# Failures as Elixir sees them. Numbers and texts come from the native library: there must be no
# second table of them here.
defmodule SessionServerStore.Error do
  @moduledoc """
  A failure other than a missing session.

  The functions of `SessionServerStore.Store` return `{:error, %SessionServerStore.Error{}}`. It is
  an exception and can be raised as it is.

    * `:reason` - `:conflict`, `:too_large`, `:full`, `:invalid`, `:url`, `:unsupported`, `:handle`
      (the store is
      closed, or not running), `:exists`, `:corrupt`, `:unavailable`, `:timeout`, `:busy`, `:io`,
      `:random` or `:nomem`; later versions may add reasons
    * `:code` - the number of the reason in the C interface: always negative, never reused
    * `:message` - one line of text. It never holds an id, a payload or a password
    * `:plug_status` - the status of Plug's response if the error is not rescued: 503 if another
      attempt may succeed (`:unavailable`, `:timeout`, `:busy`, `:full`, `:nomem`, `:random`), 409
      for a `:conflict`, else 500

  A missing session is `{:error, :not_found}`. Only the functions with a `!` raise it, with the
  reason `:not_found`.
  """

  alias SessionServerStore.Native

  defexception [:reason, :code, :message, :plug_status]

  @type t :: %__MODULE__{reason: atom, code: neg_integer, message: String.t(), plug_status: 409 | 500 | 503}

  @doc """
  All reasons, each with its number and a short text.

      iex> {:conflict, -4, "the session was changed in between"} in SessionServerStore.Error.reasons()
      true
  """
  @spec reasons :: [{reason :: atom, code :: neg_integer, text :: String.t()}]
  def reasons, do: Native.reasons()

  @doc false
  @spec new(reason :: atom, message :: String.t()) :: t
  def new(reason, message) do
    {^reason, code, _text} = List.keyfind(reasons(), reason, 0)
    new(reason, code, message)
  end

  @doc false
  @spec new(reason :: atom, code :: neg_integer, message :: String.t()) :: t
  def new(reason, code, message),
    do: %__MODULE__{reason: reason, code: code, message: message, plug_status: plug_status(reason)}

  defp plug_status(reason) when reason in [:unavailable, :timeout, :busy, :full, :nomem, :random], do: 503
  defp plug_status(:conflict), do: 409
  defp plug_status(_reason), do: 500
end
