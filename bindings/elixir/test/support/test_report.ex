# Prints at the end of a test run how many scenarios ran, and which tests did not run and why.
defmodule TestReport do
  @moduledoc false

  def start, do: Agent.start(fn -> %{passed: 0, not_applicable: []} end, name: __MODULE__)

  def passed(:conformance), do: Agent.update(__MODULE__, &%{&1 | passed: &1.passed + 1})

  def not_applicable(scenarios), do: Agent.update(__MODULE__, &%{&1 | not_applicable: scenarios})

  @doc "For ExUnit.after_suite/1."
  def print(%{total: total, failures: failures, excluded: excluded, skipped: skipped}) do
    %{passed: passed, not_applicable: others} = Agent.get(__MODULE__, & &1)
    reasons = for {need, n} <- Enum.frequencies_by(others, &elem(&1, 1)), do: "needs #{need}: #{n}"
    IO.puts("conformance: #{passed} scenarios passed, #{length(others)} not applicable (#{Enum.join(reasons, "; ")})")

    if excluded > 0,
      do: IO.puts("plug: #{excluded} tests SKIPPED because Plug was not found; set SSS_DEPS_PATH")

    IO.puts("Elixir: #{total - failures - excluded - skipped} passed, #{excluded + skipped} skipped")
  end
end
