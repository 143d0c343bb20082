# Spans of time as callers write them. The only place that knows the forms.
defmodule SessionServerStore.Duration do
  @moduledoc false

  @typedoc "Seconds, `{number, :millisecond}`, or `:infinity`."
  @type t :: integer | {integer, :millisecond} | :infinity

  # The C ABI's SSS_FOREVER, and the most that fits into it.
  @forever 9_223_372_036_854_775_807

  @spec to_ms(term) :: {:ok, integer} | :error
  def to_ms(:infinity), do: {:ok, @forever}
  def to_ms(seconds) when is_integer(seconds), do: {:ok, clamp(seconds * 1000)}
  def to_ms({ms, :millisecond}) when is_integer(ms), do: {:ok, clamp(ms)}
  def to_ms(_other), do: :error

  @spec from_ms(integer) :: integer | :infinity
  def from_ms(@forever), do: :infinity
  def from_ms(ms), do: ms

  @doc "The same, for an option that is named if it is wrong or negative."
  @spec timeout!(atom, term) :: non_neg_integer
  def timeout!(name, value) do
    case to_ms(value) do
      {:ok, ms} when ms >= 0 ->
        ms

      _ ->
        raise ArgumentError,
              "#{inspect(name)} must be a number of seconds (0 or more), {milliseconds, :millisecond} or :infinity, " <>
                "got: #{inspect(value)}"
    end
  end

  defp clamp(ms), do: ms |> min(@forever) |> max(-@forever)
end
