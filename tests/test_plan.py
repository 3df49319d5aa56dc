"""Plans: the paper's published speed and compute, hand-computed schedules, real files, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipes import tiny

import sweeps
from bench import checkpoint
from bench.errors import InputError
from bench.recipe import Recipe
from bench.run import run
from bench.run_folder import weights_path, write_config
from sweeps import plan as plan_module
from sweeps.cluster import ClusterProfile, load_cluster
from sweeps.expand import Sweep, load_sweep
from sweeps.groups import groups, local_slots, work
from sweeps.plan import Plan, RunPlan, check_budget, check_time_limits, end_times, plan
from sweeps.plan_report import as_json, print_explanation, print_plan

SCALING = load_sweep(Path(sweeps.__file__).parent / "scaling.yaml")
A100 = {"name": "A100", "peak_tflops": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0}}
# 8 x A100, XL/2 (paper's code): steps a second; a step is 3 x 256 forward passes of 118.64 GMACs (paper, Table 4).
PUBLISHED_STEPS_PER_S = {"fp32": 0.51, "tf32": 0.81}
XL2_STEP_FLOP = 2 * 3 * 256 * 118.64e9
DAY = "24:00:00"


def profile(**changes: Any) -> ClusterProfile:
    content: dict[str, Any] = {
        "executor": "slurm",
        "device": "cuda",
        "precision": "tf32",
        "gpu": A100,
        "mfu": {"training": 0.1, "sampling": 0.2, "source": "a guess"},
        "time_limit": DAY,
        "training": [{"gpus_per_node": 8}],
        "evaluation": [{"gpus_per_node": 2}],
    }
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    return ClusterProfile.model_validate(content)


def local(**changes: Any) -> ClusterProfile:
    return ClusterProfile.model_validate({"executor": "local", **changes})


def only(*labels: str) -> Sweep:
    return Sweep("some", [recipe for recipe in SCALING.recipes if recipe.label in labels])


def planned(sweep: Sweep, where: ClusterProfile, folder: Path = Path("nowhere"), **options: Any) -> Plan:
    return plan(sweep, where, "here", {recipe.id: folder / recipe.id for recipe in sweep.recipes}, **options)


def one(label: str, where: ClusterProfile, **options: Any) -> RunPlan:
    return planned(only(label), where, **options).runs[0]


def rows(path: Path, *content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


# Compute and time


@pytest.mark.parametrize(("precision", "peak", "percent"), [("fp32", 19.5e12, 59.6), ("tf32", 156e12, 11.8)])
def test_the_papers_speed_and_hours(precision: str, peak: float, percent: float) -> None:
    published = PUBLISHED_STEPS_PER_S[precision]
    mfu = published * XL2_STEP_FLOP / (8 * peak)
    assert 100 * mfu == pytest.approx(percent, abs=0.05)
    xl2 = one("XL/2", profile(), mfu=mfu, precision=precision)
    assert xl2.step_s is not None
    assert 1 / xl2.step_s == pytest.approx(published, rel=1e-4)  # 118.64 is rounded
    assert xl2.training_gpu_hours == pytest.approx(400_000 / published * 8 / 3600, rel=1e-4)
    assert xl2.training == xl2.sampling
    assert xl2.training and xl2.training.source == "given"


def test_the_shipped_example_gives_the_papers_speed() -> None:
    xl2 = one("XL/2", load_cluster("slurm-example"))
    assert xl2.training_job.ranks == 8
    assert xl2.step_s is not None
    assert round(1 / xl2.step_s, 2) == PUBLISHED_STEPS_PER_S["tf32"]
    assert xl2.training and "0.81 steps/s" in xl2.training.source


@pytest.mark.parametrize("label", ["S/8", "L/4", "XL/2"])
def test_one_fid_50k_costs_16300_training_steps(label: str) -> None:
    run_plan = one(label, profile(), mfu=0.3)
    assert run_plan.score_tflop / run_plan.step_tflop == pytest.approx(50_000 * 250 / (3 * 256))
    assert f"{run_plan.score_tflop / run_plan.step_tflop / 1e3:.1f}" == "16.3"
    # The same MFU: a score on 2 GPUs lasts as long as 4 x 16.3K steps on 8.
    assert run_plan.score_s is not None and run_plan.step_s is not None
    assert run_plan.score_s / run_plan.step_s == pytest.approx(4 * 50_000 * 250 / (3 * 256))
    assert run_plan.scores_left == 8
    assert run_plan.scoring_gpu_hours == pytest.approx(8 * 2 * run_plan.score_s / 3600)


def test_guidance_doubles_the_forward_passes() -> None:
    plain, guided = tiny(), tiny(evaluation={"guidance_scale": 1.5, "guidance_channels": None})
    first, second = planned(Sweep("two", [plain, guided]), local()).runs
    assert first.forward_passes == 60 * 4
    assert second.score_tflop == 2 * first.score_tflop
    assert second.step_tflop == first.step_tflop
    assert work(guided) > work(plain)


def test_totals_are_the_sums() -> None:
    whole = planned(SCALING, profile())
    assert whole.training_gpu_hours == pytest.approx(sum(r.training_gpu_hours or 0 for r in whole.runs))
    # Table 4 again: the sum of the 12 printed Gflops, within their rounding.
    printed = (0.36, 1.41, 6.06, 1.42, 5.56, 23.01, 5.01, 19.70, 80.71, 7.39, 29.05, 118.64)
    hours = sum(printed) * 1e9 * 6 * 256 * 400_000 / (156e12 * 0.1) / 3600
    assert whole.training_gpu_hours == pytest.approx(hours, rel=1e-3)
    # Training at an MFU of 10 %, sampling at 20 %: half of 8 x 16.3K steps.
    assert whole.scoring_gpu_hours == pytest.approx(hours * 8 * 16_276 / 400_000 / 2, rel=1e-3)
    assert whole.gpu_hours == pytest.approx(1.163 * hours, rel=1e-3)


# Where the MFU comes from


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


def test_a_missing_speed_is_an_error_on_slurm() -> None:
    sweep = only("XL/2")
    expected = {
        "gpu: missing: name and peak_tflops.tf32, dense, in TFLOP/s": {"gpu": None},
        "gpu.peak_tflops.tf32: missing: the dense peak in TFLOP/s (2 a multiply-accumulate); given: bf16": {
            "gpu": {"name": "A100", "peak_tflops": {"bf16": 312.0}}
        },
        "mfu: missing: training, sampling and source, or --mfu; XL/2 was not measured here": {"mfu": None},
    }
    for message, changes in expected.items():
        with pytest.raises(InputError) as caught:
            planned(sweep, profile(**changes))
        assert str(caught.value) == f"the cluster profile: {message}"
    for wrong in (0.0, 12.0):
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
    with pytest.raises(InputError, match="--budget: what tiny needs is not known: the cluster profile: gpu: missing"):
        check_budget(unknown, 1)
    no_mfu = planned(sweep, local(gpu={"name": "core", "peak_tflops": {"fp32": 0.05}}))
    assert no_mfu.unknown_time and "mfu: missing" in no_mfu.unknown_time
    known = planned(sweep, local(gpu={"name": "core", "peak_tflops": {"fp32": 0.05}}), mfu=0.2)
    assert known.unknown_time is None
    assert known.wall_s == pytest.approx(known.runs[0].wall_s)


# Schedules


@pytest.mark.parametrize(
    ("durations", "max_parallel", "ready", "ends"),
    [
        ([], 3, None, []),
        ([2], 5, None, [2]),
        ([5, 3, 2, 2], 2, None, [5, 3, 5, 7]),
        ([1, 2, 3], 1, None, [1, 3, 6]),
        ([4, 4, 4], 2, None, [4, 4, 8]),
        ([1, 3, 3], 1, [4, 0, 0], [7, 3, 6]),  # the first waits, those behind it pass
        ([2, 2], 1, [1, 9], [3, 11]),
        ([0, 0, 3], 1, None, [0, 0, 3]),
    ],
)
def test_end_times_by_hand(
    durations: list[float], max_parallel: int, ready: list[float] | None, ends: list[float]
) -> None:
    assert end_times(durations, max_parallel, ready) == ends


tasks = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8)), max_size=8)


@given(tasks, st.integers(1, 4))
def test_end_times_equal_a_clock_that_ticks(drawn: list[tuple[int, int]], max_parallel: int) -> None:
    durations, ready = [d for d, _ in drawn], [r for _, r in drawn]
    ends: dict[int, int] = {}
    now = 0
    while len(ends) < len(drawn):
        for task in range(len(drawn)):
            running = sum(end > now for end in ends.values())
            if task not in ends and ready[task] <= now and running < max_parallel:
                ends[task] = now + durations[task]
        now += 1
    assert end_times(durations, max_parallel, ready) == [ends[task] for task in range(len(drawn))]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(1, 25))
def test_the_last_end_is_within_grahams_bounds(durations: list[float], max_parallel: int) -> None:
    last = max(end_times(durations, max_parallel))
    spread, longest = sum(durations) / max_parallel, max(durations)
    assert last >= max(spread, longest) * (1 - 1e-9)
    assert last <= (spread + longest * (1 - 1 / max_parallel)) * (1 + 1e-9)
    if max_parallel >= len(durations):
        assert last == longest


def equal_runs(number: int) -> Sweep:
    return Sweep("seeds", [only("S/2").recipes[0].model_copy(update={"seed": seed}) for seed in range(number)])


def test_wall_time_with_the_array_limit() -> None:
    sweep = equal_runs(3)
    inline = planned(sweep, profile(evaluate="inline", max_parallel=2))
    first = inline.runs[0]
    assert first.training_s is not None and first.scoring_s is not None
    assert first.scoring_job == first.training_job
    assert inline.wall_s == pytest.approx(2 * (first.training_s + first.scoring_s))
    assert [(a.kind, a.num_tasks, a.max_parallel) for a in inline.arrays] == [("training", 3, 2)]
    for evaluate in ("after", "as-ready"):
        scoring = [{"gpus_per_node": 2, "max_parallel": 1}]
        after = planned(sweep, profile(evaluate=evaluate, max_parallel=2, evaluation=scoring))
        t, s = after.runs[0].training_s, after.runs[0].scoring_s
        assert t is not None and s is not None
        # Trained at t, t and 2t; scored one after the other.
        assert after.wall_s == pytest.approx(max(t + 2 * s, 2 * t) + s)
        assert [array.ends_s for array in after.arrays] == pytest.approx([2 * t, after.wall_s])


def test_wall_time_of_packed_runs() -> None:
    packed = profile(evaluate="inline", training=[{"gpus_per_node": 8, "runs_per_job": 2}])
    whole = planned(equal_runs(3), packed)
    assert whole.runs[0].wall_s is not None
    assert whole.wall_s == pytest.approx(2 * whole.runs[0].wall_s)
    assert whole.arrays[0].num_tasks == 2


# Groups


def test_groups_follow_resources_and_put_the_longest_first() -> None:
    where = load_cluster("slurm-example")
    training, scoring = groups(SCALING.recipes, where, "training"), groups(SCALING.recipes, where, "evaluation")
    labels = [[[recipe.label for recipe in task] for task in group.tasks] for group in training]
    assert labels == [
        [["S/8", "S/4", "B/8"]],
        [["B/2"], ["L/4"], ["XL/8"], ["S/2"], ["B/4"], ["L/8"]],
        [["XL/2"], ["L/2"], ["XL/4"]],
    ]
    assert [group.resources.gpus_per_node for group in training] == [2, 4, 8]
    assert [group.max_parallel for group in training] == [4, 6, 4]
    # Scoring task i is of training task i.
    assert [group.tasks for group in scoring] == [group.tasks for group in training]
    assert [group.resources.gpus_per_node for group in scoring] == [4, 4, 8]


def test_arrays_are_parted_where_scoring_jobs_differ() -> None:
    where = profile(evaluation=[{"models": ["XL/2"], "gpus_per_node": 8}, {"gpus_per_node": 1}])
    training, scoring = groups(SCALING.recipes, where, "training"), groups(SCALING.recipes, where, "evaluation")
    assert [group.resources.gpus_per_node for group in training] == [8, 8]
    assert [group.resources.gpus_per_node for group in scoring] == [1, 8]
    assert [group.tasks for group in scoring] == [group.tasks for group in training]
    assert [len(group.tasks) for group in training] == [11, 1]
    inline = where.model_copy(update={"evaluate": "inline"})
    assert [len(group.tasks) for group in groups(SCALING.recipes, inline, "training")] == [12]
    assert groups(SCALING.recipes, inline, "evaluation") == []


@given(st.integers(1, 5), st.lists(st.sampled_from(SCALING.recipes), unique_by=lambda r: r.id, max_size=12))
def test_every_run_is_in_one_task(size: int, recipes: list[Recipe]) -> None:
    packed = profile(training=[{"max_gmacs": 10.0, "gpus_per_node": 2, "runs_per_job": size}, {"gpus_per_node": 8}])
    result = groups(recipes, packed, "training")
    seen = [recipe.id for group in result for task in group.tasks for recipe in task]
    assert sorted(seen) == sorted(recipe.id for recipe in recipes)
    order = [recipe.id for recipe in recipes]
    for group in result:
        costs = [sum(map(work, task)) for task in group.tasks]
        assert costs == sorted(costs, reverse=True)
        for task in group.tasks:
            assert 1 <= len(task) <= group.resources.runs_per_job
            positions = [order.index(recipe.id) for recipe in task]
            assert positions == sorted(positions)
            assert all(packed.training_resources(recipe) == group.resources for recipe in task)


def test_groups_of_this_machine() -> None:
    digits = load_sweep(Path(sweeps.__file__).parent / "digits.yaml").recipes
    (group,) = groups(digits, local(), "training")
    assert [task[0].label for task in group.tasks[:3]] == ["XL/1", "L/1", "XL/2"]
    assert group.max_parallel == local_slots("cpu") >= 1
    assert groups(digits, local(), "evaluation") == []
    (on_gpu,) = groups(digits, local(device="cuda"), "training")
    assert (on_gpu.max_parallel, on_gpu.resources.gpus_per_node) == (1, 1)


# What exists


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
    assert "1 runs: 1 finished" in capsys.readouterr().out


# What is refused


def test_budget() -> None:
    whole = planned(only("XL/2"), profile())
    assert whole.gpu_hours is not None
    check_budget(whole, whole.gpu_hours)
    with pytest.raises(InputError) as caught:
        check_budget(whole, 1000)
    assert str(caught.value) == (
        f"some on here needs {whole.gpu_hours:,.1f} GPU-hours, over --budget 1000; nothing was submitted"
    )


def test_time_limits() -> None:
    # XL/2 at an MFU of 10 % on 8 A100 with TF32: 182.228 TFLOP a step take 1.460 s, 5,000 steps 7,301 s.
    fits = profile(time_limit="02:03:41", signal_before_end_s=120)  # SLURM rounds seconds up to a minute
    check_time_limits(planned(only("S/8", "XL/2"), fits), fits)
    short = profile(time_limit="02:03:00", signal_before_end_s=120)
    with pytest.raises(InputError) as caught:
        check_time_limits(planned(only("S/8", "XL/2"), short), short)
    usable = 2 * 3600 + 3 * 60 - 120
    assert str(caught.value) == (
        "XL/2: train.save_every: 5000 steps between checkpoints take 7301 s at 1.46 s a step, but a job of the "
        f"cluster profile has {usable} s (time_limit 02:03:00 less signal_before_end_s 120); accepted: "
        f"train.save_every of at most {usable * 8 * 15.6 // 182.228:.0f}, a longer time_limit, or more GPUs in training"
    )
    # Kept steps are saved too.
    often = only("XL/2").recipes[0]
    train = often.train.model_copy(update={"checkpoint_steps": tuple(range(500, 400_000, 500))})
    where = profile(time_limit="01:00:00")
    check_time_limits(planned(Sweep("often", [often.model_copy(update={"train": train})]), where), where)


def test_a_time_limit_that_the_signal_uses_up() -> None:
    where = profile(time_limit="00:02:00", signal_before_end_s=120)
    with pytest.raises(InputError, match=r"has 0 s .*; accepted: a longer time_limit, or more GPUs in training"):
        check_time_limits(planned(only("XL/2"), where), where)


# What is shown


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
    assert "8 of 8 kept steps left x 50,000 samples x 250 steps x 2 x 118.638 GMACs = 23,727.6 PFLOP" in explained
    assert "states: 3 x 4 x 4 bytes x 674,834,720 = 32.4 GB" in explained
    assert "samples: 8 x 50,000 x 3 x 256 x 256 bytes = 78.6 GB" in explained
    assert explained.count("\narray ") == 6
    content = json.loads(json.dumps(as_json(whole), allow_nan=False))
    assert content["gpu_hours"] == pytest.approx(whole.gpu_hours)
    assert len(content["runs"]) == 12
    assert sum(r["training_gpu_hours"] for r in content["runs"]) == pytest.approx(content["training_gpu_hours"])


def test_planning_loads_no_torch() -> None:
    script = "import sys, sweeps.plan_report, sweeps.plan; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
