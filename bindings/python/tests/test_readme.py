"""The examples in README.md and in the docstrings run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from conftest import Script

import session_server_store

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_readme_examples_are_found() -> None:
    assert len(EXAMPLES) == 3


def test_readme_example_of_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EXAMPLES[0], {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("{'user': 'alice'} 2 ")
    assert printed[1] == "another request has written"
    assert re.fullmatch(r"[0-9a-f]{64} \d{4}-.*\+00:00 Firefox on Linux, 127\.0\.0\.1", printed[2])


def test_readme_example_of_several_processes(script: Script, tmp_path: Path) -> None:
    script(EXAMPLES[1].replace("/var/lib/app", str(tmp_path)))


def test_readme_example_of_cookies() -> None:
    exec(EXAMPLES[2], {})


def test_module_docstring_example() -> None:
    result = doctest.testmod(session_server_store)
    assert (result.failed, result.attempted) == (0, 1)


def test_readme_names_every_exception() -> None:
    for name in session_server_store.__all__:
        if name.endswith("Error"):
            assert f"`{name}`" in README, name
