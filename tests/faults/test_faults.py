"""A sample of the fault harness: every command, every fault, a kill more. `python tests/faults` is all of it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost_whatever_happens(tmp_path: Path) -> None:
    command = [sys.executable, "tests/faults", "--seed", "1", "--kills", "14", "--others", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((tmp_path / "faults.csv").read_text().splitlines()))
    assert len({row["target"] for row in rows}) * len({row["fault"] for row in rows}) == len(rows) == 42
    assert sum(int(row["injected"]) for row in rows) >= 40
