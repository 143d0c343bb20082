"""The examples that users copy: they run as they stand."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import session_server_store

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_is_an_example() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_the_readme_runs(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(example, {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("{'user': 'alice'} 2 ")
    assert printed[1] == "somebody else was faster"
    assert re.fullmatch(r"[0-9a-f]{64} \d{4}-.*\+00:00", printed[2])


def test_example_of_the_module_runs() -> None:
    result = doctest.testmod(session_server_store)
    assert (result.failed, result.attempted) == (0, 1)


def test_every_exception_is_in_the_readme() -> None:
    for name in session_server_store.__all__:
        if name.endswith("Error"):
            assert f"`{name}`" in README, name
