# Prints at the end of a test run how many scenarios ran, and which tests did not run and why. As a
# formatter of ExUnit it sees each test.
defmodule TestReport do
  @moduledoc false
  use GenServer

  def start, do: Agent.start(fn -> %{passed: 0, not_applicable: [], excluded: %{}} end, name: __MODULE__)

  def passed(:conformance), do: Agent.update(__MODULE__, &%{&1 | passed: &1.passed + 1})

  def not_applicable(scenarios), do: Agent.update(__MODULE__, &%{&1 | not_applicable: scenarios})

  @impl true
  def init(_options), do: {:ok, nil}

  @impl true
  def handle_cast({:test_finished, %{state: {:excluded, "due to " <> reason}}}, nil) do
    package = reason |> String.split() |> hd()
    Agent.update(__MODULE__, &%{&1 | excluded: Map.update(&1.excluded, package, 1, fn n -> n + 1 end)})
    {:noreply, nil}
  end

  def handle_cast(_event, nil), do: {:noreply, nil}

  @doc "For ExUnit.after_suite/1."
  def print(%{total: total, failures: failures, excluded: excluded, skipped: skipped}) do
    report = Agent.get(__MODULE__, & &1)
    others = report.not_applicable
    reasons = for {need, n} <- Enum.frequencies_by(others, &elem(&1, 1)), do: "needs #{need}: #{n}"

    IO.puts(
      "conformance: #{report.passed} scenarios passed, #{length(others)} not applicable (#{Enum.join(reasons, "; ")})"
    )

    for {package, n} <- report.excluded,
        do: IO.puts("#{package}: #{n} tests SKIPPED because the package was not found; set SSS_DEPS_PATH")

    IO.puts("Elixir: #{total - failures - excluded - skipped} passed, #{excluded + skipped} skipped")
  end
end
