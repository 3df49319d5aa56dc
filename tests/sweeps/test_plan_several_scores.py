"""What several scores of one training cost, in plans and queues, and how many are there, in the status."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import tiny
from scaling_plans import local, planned, rows

from bench.files.run_folder import weights_path
from bench.files.scored import samples_path
from bench.recipe import Recipe
from sweeps.expand import Sweep, run_folders
from sweeps.groups import scoring_work, work
from sweeps.planning.plan import RunPlan
from sweeps.planning.report import print_explanation
from sweeps.slurm.planned import todo
from sweeps.watch.status import run_status
from sweeps.watch.status_table import cells

# Kept steps 6 and 12, 60 samples of 64 bytes in 4 steps each; more scores: 8 steps guided at both, 2 steps at 12,
# and other features at both.
SCORES = (
    {"sampling_steps": 8, "guidance_scale": 1.5, "guidance_channels": None},
    {"sampling_steps": 2, "num_samples": 30, "kept_steps": "last"},
    {"kid_subset_size": 10},
)
PASSES = 2 * 60 * 4 + 2 * 60 * 8 * 2 + 30 * 2


def several() -> Recipe:
    return Recipe.model_validate({**tiny().model_dump(mode="json"), "scores": [*SCORES]})


def of_one(recipe: Recipe, runs: Path | None = None) -> RunPlan:
    return planned(Sweep("one", [recipe]), local(), *([runs] if runs else [])).runs[0]


def test_costs_are_summed_over_all_scores() -> None:
    plain, run = of_one(tiny()), of_one(several())
    assert (plain.scores_left, run.scores_left) == (2, 7)
    assert run.scoring_pflop == pytest.approx(2 * run.gmacs * PASSES / 1e6)
    assert run.score_tflop == plain.score_tflop
    assert (plain.sample_bytes, run.sample_bytes) == (64 * 120, 64 * (120 + 120 + 30))
    assert scoring_work(several()) == pytest.approx(1e9 * run.gmacs * PASSES)
    assert work(several()) - work(tiny()) == pytest.approx(1e9 * run.gmacs * (PASSES - 2 * 60 * 4))


def test_the_arithmetic_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    made = planned(Sweep("one", [several()]), local())
    print_explanation(made)
    said = capsys.readouterr().out
    assert said.count("kept steps left x") == 3
    for factors in (
        "scoring: 2 of 2 kept steps left x 60 samples x 4 network calls x 2 x",
        "2 of 2 kept steps left x 60 samples x (8 network calls + 8 guided ones) x 2 x",
        "1 of 1 kept steps left x 30 samples x 2 network calls x 2 x",
        "7 scores left",
        "samples: (4 x 60 + 1 x 30) x 1 x 8 x 8 bytes",
    ):
        assert factors in said


def test_what_is_there_costs_nothing(tmp_path: Path) -> None:
    recipe = several()
    folder = tmp_path / recipe.id
    first, guided, _ = recipe.wanted_scores()[:3]
    rows(folder / "sessions.jsonl", {"precision": "fp32"})
    rows(folder / "evals.jsonl", {"step": first.step})
    rows(folder / "scores.jsonl", {"step": guided.step, "score": guided.name}, {"step": 12, "score": "of before"})
    samples = samples_path(folder, first.step)
    samples.parent.mkdir()
    samples.touch()
    run = of_one(recipe, tmp_path)
    assert run.scores_left == 5  # the third of step 6 has the first one's samples
    assert sorted((each.sampling_steps, steps) for each, steps in run.to_sample) == [(2, 1), (4, 1), (8, 1)]
    assert run.scoring_pflop == pytest.approx(2 * run.gmacs * (60 * 4 + 60 * 8 * 2 + 30 * 2) / 1e6)
    status = run_status(recipe, folder)
    assert (status.scores, status.wanted_scores, cells(status)["scores"]) == (2, 7, "2/7")


def test_a_finished_run_that_gets_more_scores_is_planned_and_shown_so(tmp_path: Path) -> None:
    recipe = several()
    folder = tmp_path / recipe.id
    rows(folder / "sessions.jsonl", {"precision": "fp32"})
    rows(folder / "evals.jsonl", {"step": 6}, {"step": 12})
    (folder / "finished.json").write_text("{}")
    before, after = of_one(tiny(), tmp_path), of_one(recipe, tmp_path)
    assert (before.state, before.scores_left, before.scoring_pflop) == ("finished", 0, 0)
    assert (after.state, after.scores_left) == ("started", 5)
    assert [run_status(each, folder).state for each in (tiny(), recipe)] == ["finished", "waiting"]


def test_slurm_is_given_a_scoring_job_for_scores_that_were_added(tmp_path: Path) -> None:
    recipe = several()
    sweep = Sweep("one", [recipe])
    folder = run_folders(sweep, tmp_path)[recipe.id]
    rows(folder / "evals.jsonl", {"step": 6}, {"step": 12})
    (folder / "finished.json").write_text("{}")
    (folder / "checkpoints").mkdir()
    for step in (6, 12):
        weights_path(folder / "checkpoints", step).touch()
    work_left = todo(sweep, tmp_path, {})
    assert (work_left.to_train, work_left.to_score, work_left.finished) == ([], [recipe], 0)
    assert todo(Sweep("one", [tiny()]), tmp_path, {}).finished == 1
