# Converts session data to the bytes that the store keeps, and back. Must not build a term that can
# harm the VM from bytes that another program may have written.
defmodule SessionServerStore.Payload do
  @moduledoc false

  alias SessionServerStore.Error

  @doc "The bytes of `data`. A `raw` store keeps binaries as they are, also empty ones."
  @spec encode(data :: term, raw :: boolean) :: {:ok, binary} | {:error, Error.t()}
  def encode(data, true) when is_binary(data), do: {:ok, data}
  def encode(_data, true), do: raise(ArgumentError, "the data of a store with raw: true must be a binary")

  def encode(data, false) when data in [nil, [], {}, ""] or data == %{},
    do: {:error, Error.new(:invalid, "an empty session is not stored")}

  def encode(data, false), do: {:ok, :erlang.term_to_binary(data)}

  @doc """
  The data of `payload`. It is `authentic` if only a program with access to the store can have
  written it: the payload is sealed, or has never left this process.
  """
  @spec decode(payload :: binary, authentic :: boolean, raw :: boolean) ::
          {:ok, term} | {:unreadable, reason :: String.t()}
  def decode(payload, _authentic, true), do: {:ok, payload}

  # Without :safe, which would refuse atoms that this VM has not loaded yet, and protects against
  # nothing here.
  def decode(payload, true, false) do
    {:ok, :erlang.binary_to_term(payload)}
  rescue
    ArgumentError -> {:unreadable, "the stored data is not in the external term format"}
  end

  # A few compressed bytes can expand to more than the memory of the machine.
  def decode(<<131, ?P, _::binary>>, false, false), do: {:unreadable, "the stored data is compressed"}

  # :safe creates no atoms, but it lets functions pass, which code that enumerates the data would
  # call.
  def decode(payload, false, false) do
    data = :erlang.binary_to_term(payload, [:safe])
    if holds_function?(data), do: {:unreadable, "the stored data holds a function"}, else: {:ok, data}
  rescue
    ArgumentError -> {:unreadable, "the stored data is not in the external term format, or holds unknown atoms"}
  end

  defp holds_function?(data) when is_function(data), do: true
  defp holds_function?([head | tail]), do: holds_function?(head) or holds_function?(tail)
  defp holds_function?(data) when is_tuple(data), do: data |> Tuple.to_list() |> holds_function?()
  defp holds_function?(data) when is_map(data), do: data |> :maps.to_list() |> holds_function?()
  defp holds_function?(_data), do: false
end
