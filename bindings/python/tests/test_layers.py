"""The modules of the package import each other in one direction."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import session_server_store

PACKAGE = Path(session_server_store.__file__).parent


def name_of(path: Path) -> str:
    """For example "store" and "django.engine"; a package is its ``__init__``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported_modules(path: Path) -> set[str]:
    """The modules that a module imports. ``from . import x`` counts as the package itself."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        target = node.module or "__init__"
        if node.level:
            package = path.relative_to(PACKAGE).parts[: -node.level]
            modules.add(".".join((*package, target)))
        elif target.split(".")[0] == "session_server_store":
            modules.add(target.partition(".")[2] or "__init__")
    return modules


def test_package_has_no_import_cycle() -> None:
    graph = {name_of(path): imported_modules(path) for path in PACKAGE.rglob("*.py")}
    assert graph["__init__"] >= {"store", "errors"}
    assert graph["django.middleware"] >= {"django.engine", "_adapter"}
    list(TopologicalSorter(graph).static_order())  # CycleError names the modules


def test_core_imports_no_framework() -> None:
    adapters = {"django", "flask", "starlette", "aiohttp"}
    for path in PACKAGE.glob("*.py"):
        if path.stem not in adapters:
            assert adapters.isdisjoint(imported_modules(path)), path
