# Waits for an event that sends no message. The bound only tells a hang from a slow machine.
defmodule Eventually do
  @moduledoc false

  @bound_ms 50_000

  @doc "Calls the function until its result is true, and fails after 50 seconds."
  def eventually(condition, until_ms \\ System.monotonic_time(:millisecond) + @bound_ms) do
    cond do
      condition.() ->
        true

      System.monotonic_time(:millisecond) > until_ms ->
        raise ExUnit.AssertionError, message: "the condition was not met within 50 seconds"

      true ->
        Process.sleep(5)
        eventually(condition, until_ms)
    end
  end
end
