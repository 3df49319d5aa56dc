"""Where a plan's MFU comes from: measured here, given, or missing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from recipes import tiny
from scaling_plans import local, only, planned, profile, rows

from bench.errors import InputError
from bench.files.run_folder import write_config
from bench.recipe import Recipe
from sweeps.cluster import load_cluster
from sweeps.expand import Sweep, load_sweep
from sweeps.groups import step_work
from sweeps.planning.plan import check_budget, check_time_known, check_time_limits
from sweeps.planning.report import as_json, print_explanation, print_plan
from sweeps.planning.speeds import score_floor_s


def started(folder: Path, recipe: Recipe, images_per_s: float, **session: Any) -> None:
    """A run of 2,000 steps: slow up to step 1,000, where it was stopped, then at `images_per_s`."""
    facts = {"precision": "tf32", "cluster": "here", "world_size": 8, **session}
    rows(folder / recipe.id / "sessions.jsonl", {**facts, "resumed_from_step": 0}, {**facts, "resumed_from_step": 1000})
    steps = [{"step": step, "images_per_s": 1.0 if step <= 1000 else images_per_s} for step in range(100, 2001, 100)]
    rows(folder / recipe.id / "train.jsonl", *steps)


def test_mfu_as_measured(tmp_path: Path) -> None:
    sweep = only("XL/2", "XL/4")
    by_label = {recipe.label: recipe for recipe in sweep.recipes}
    started(tmp_path, by_label["XL/2"], images_per_s=0.81 * 256)
    runs = {r.label: r for r in planned(sweep, profile(), tmp_path).runs}
    measured = runs["XL/2"]
    assert measured.step_s is not None
    assert 1 / measured.step_s == pytest.approx(0.81)
    assert measured.training and measured.training.mfu == pytest.approx(0.118, abs=5e-4)
    assert measured.training.source == "measured: XL/2 on 8 ranks, median of 10 rows of train.jsonl"
    assert measured.sampling and (measured.sampling.mfu, measured.sampling.source) == (0.2, "a guess")
    other = runs["XL/4"].training
    assert other and (other.mfu, other.source) == (0.1, "a guess")
    without = planned(only("XL/2"), profile(mfu=None), tmp_path).runs[0].sampling
    assert without and without.mfu == measured.training.mfu
    assert without.source.startswith("as in training, measured: XL/2")


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, None])
def test_rates_that_tell_no_time_are_not_taken_for_measured(tmp_path: Path, rate: float | None) -> None:
    sweep = only("XL/2")
    facts = {"precision": "tf32", "cluster": "here", "world_size": 8, "resumed_from_step": 0}
    folder = tmp_path / sweep.recipes[0].id
    rows(folder / "sessions.jsonl", facts)
    rows(folder / "train.jsonl", {"step": 100, "images_per_s": rate}, {"step": 200, "images_per_s": 0.81 * 256})
    measured = planned(sweep, profile(), tmp_path).runs[0].training
    assert measured and measured.source == "measured: XL/2 on 8 ranks, median of 1 rows of train.jsonl"
    rows(folder / "train.jsonl", {"step": 100, "images_per_s": rate})
    guessed = planned(sweep, profile(), tmp_path).runs[0].training
    assert guessed and guessed.source == "a guess"


def test_mfu_measured_on_another_run_of_the_model(tmp_path: Path) -> None:
    first = only("XL/2").recipes[0]
    second = first.model_copy(update={"seed": 1, "label": "again"})
    started(tmp_path, first, images_per_s=0.81 * 256)
    again = planned(Sweep("seeds", [second, first]), profile(), tmp_path).runs[0]
    assert again.state == "new"
    assert again.training and again.training.mfu == pytest.approx(0.118, abs=5e-4)
    assert again.training.source.startswith("measured: XL/2 on 8 ranks")


@pytest.mark.parametrize(
    "session", [{"precision": "bf16"}, {"cluster": "elsewhere"}, {"cluster": None}, {"checkpoint_activations": True}]
)
def test_speeds_of_other_settings_are_not_used(tmp_path: Path, session: dict[str, Any]) -> None:
    sweep = only("XL/2")
    started(tmp_path, sweep.recipes[0], 207.0, **session)
    speed = planned(sweep, profile(), tmp_path).runs[0].training
    assert speed and speed.source == "a guess"


def test_a_plan_for_slurm_needs_speeds() -> None:
    sweep = only("XL/2")
    expected = {
        "gpu: missing: name and peak_tflops.tf32, dense, in TFLOP/s": {"gpu": None},
        "gpu.peak_tflops.tf32: missing: the dense peak in TFLOP/s (2 a multiply-accumulate); given: bf16": {
            "gpu": {"name": "A100", "peak_tflops": {"bf16": 312.0}}
        },
        "mfu: missing: training, sampling and source, or --mfu; XL/2 was not measured here": {"mfu": None},
    }
    for message, changes in expected.items():
        where = profile(**changes)
        unknown = planned(sweep, where)
        assert unknown.gpu_hours is None
        check_time_limits(unknown, where)  # a submission goes without
        with pytest.raises(InputError) as caught:
            check_time_known(unknown, where)
        assert str(caught.value) == f"the cluster profile: {message}"
    for wrong in (0.0, 1e-300, math.nan, 12.0):
        with pytest.raises(InputError, match=f"--mfu {wrong:g}: accepted: a share of the peak"):
            planned(sweep, profile(), mfu=wrong)


def test_this_machine_needs_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep("tiny", [tiny()])
    unknown = planned(sweep, local())
    assert unknown.unknown_time is not None
    assert (unknown.gpu_hours, unknown.wall_s, unknown.runs[0].step_s) == (None, None, None)
    assert unknown.runs[0].training_pflop > 0
    print_plan(unknown)
    print_explanation(unknown)
    shown = capsys.readouterr().out
    assert f"Time is not known: {unknown.unknown_time}" in shown
    assert "FLOP" in shown and "steps/s" not in shown and "MFU" not in shown
    json.dumps(as_json(unknown), allow_nan=False)
    check_time_limits(unknown, local())
    check_time_known(unknown, local())
    with pytest.raises(InputError, match="--budget: what tiny needs is not known: no run was trained here yet"):
        check_budget(unknown, 1)
    no_mfu = planned(sweep, local(gpu={"name": "core", "peak_tflops": {"fp32": 0.05}}))
    assert no_mfu.unknown_time and "mfu: missing" in no_mfu.unknown_time
    known = planned(sweep, local(gpu={"name": "core", "peak_tflops": {"fp32": 0.05}}), mfu=0.2)
    assert known.unknown_time is None
    assert known.wall_s == pytest.approx(known.runs[0].wall_s)


def test_a_shipped_sweep_says_what_it_took_elsewhere() -> None:
    assert "results/digits its runs took 6 minutes of CPU time" in str(
        planned(load_sweep("digits"), local()).unknown_time
    )
    other = Sweep("digits", [tiny()])  # of the same name alone
    assert "results/digits" not in str(planned(other, local()).unknown_time)


# --- this machine, as runs before have it ---

HERE = {"precision": "fp32", "cluster": "here", "world_size": 1, "device": "cpu x86_64", "resumed_from_step": 0}


def trained(folder: Path, recipe: Recipe, images_per_s: float, **session: Any) -> None:
    """A whole run of this machine, whose samples are made as fast as it trains."""
    write_config(recipe, folder)
    rows(folder / "sessions.jsonl", {**HERE, **session})
    rows(folder / "train.jsonl", *({"step": step, "images_per_s": images_per_s} for step in (4, 8, 12)))
    rows(folder / "evals.jsonl", {"step": 6, "sampling_images_per_s": images_per_s})


def test_this_machines_time_is_that_of_runs_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tiny(), tiny(seed=1)
    trained(tmp_path / first.id, first, images_per_s=16.0)
    made = planned(Sweep("tiny", [first, again]), local(), tmp_path)
    assert made.unknown_time is None
    for run in made.runs:
        assert run.step_s == pytest.approx(run.recipe.train.batch_size / 16)
        assert run.score_s == pytest.approx(60 / 16)
    print_plan(made)
    assert "measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    "session", [{"device": "NVIDIA H100"}, {"precision": "bf16"}, {"cluster": "a-cluster"}, {"cluster": None}]
)
def test_runs_of_other_machines_and_devices_tell_nothing_of_this_one(tmp_path: Path, session: dict[str, Any]) -> None:
    recipe = tiny()
    trained(tmp_path / recipe.id, recipe, 16.0, **session)
    assert planned(Sweep("tiny", [recipe]), local(), tmp_path).unknown_time


def test_runs_of_other_sweeps_tell_too(tmp_path: Path) -> None:
    recipe = tiny()
    trained(tmp_path / "other" / "a", recipe, images_per_s=16.0)
    rows(tmp_path / "other" / "damaged" / "sessions.jsonl", HERE)
    rows(tmp_path / "other" / "damaged" / "train.jsonl", {"step": 4, "images_per_s": 1.0})
    new = tiny(seed=5)
    (run,) = planned(Sweep("new", [new]), local(), tmp_path / "new", runs_folder=tmp_path).runs
    assert run.step_s == pytest.approx(new.train.batch_size / 16)
    assert run.training and run.training.kind == "measured"


def test_a_model_that_was_never_trained_here_is_estimated(tmp_path: Path) -> None:
    known, deeper = tiny(), tiny(model={"depth": 6})
    trained(tmp_path / known.id, known, images_per_s=16.0)
    first, second = planned(Sweep("two", [known, deeper]), local(), tmp_path).runs
    assert second.training and second.training.kind == "estimated"
    assert first.step_s and second.step_s
    assert second.step_s / first.step_s == pytest.approx(step_work(deeper) / step_work(known))


# --- the least that a step and a job take ---


def test_small_models_are_bound_by_their_kernels_and_jobs_by_their_start() -> None:
    digits = load_sweep("digits")
    made = planned(digits, load_cluster("slurm-example"))
    for run in made.runs:
        depth = run.recipe.model.architecture().depth
        assert run.step_s == pytest.approx(5e-6 * (260 + 60 * depth))
        # 250 samples in batches of 64 are a batch for each of 4 GPUs.
        assert run.score_s == pytest.approx(5e-6 * 25 * (50 + 20 * depth))
        assert run.training_s == run.scoring_s == 30
        assert run.training_gpu_hours == pytest.approx(4 * 30 / 3600)
    # 12 training tasks at most 6 at once, 12 scoring tasks at most 2 at once, the first once it is trained.
    assert made.wall_s == pytest.approx(30 + 6 * 30)


def test_runs_of_a_job_share_its_start() -> None:
    made = planned(load_sweep("digits"), profile(training=[{"gpus_per_node": 8, "runs_per_job": 4}]))
    assert {run.training_s for run in made.runs} == {7.5}
    assert [array.num_tasks for array in made.arrays] == [3, 3]
    inline = planned(load_sweep("digits"), profile(training=[{"gpus_per_node": 8}], evaluate="inline"))
    assert all(run.training_s == 30 and run.scoring_s and run.scoring_s < 1 for run in inline.runs)


def test_what_was_measured_has_no_least_time(tmp_path: Path) -> None:
    recipe = load_sweep("digits").recipes[0]
    rows(
        tmp_path / recipe.id / "sessions.jsonl", {**HERE, "precision": "tf32", "device": "NVIDIA A100", "world_size": 8}
    )
    rows(tmp_path / recipe.id / "train.jsonl", {"step": 100, "images_per_s": 1e6})
    (run,) = planned(Sweep("one", [recipe]), profile(), tmp_path).runs
    assert run.step_s == pytest.approx(recipe.train.batch_size / 1e6)


def test_guidance_calls_the_network_no_more_often() -> None:
    plain = load_sweep("digits").recipes[0]
    guided = plain.model_copy(update={"evaluation": plain.evaluation.model_copy(update={"guidance_scale": 2.0})})
    assert score_floor_s(guided, 1) == score_floor_s(plain, 1) == 4 * score_floor_s(plain, 4)
