"""docs/faults.md names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
NAMED = re.compile(r"\b((?:analysis|bench|models|slurm|sweeps)/test_\w+\.py)(?:::(\w+))?")


def test_every_test_of_the_table_of_faults_is_there() -> None:
    text = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, 27))
    for row in rows:
        named = NAMED.findall(row)
        assert named, row
        for file, name in named:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert not name or name in there, f"{file}::{name}"
