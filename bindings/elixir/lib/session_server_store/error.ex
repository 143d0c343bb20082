# Failures as Elixir sees them. The numbers and texts come from the library: there is no second table of them here.
defmodule SessionServerStore.Error do
  @moduledoc """
  Something went wrong that is not simply a missing session.

  Functions of `SessionServerStore.Store` return `{:error, %SessionServerStore.Error{}}`; being an exception, it can be
  raised as it is.

    * `:reason` - what went wrong: `:conflict`, `:too_large`, `:full`, `:invalid`, `:url`, `:unsupported`, `:handle`
      (the store is closed), `:exists`, `:corrupt`, `:unavailable`, `:timeout`, `:busy`, `:io`, `:random`, `:nomem`,
      and in later versions more
    * `:code` - its number in the C interface, always negative and never reused
    * `:message` - one line for a person. It never holds an id, a payload or a password
    * `:plug_status` - what Plug answers the client if nobody rescues the error: 503 if trying again may help
      (`:unavailable`, `:timeout`, `:busy`, `:full`), else 500

  A missing session is `{:error, :not_found}` and has no message.
  """

  alias SessionServerStore.Native

  defexception [:reason, :code, :message, :plug_status]

  @type t :: %__MODULE__{reason: atom, code: neg_integer, message: String.t(), plug_status: 500 | 503}

  @doc """
  All reasons with their numbers and a short text each.

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

  defp plug_status(reason) when reason in [:unavailable, :timeout, :busy, :full], do: 503
  defp plug_status(_reason), do: 500
end
