"""Plans of runs that exist: storage as of their files, and the cost of what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recipes import tiny
from scaling_plans import A100, equal_runs, local, only, planned, profile, rows

from bench.files import checkpoint
from bench.files.run_folder import weights_path, write_config
from bench.run import run
from sweeps.expand import Sweep
from sweeps.planning import plan as plan_module
from sweeps.planning.plan import check_budget, plan
from sweeps.planning.report import print_plan


def test_storage_equals_the_files_of_a_run(study: Callable[[str], Path]) -> None:
    recipe, home = tiny(), study("tiny")
    folder = home / recipe.folder_name
    folders = {recipe.id: folder}
    before = plan(Sweep("tiny", [recipe]), local(), "local", folders).runs[0]
    assert (before.state, before.steps_left, before.scores_left) == ("new", 12, 2)
    write_config(recipe, folder)
    assert plan(Sweep("tiny", [recipe]), local(), "local", folders).runs[0].state == "new"
    run(folder, home)
    after = plan(Sweep("tiny", [recipe]), local(), "local", folders).runs[0]
    states = sorted((folder / "checkpoints").glob("state-*"))
    averages = sorted((folder / "checkpoints").glob("ema-*"))
    assert plan_module.STATES_KEPT == checkpoint.STATES_KEPT
    assert (before.states, after.states, len(states)) == (3, 2, 2)
    assert after.state_bytes == sum(map(data_bytes, states))
    assert after.ema_bytes == before.ema_bytes == sum(map(data_bytes, averages))
    samples = [np.load(path) for path in (folder / "samples").glob("*.npy")]
    assert after.sample_bytes == sum(array.nbytes for array in samples)
    assert (after.state, after.training_pflop, after.scoring_pflop) == ("finished", 0, 0)


def data_bytes(path: Path) -> int:
    """A safetensors file less its header, whose length it begins with."""
    content = path.read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


@pytest.mark.parametrize(("save_every", "expected"), [(4, 3), (100, 2), (6, 2)])
def test_no_more_states_than_are_written(save_every: int, expected: int) -> None:
    recipe = tiny(train={"save_every": save_every})  # kept steps: 6 and 12
    assert planned(Sweep("tiny", [recipe]), local()).runs[0].states == expected


def test_runs_that_exist_cost_what_is_left(tmp_path: Path) -> None:
    sweep = only("S/8", "S/4", "S/2", "B/8")
    new, begun, failed, finished = sweep.recipes
    rows(tmp_path / begun.id / "sessions.jsonl", {"precision": "tf32"})
    rows(tmp_path / begun.id / "train.jsonl", {"step": 100, "images_per_s": 1}, {"step": 100_000, "images_per_s": 1})
    rows(tmp_path / begun.id / "evals.jsonl", {"step": 50_000}, {"step": 100_000})
    with (tmp_path / begun.id / "train.jsonl").open("a") as file:
        file.write('{"step": 100100, "ima')  # a row that is being written
    rows(tmp_path / failed.id / "sessions.jsonl", {"precision": "tf32"})
    (tmp_path / failed.id / "error.json").write_text('{"error": "diverged"}')
    rows(tmp_path / finished.id / "train.jsonl", {"step": 400_000, "images_per_s": 1})
    (tmp_path / finished.id / "finished.json").write_text("{}")
    whole, left = planned(sweep, profile()), planned(sweep, profile(), tmp_path)
    runs = {r.recipe.id: r for r in left.runs}
    assert [r.state for r in left.runs] == ["new", "started", "failed", "finished"]
    assert (runs[begun.id].steps_left, runs[begun.id].scores_left) == (300_000, 6)
    full = {r.recipe.id: r for r in whole.runs}
    shares = [runs[r.id].training_pflop / full[r.id].training_pflop for r in (new, begun, failed, finished)]
    assert shares == pytest.approx([1, 0.75, 1, 0])
    assert runs[begun.id].scoring_pflop == pytest.approx(0.75 * full[begun.id].scoring_pflop)
    assert runs[finished.id].gmacs and runs[finished.id].wall_s == 0
    assert [array.num_tasks for array in left.arrays] == [3, 3]
    assert left.sample_bytes == whole.sample_bytes


def test_trained_runs_are_only_scored(tmp_path: Path) -> None:
    sweep = equal_runs(3)
    trained = sweep.recipes[0]
    checkpoints = tmp_path / trained.id / "checkpoints"
    checkpoints.mkdir(parents=True)
    for step in trained.train.kept_steps():
        weights_path(checkpoints, step).touch()
    left = planned(sweep, profile(), tmp_path)
    first = left.runs[0]
    assert (first.steps_left, first.scores_left, first.training_s) == (0, 8, 0)
    assert [(a.kind, a.num_tasks) for a in left.arrays] == [("training", 2), ("evaluation", 2), ("evaluation", 1)]
    assert left.arrays[2].ends_s == first.scoring_s
    inline = planned(sweep, profile(evaluate="inline"), tmp_path)
    assert [(a.kind, a.num_tasks) for a in inline.arrays] == [("training", 2), ("training", 1)]
    assert inline.arrays[1].ends_s == inline.runs[0].scoring_s
    here = local(gpu=A100, mfu={"training": 0.1, "sampling": 0.1, "source": "a guess"})
    assert [array.num_tasks for array in planned(sweep, here, tmp_path).arrays] == [3]


def test_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = only("S/8")
    (tmp_path / sweep.recipes[0].id).mkdir()
    (tmp_path / sweep.recipes[0].id / "finished.json").write_text("{}")
    done = planned(sweep, profile(), tmp_path)
    assert (done.gpu_hours, done.wall_s, done.arrays) == (0, 0, ())
    check_budget(done, 0)
    print_plan(done)
    shown = capsys.readouterr().out
    assert "1 run: 1 finished" in shown
    assert "Nothing is left to do." in shown
