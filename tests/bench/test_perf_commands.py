"""What commands cost: the made-up runs are runs, what is timed ends well, and drawing does not import torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import collect

import sweeps
from bench.perf.commands import commands, process, write_sweep
from bench.perf.document import OURS
from sweeps.expand import load_sweep
from sweeps.perf import launching

MODELS = load_sweep(Path(sweeps.__file__).parent / "studies" / "digits.yaml").recipes


def test_the_runs_that_are_collected_are_runs_as_they_are(tmp_path: Path) -> None:
    said = write_sweep(tmp_path / "many", MODELS, num_runs=14, num_rows=40)
    assert said == "14 runs of 40 rows"
    tables = collect(tmp_path / "many", tmp_path)
    assert tables.runs["state"].tolist() == ["finished"] * 14
    assert set(tables.runs["label"]) == {recipe.label for recipe in MODELS}
    assert tables.train.groupby("run").size().tolist() == [40] * 14
    assert tables.train["loss"].is_unique
    assert tables.evals.groupby("run")["step"].apply(list).tolist() == [[150, 300, 450, 600, 1000]] * 14
    assert len(tables.samples) == 14


@pytest.mark.slow
def test_every_command_that_is_timed_ends_well(tmp_path: Path) -> None:
    sweep, out = tmp_path / "many", tmp_path / "out"
    runs = write_sweep(sweep, MODELS, num_runs=2, num_rows=30)
    measures = commands(out, sweep, runs, ["analysis.shares"])
    for measure in measures:
        assert 0 < measure.turn(0)[OURS] < 120
    assert "ditbench collect, 2 runs of 30 rows" in [measure.what for measure in measures]
    assert (out / "tables/runs.csv").exists()
    assert len([*(out / "figures").glob("*.png")]) >= 2


def test_a_process_that_fails_is_not_timed() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        process("-c", "raise SystemExit(2)")()


@pytest.mark.slow
def test_a_sweep_is_looked_at_planned_and_submitted_dry(tmp_path: Path) -> None:
    """With no PATH, so that no SLURM of this machine is asked; nothing is written where the runs would be."""
    measures = launching(tmp_path, num_runs=3, num_rows=200)
    assert [measure.what for measure in measures] == [
        "status of 3 runs of 200 rows", "plan of 3 runs", "submission of 3 runs, dry",
    ]  # fmt: skip
    for measure in measures:
        assert 0 < measure.turn(0)[OURS] < 120
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_drawing_published_figures_by_the_command_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from ditbench import app;"
        f"app(['figure', 'gflops-vs-fid', '--source', 'published', '--out', {str(tmp_path)!r}], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parents[2])
