# Durations as callers write them: the only place that knows their forms.
defmodule SessionServerStore.Duration do
  @moduledoc false

  @typedoc "Seconds, `{number, unit}`, or `:infinity`."
  @type t :: integer | {integer, unit} | :infinity
  @type unit :: :millisecond | :second | :minute | :hour | :day | :week

  @max_ms 2 ** 63 - 1

  @units [week: 604_800_000, day: 86_400_000, hour: 3_600_000, minute: 60_000, second: 1_000, millisecond: 1]
  @unit_names Keyword.keys(@units)

  # The least milliseconds of an option: a timer without an interval would use all of a scheduler. And
  # the highest plain number: above it, it is most likely in milliseconds, because the functions of
  # `:timer` return milliseconds. The form with a unit has no such limit.
  @bounds %{
    timeout: {0, 366 * 86_400},
    idle_timeout: {0, 366 * 86_400},
    grace: {0, 3_600},
    sweep_interval: {1, 3_600},
    stats_interval: {1, 3_600},
    check_interval: {1, 3_600},
    touch_interval: {0, 3_600}
  }

  @spec to_ms(term) :: {:ok, integer | :infinity} | :error
  def to_ms(:infinity), do: {:ok, :infinity}
  def to_ms(seconds) when is_integer(seconds), do: to_ms({seconds, :second})

  def to_ms({number, unit}) when is_integer(number) and unit in @unit_names do
    ms = number * @units[unit]
    {:ok, if(ms > @max_ms, do: :infinity, else: ms)}
  end

  def to_ms(_other), do: :error

  @doc "The duration of an option in milliseconds. Raises an error that names the option and the value."
  @spec to_ms!(option :: atom, term) :: non_neg_integer | :infinity
  def to_ms!(option, value) do
    {least_ms, most_seconds} = Map.fetch!(@bounds, option)

    case to_ms(value) do
      {:ok, ms} when ms == :infinity or ms >= least_ms ->
        if is_integer(value) and value > most_seconds,
          do: raise(ArgumentError, too_many_seconds(option, value)),
          else: ms

      _ ->
        raise ArgumentError,
              "#{inspect(option)} must be a number of seconds (#{least_ms} or more), {number, unit} with one of the units " <>
                "#{Enum.map_join(Enum.reverse(@unit_names), ", ", &inspect/1)}, or :infinity, got: #{inspect(value)}"
    end
  end

  defp too_many_seconds(option, value) do
    {unit, ms} = Enum.find(@units, fn {_unit, ms} -> rem(value, ms) == 0 end)

    "#{inspect(option)} is in seconds, and #{value} looks like milliseconds: " <>
      "write {#{div(value, ms)}, #{inspect(unit)}}, or {#{value}, :second} if seconds are meant"
  end
end
