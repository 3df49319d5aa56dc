"""Arrows point one way: models <- bench <- sweeps, and analysis beside them; nothing imports in a circle.

Read off the source of every module, so that an import inside a function counts as well.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "bench", "sweeps", "analysis")
# What each may import of ours; the command line on top of them may import all.
BELOW = {"models": set(), "bench": {"models"}, "sweeps": {"models", "bench"}, "analysis": set()}
# Modules of one folder, its __init__ aside. A figure is a file.
MOST_MODULES = 16
LARGER = {Path("analysis", "figures"): 26}


def modules() -> dict[str, Path]:
    """Name -> file, of every module of the suite."""
    files = [*ROOT.glob("*.py"), *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]
    parts = {file: file.relative_to(ROOT).with_suffix("").parts for file in files}
    return {".".join(name[:-1] if name[-1] == "__init__" else name): file for file, name in parts.items()}


MODULES = modules()


def imports(name: str, inside: bool = True) -> Iterator[str]:
    """Dotted names that a module imports, of modules or of what is in them; `inside` functions as well.

    What is imported for annotations alone (`if TYPE_CHECKING`) is never executed.
    """
    todo: list[ast.AST] = [ast.parse(MODULES[name].read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
        elif inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += ast.iter_child_nodes(node)


def ours(name: str) -> set[str]:
    """Modules of the suite that a module imports by name; a package is its __init__."""
    found = set()
    for target in imports(name):
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        found |= {target} - {"", name}
    return found


def test_modules_are_found() -> None:
    assert len(MODULES) > 100
    assert ours("models.dit") == {
        "models.designs",
        "models.dit_cost",
        "models.parametrization",
        "models.registry",
        "models.transformer",
    }
    assert "torch" in {target.partition(".")[0] for target in imports("bench.sample", inside=False)}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_upwards(package: str) -> None:
    allowed = {package, *BELOW[package]}
    upwards = {
        f"{name} imports {other}"
        for name in MODULES
        if name.partition(".")[0] == package
        for other in ours(name)
        if other.partition(".")[0] not in allowed
    }
    assert not upwards


def test_tables_need_no_torch_and_plans_and_launches_not_to_be_imported() -> None:
    anywhere = {name for name in MODULES if name.startswith("analysis") and _torch(imports(name))}
    at_import = {name for name in MODULES if name.startswith("sweeps") and _torch(imports(name, inside=False))}
    assert not anywhere | at_import


def _torch(targets: Iterator[str]) -> bool:
    return any(target.partition(".")[0] == "torch" for target in targets)


def test_nothing_imports_in_a_circle() -> None:
    graph = {name: ours(name) for name in MODULES}
    assert {" <-> ".join(sorted(group)) for group in circles(graph)} == set()


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules, each of which leads to every other."""
    leads_to = {name: set(others) for name, others in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in leads_to[name]:
                leads_to[name] |= leads_to[middle]
    groups = {frozenset(o for o in graph if o in leads_to[name] and name in leads_to[o]) for name in graph}
    return [set(group) for group in groups if group]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(map(sorted, circles(graph))) == [["a", "b", "c"], ["d", "e"]]


def test_a_folder_has_about_a_dozen_modules() -> None:
    number = {}
    for file in MODULES.values():
        if file.name != "__init__.py":
            folder = file.parent.relative_to(ROOT)
            number[folder] = number.get(folder, 0) + 1
    assert {folder: n for folder, n in number.items() if n > LARGER.get(folder, MOST_MODULES)} == {}


def test_every_file_of_the_top_floor_is_shipped_and_checked() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    files = {path.name for path in ROOT.glob("ditbench*.py")}
    shipped, checked = tool["hatch"]["build"]["targets"]["wheel"]["only-include"], tool["pyright"]["include"]
    for listed in (shipped, checked):
        assert {name for name in listed if name.startswith("ditbench")} == files
