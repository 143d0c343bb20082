"""The modules of the package import each other in one direction."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import session_server_store

PACKAGE = Path(session_server_store.__file__).parent


def imported_modules(path: Path) -> set[str]:
    """The modules that a module imports. ``from . import x`` counts as the package itself."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            modules.add(node.module or "__init__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("session_server_store"):
            modules.add((node.module or "").partition(".")[2] or "__init__")
    return modules


def test_package_has_no_import_cycle() -> None:
    graph = {path.stem: imported_modules(path) for path in PACKAGE.glob("*.py")}
    assert graph["__init__"] >= {"store", "errors"}
    order = list(TopologicalSorter(graph).static_order())  # CycleError names the modules
    assert order[-1] == "__init__"
