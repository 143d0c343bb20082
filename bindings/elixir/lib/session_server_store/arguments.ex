# Checks arguments and options before they reach the native functions, and names the one that is
# wrong. An error never shows a value that may be an id, a principal or session data.
defmodule SessionServerStore.Arguments do
  @moduledoc false

  alias SessionServerStore.{Duration, Native}

  @unchanged {:keep, :keep, :keep, 0, nil, false}
  @max_u64 2 ** 64 - 1
  @max_grace_ms 2 ** 63 - 1

  @spec sid!(term) :: binary
  def sid!(sid) when is_binary(sid), do: sid
  def sid!(other), do: invalid!("the session id must be a string", other)

  @spec ref!(term) :: <<_::256>>
  def ref!(<<_::binary-size(32)>> = ref), do: ref
  def ref!(other), do: invalid!("the reference must be a binary of 32 bytes", other)

  @spec version!(term) :: non_neg_integer
  def version!(version) when version in 0..@max_u64, do: version
  def version!(other), do: invalid!("the version must be a whole number (0 or more)", other)

  @spec max!(term) :: non_neg_integer
  def max!(max) when max in 0..@max_u64, do: max
  def max!(other), do: invalid!("max must be a whole number (0 or more)", other)

  @spec url!(term) :: String.t()
  def url!(url) when is_binary(url), do: url
  def url!(other), do: invalid!("the URL must be a string", other)

  @spec store_name!(term) :: atom
  def store_name!(name) when is_atom(name) and name not in [nil, true, false], do: name

  def store_name!(other),
    do: raise(ArgumentError, ":name must be the name of a store, such as MyApp.Sessions, got: #{inspect(other)}")

  @spec principal!(term) :: binary
  def principal!(value) do
    case principal(value) do
      {:ok, principal} -> principal
      :error -> invalid!("the principal must be a string or an integer", value)
    end
  end

  @doc "A user id as the library takes it: an integer becomes its decimal digits."
  @spec principal(term) :: {:ok, binary} | :error
  def principal(value) when is_binary(value), do: {:ok, value}
  def principal(value) when is_integer(value), do: {:ok, Integer.to_string(value)}
  def principal(_other), do: :error

  @doc """
  The options of `create`, `put`, `put_if` and `renew`, as the native functions take them.

  `no_principal` is what `principal: nil` means: `:clear`, or `:keep` for a new session, which has
  none to clear.
  """
  @spec session_options!(term, no_principal :: :keep | :clear) :: Native.options()
  def session_options!([], _no_principal), do: @unchanged

  def session_options!(options, no_principal) do
    Enum.reduce(keyword!(options), @unchanged, fn
      {:timeout, value}, native -> put_elem(native, 0, timeout!(:timeout, value))
      {:idle_timeout, value}, native -> put_elem(native, 1, timeout!(:idle_timeout, value))
      {:principal, nil}, native -> put_elem(native, 2, no_principal)
      {:principal, value}, native -> put_elem(native, 2, principal!(value))
      {:grace, value}, native -> put_elem(native, 3, grace_ms!(value))
      {:label, value}, native -> put_elem(native, 4, label!(value))
      {:reauthenticated, value}, native when is_boolean(value) -> put_elem(native, 5, value)
      {:reauthenticated, value}, _native -> invalid!(":reauthenticated must be true or false", value)
      {name, _value}, _native -> raise ArgumentError, "unknown option: #{inspect(name)}"
    end)
  end

  # An empty label takes the label away.
  defp label!(nil), do: nil
  defp label!(label) when is_binary(label), do: label
  defp label!(other), do: invalid!(":label must be a string", other)

  defp timeout!(_name, :inherit), do: :inherit
  defp timeout!(name, value), do: Duration.to_ms!(name, value)

  # The store ends the grace time with the session.
  defp grace_ms!(value) do
    case Duration.to_ms!(:grace, value) do
      :infinity -> @max_grace_ms
      ms -> ms
    end
  end

  @doc "The principal of the option `:principal`, the only one that a function knows, or nil."
  @spec owner!(term) :: binary | nil
  def owner!([]), do: nil
  def owner!(options), do: options |> option!(:principal, nil, &(principal(&1) != :error)) |> principal!()

  @doc "The value of the only option that a function knows."
  @spec option!(term, name :: atom, default :: term, valid? :: (term -> boolean)) :: term
  def option!([], _name, default, _valid?), do: default

  def option!(options, name, _default, valid?) do
    case keyword!(options) do
      [{^name, value}] ->
        if valid?.(value), do: value, else: invalid!("bad value for the option #{inspect(name)}", value)

      _ ->
        raise ArgumentError, "unknown option: only #{inspect(name)} is known here"
    end
  end

  @doc "The options, if they are a keyword list."
  @spec keyword!(term) :: keyword
  def keyword!(options) do
    if Keyword.keyword?(options), do: options, else: invalid!("options must be a keyword list", options)
  end

  @doc "Raises an error that says what was expected, and what kind of value was given."
  @spec invalid!(expected :: String.t(), given :: term) :: no_return
  def invalid!(expected, given), do: raise(ArgumentError, "#{expected}, got: #{kind(given)}")

  defp kind(value) when value in [nil, true, false] or is_number(value), do: inspect(value)
  defp kind(value) when is_atom(value), do: "an atom"
  defp kind(value) when is_binary(value), do: "a binary of #{byte_size(value)} bytes"
  defp kind(value) when is_bitstring(value), do: "a bitstring"
  defp kind(value) when is_list(value), do: "a list"
  defp kind(value) when is_tuple(value), do: "a tuple"
  defp kind(%module{}), do: "a struct of #{inspect(module)}"
  defp kind(value) when is_map(value), do: "a map"
  defp kind(value) when is_function(value), do: "a function"
  defp kind(_value), do: "a value of another type"
end
