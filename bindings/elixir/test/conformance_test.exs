# Runs the scenarios of the contract, one test each. Scenarios that need an ability that Elixir does
# not have are counted at the end of the test run.
defmodule SessionServerStore.ConformanceTest do
  use ExUnit.Case, async: true

  @dir Path.expand("../../../tests/conformance", __DIR__)

  scenarios = Conformance.load(@dir)
  {applicable, others} = Enum.split_with(scenarios, &(Conformance.missing_abilities(&1) == []))

  for scenario <- applicable do
    @tag scenario: scenario
    test scenario.name, %{scenario: scenario} do
      Conformance.run(scenario)
      TestReport.passed(:conformance)
    end
  end

  @scenarios length(scenarios)
  test "scenario files are found" do
    assert @scenarios >= 80, "#{@scenarios} scenarios in #{@dir}"
  end

  TestReport.not_applicable(
    for scenario <- others, do: {scenario.name, Enum.join(Conformance.missing_abilities(scenario), ", ")}
  )
end
