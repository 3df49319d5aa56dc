"""What collecting and drawing cost: the made-up runs are runs, and drawing does not import torch."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from run_folders import collect
from typer.testing import CliRunner

import sweeps
from bench.perf import results
from ditbench_perf import app
from sweeps.expand import load_sweep

MODELS = load_sweep(Path(sweeps.__file__).parent / "studies" / "digits.yaml").recipes


def test_the_cost_of_collecting_is_that_of_runs_as_they_are(tmp_path, monkeypatch):
    """`collect` reads the same folders in this process as the timed one did."""
    seen = {}

    def collected(arguments, rounds):
        seen["tables"] = collect(Path(arguments[1]), tmp_path)
        return {"rounds": rounds, "median_s": 1.0, "longest_s": 1.0, "cpu_s": 1.0}

    monkeypatch.setattr(results, "_cost", collected)
    cost = results.collect_cost(MODELS, num_runs=14, num_rows=40, rounds=2)
    runs, train, evals = seen["tables"].runs, seen["tables"].train, seen["tables"].evals
    assert (cost.runs, cost.rows_a_run, cost.scores_a_run, cost.rounds) == (14, 40, 5, 2)
    assert runs["state"].tolist() == ["finished"] * 14
    assert set(runs["label"]) == {recipe.label for recipe in MODELS}
    assert train.groupby("run").size().tolist() == [40] * 14
    assert train["loss"].is_unique
    assert evals.groupby("run")["step"].apply(list).tolist() == [[150, 300, 450, 600, 1000]] * 14
    assert len(seen["tables"].samples) == 14


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "options"), [("collect", ["--runs", "2", "--rows", "30"]), ("figures", []), ("imports", [])]
)
def test_the_commands_time_whole_processes(tmp_path, command, options):
    done = CliRunner().invoke(app, [command, *options, "--rounds", "1", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (row,) = pd.read_csv(tmp_path / f"{command}.csv").to_dict("records")
    assert row["rounds"] == 1
    assert 0 < row["median_s"] == row["longest_s"]
    assert row["cpu_s"] > 0.1  # of the process that was started
    assert row[{"figures": "figures", "imports": "modules"}.get(command, "runs")] >= 2


@pytest.mark.slow
def test_drawing_published_figures_by_the_command_does_not_import_torch(tmp_path):
    code = (
        "import sys; from ditbench import app;"
        f"app(['figure', 'gflops-vs-fid', '--source', 'published', '--out', {str(tmp_path)!r}], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parents[2])
