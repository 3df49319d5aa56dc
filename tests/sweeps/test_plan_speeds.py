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
from bench.recipe import Recipe
from sweeps.expand import Sweep
from sweeps.plan import check_budget, check_time_known, check_time_limits
from sweeps.plan_report import as_json, print_explanation, print_plan


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


@pytest.mark.parametrize("session", [{"precision": "bf16"}, {"cluster": "elsewhere"}, {"cluster": None}])
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
    assert "gpu: missing" in unknown.unknown_time
    assert (unknown.gpu_hours, unknown.wall_s, unknown.runs[0].step_s) == (None, None, None)
    assert unknown.runs[0].training_pflop > 0
    print_plan(unknown)
    print_explanation(unknown)
    shown = capsys.readouterr().out
    assert "Time is not known: the cluster profile: gpu: missing" in shown
    assert "PFLOP" in shown and "step/s" not in shown
    json.dumps(as_json(unknown), allow_nan=False)
    check_time_limits(unknown, local())
    check_time_known(unknown, local())
    with pytest.raises(InputError, match="--budget: what tiny needs is not known: the cluster profile: gpu: missing"):
        check_budget(unknown, 1)
    no_mfu = planned(sweep, local(gpu={"name": "core", "peak_tflops": {"fp32": 0.05}}))
    assert no_mfu.unknown_time and "mfu: missing" in no_mfu.unknown_time
    known = planned(sweep, local(gpu={"name": "core", "peak_tflops": {"fp32": 0.05}}), mfu=0.2)
    assert known.unknown_time is None
    assert known.wall_s == pytest.approx(known.runs[0].wall_s)
