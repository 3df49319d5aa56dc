"""What `ditbench sweep plan` shows: the table, the arithmetic, JSON; without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scaling_plans import SCALING

from sweeps.cluster import load_cluster
from sweeps.planning.plan import plan
from sweeps.planning.report import as_json, print_explanation, print_plan


def test_the_table_and_the_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    where = load_cluster("slurm-example")
    whole = plan(SCALING, where, "slurm-example", {r.id: Path("nowhere") / r.id for r in SCALING.recipes})
    print_plan(whole)
    table = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line}
    assert "scaling on slurm-example: 12 runs: 12 new" in table
    assert [label for label in lines if "/" in label] == [recipe.label for recipe in SCALING.recipes]
    assert lines["XL/2"][1:5] == ["new", "118.6", "8", "0.808"]
    assert whole.gpu_hours is not None
    assert f"Left to do: {whole.gpu_hours:,.0f} GPU-hours" in table
    for said in ("11.8 %", "0.81 steps/s", "156 TFLOP/s a GPU at tf32", "true FLOPs = 2 x MACs", "Not included"):
        assert said in table
    print_explanation(whole)
    explained = capsys.readouterr().out
    assert "step: 2 x 118.638 GMACs x 3 x 256 images = 182.228 TFLOP" in explained
    assert (
        "8 of 8 kept steps left x 50,000 samples x 250 network calls x 2 x 118.638 GMACs = 23,727.6 PFLOP" in explained
    )
    assert "states: 3 x 4 x 4 bytes x 674,834,720 = 32.4 GB" in explained
    assert "samples: 8 x 50,000 x 3 x 256 x 256 bytes = 78.6 GB" in explained
    assert explained.count("\narray ") == 6
    content = json.loads(json.dumps(as_json(whole), allow_nan=False))
    assert content["gpu_hours"] == pytest.approx(whole.gpu_hours)
    assert len(content["runs"]) == 12
    assert sum(r["training_gpu_hours"] for r in content["runs"]) == pytest.approx(content["training_gpu_hours"])


def test_planning_loads_no_torch() -> None:
    script = "import sys, sweeps.planning.report; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
