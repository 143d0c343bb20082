"""One test for each scenario of tests/conformance, the behaviour that all languages share."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import REASONS, Run, Scenario, StepError, read_scenarios

SCENARIOS = list(read_scenarios(Path(__file__).parents[3] / "tests" / "conformance"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario) -> None:
    missing = scenario.missing()
    if missing:
        pytest.skip("not applicable: " + "; ".join(f"{need} ({REASONS[need]})" for need in missing))
    try:
        Run(scenario).run()
    except StepError as failure:
        pytest.fail(str(failure), pytrace=False)


def test_scenarios_are_found() -> None:
    assert len(SCENARIOS) >= 80
