"""How a plan is shown: a table with its assumptions, its arithmetic written out, or JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.commands.text_table import print_table
from bench.files.names import visible
from sweeps.plan import BYTES_PER_WEIGHT, COPIES_IN_STATE, Plan, RunPlan
from sweeps.speeds import Speed

CONVENTION = """\
GMACs: multiply-accumulates (1e9) of one forward pass of one image, what the paper calls Gflops; true FLOPs = 2 x MACs.
Training: forward and backward = 3 forward passes an image. Hours are of what is left; storage is of whole runs, with
2 training states and one being written."""

NOT_INCLUDED = """\
Not included: waiting in the queue, restarts, loading data, writing checkpoints, the decoder and the feature network of
scoring; on disk, the second copy of a step's samples while they are put together."""

FORMULAS = """\
seconds a step       = 2 x GMACs x 3 x batch / (GPUs x peak x MFU)
training GPU-hours   = steps left x seconds a step x GPUs / 3600
scoring GPU-hours    = kept steps without a score x samples x sampling steps (x 2 with guidance) x 2 x GMACs
                       / (peak x MFU) / 3600
training state       = 4 x 4 bytes x trained parameters: weights, their average, two moments of AdamW
EMA weights          = 4 bytes x parameters with the position table, a kept step
samples              = number x image bytes (uint8), a kept step
wall time            = the tasks of each array in order of index, the longest first, at most so many at once"""


def print_plan(plan: Plan) -> None:
    """One line a run, the totals, and everything that was assumed."""
    unit, scale = _bytes_unit(max(plan.checkpoint_bytes, plan.sample_bytes))
    device = "GPU" if plan.device == "cuda" else "rank"
    timed: dict[str, Callable[[RunPlan], float | None]] = {
        "step/s": lambda run: 1 / run.step_s if run.step_s else None,
        f"training {device}-h": lambda run: run.training_gpu_hours,
        f"scoring {device}-h": lambda run: run.scoring_gpu_hours,
        "wall h": lambda run: run.wall_s / 3600 if run.wall_s is not None else None,
    }
    untimed: dict[str, Callable[[RunPlan], float | None]] = {
        "training PFLOP": lambda run: run.training_pflop,
        "scoring PFLOP": lambda run: run.scoring_pflop,
    }
    columns = untimed if plan.unknown_time else timed
    headings = ["model", "state", "GMACs", f"{device}s", *columns, f"checkpoints {unit}", f"samples {unit}"]
    rows = [
        [run.label, run.state, f"{run.gmacs:.4g}", str(run.training_job.ranks)]
        + [_figure(value(run)) for value in columns.values()]
        + [_figure((run.state_bytes + run.ema_bytes) / scale), _figure(run.sample_bytes / scale)]
        for run in plan.runs
    ]
    sums = {
        f"training {device}-h": plan.training_gpu_hours,
        f"scoring {device}-h": plan.scoring_gpu_hours,
        "wall h": plan.wall_s / 3600 if plan.wall_s is not None else None,
        "training PFLOP": sum(run.training_pflop for run in plan.runs),
        "scoring PFLOP": sum(run.scoring_pflop for run in plan.runs),
    }
    total = ["total", "", "", "", *(_figure(sums[name]) if name in sums else "" for name in columns)]
    rows.append([*total, _figure(plan.checkpoint_bytes / scale), _figure(plan.sample_bytes / scale)])
    print(f"{plan.sweep} on {plan.cluster}: {_states(plan)}\n")
    print_table(headings, rows, [index < 2 for index in range(len(headings))])
    print(f"\n{_totals(plan, device)}\n")
    print("\n".join(_assumptions(plan, device)))


def print_explanation(plan: Plan) -> None:
    """The formulas, then each run's and each array's numbers in them."""
    device = "GPU" if plan.device == "cuda" else "rank"
    print(f"\n{FORMULAS}")
    for run in plan.runs:
        print(f"\n{visible(run.label)} ({run.state})")
        for line in (*_training_lines(run, device), *_scoring_lines(run, device), *_storage_lines(run)):
            print(f"  {line}")
    print()
    for number, array in enumerate(plan.arrays, start=1):
        ends = f", ends after {_figure(array.ends_s / 3600)} h" if array.ends_s is not None else ""
        print(
            f"array {number}: {array.kind}, {array.num_tasks} tasks, {array.resources.ranks} {device}s each, at most "
            f"{array.max_parallel} at once{ends}"
        )


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything the table and the explanation show, in seconds, bytes, PFLOP and device-hours."""
    return {
        "sweep": plan.sweep,
        "cluster": plan.cluster,
        "device": plan.gpu_name,
        "precision": plan.precision,
        "evaluate": plan.evaluate,
        "unknown_time": plan.unknown_time,
        "training_gpu_hours": plan.training_gpu_hours,
        "scoring_gpu_hours": plan.scoring_gpu_hours,
        "gpu_hours": plan.gpu_hours,
        "wall_s": plan.wall_s,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "sample_bytes": plan.sample_bytes,
        "runs": [_run_json(run) for run in plan.runs],
        "arrays": [
            {
                "kind": array.kind,
                "tasks": array.num_tasks,
                "ranks": array.resources.ranks,
                "max_parallel": array.max_parallel,
                "ends_s": array.ends_s,
            }
            for array in plan.arrays
        ],
    }


def _run_json(run: RunPlan) -> dict[str, Any]:
    return {
        "id": run.recipe.id,
        "label": run.label,
        "state": run.state,
        "gmacs": run.gmacs,
        "params": run.parameters,
        "training_ranks": run.training_job.ranks,
        "scoring_ranks": run.scoring_job.ranks,
        "steps_left": run.steps_left,
        "scores_left": run.scores_left,
        "training_pflop": run.training_pflop,
        "scoring_pflop": run.scoring_pflop,
        "peak_tflops": run.training.peak_tflops if run.training else None,
        "training_mfu": run.training.mfu if run.training else None,
        "training_mfu_source": run.training.source if run.training else None,
        "sampling_mfu": run.sampling.mfu if run.sampling else None,
        "sampling_mfu_source": run.sampling.source if run.sampling else None,
        "step_s": run.step_s,
        "training_gpu_hours": run.training_gpu_hours,
        "scoring_gpu_hours": run.scoring_gpu_hours,
        "wall_s": run.wall_s,
        "state_bytes": run.state_bytes,
        "ema_bytes": run.ema_bytes,
        "sample_bytes": run.sample_bytes,
    }


def _states(plan: Plan) -> str:
    """`12 runs: 10 new, 2 finished`."""
    states = [run.state for run in plan.runs]
    counts = [f"{states.count(state)} {state}" for state in ("new", "started", "finished", "failed") if state in states]
    return f"{len(states)} runs: {', '.join(counts)}"


def _totals(plan: Plan, device: str) -> str:
    if plan.gpu_hours is None or plan.wall_s is None:
        return f"Time is not known: {plan.unknown_time}."
    return (
        f"Left to do: {_figure(plan.gpu_hours)} {device}-hours, {_figure(plan.wall_s / 3600)} hours "
        f"({_figure(plan.wall_s / 86400)} days) from the first start to the last score."
    )


def _assumptions(plan: Plan, device: str) -> list[str]:
    lines = []
    if not plan.unknown_time:
        peak = next(run.training.peak_tflops for run in plan.runs if run.training)
        lines.append(f"Peak: {peak:g} TFLOP/s a {device} at {plan.precision}, dense ({plan.gpu_name}).")
        training = _efficiencies([run.training for run in plan.runs], plan)
        sampling = _efficiencies([run.sampling for run in plan.runs], plan)
        if training == sampling:
            lines += [f"MFU in training and sampling{text}" for text in training]
        else:
            lines += [f"MFU in training{text}" for text in training] + [f"MFU in sampling{text}" for text in sampling]
        lines.append(f"Wall time: {_schedule(plan)}")
    return [*lines, CONVENTION, NOT_INCLUDED]


def _efficiencies(speeds: list[Speed | None], plan: Plan) -> list[str]:
    """One text for all runs with the same MFU from the same source; runs are named where there are several."""
    labels: dict[str, list[str]] = {}
    for run, speed in zip(plan.runs, speeds, strict=True):
        if speed:
            labels.setdefault(f"{100 * speed.mfu:.3g} % ({speed.source}).", []).append(run.label)
    if len(labels) == 1:
        return [f": {text}" for text in labels]
    return [f" of {visible(', '.join(runs))}: {text}" for text, runs in labels.items()]


def _schedule(plan: Plan) -> str:
    """How the arrays run, in words."""
    limits = [array.max_parallel for array in plan.arrays]
    if not limits:
        return "nothing is left to do."
    at_once = str(min(limits)) if len(set(limits)) == 1 else f"{min(limits)} to {max(limits)}"
    scoring = {
        "inline": "the training job scores",
        "after": "scoring tasks start when their training task has ended",
        "as-ready": "scoring is planned as if it began when its training task has ended, so the end may come sooner",
    }[plan.evaluate]
    arrays = f"{len(limits)} job array{'s' if len(limits) > 1 else ''}"
    return f"{arrays}, at most {at_once} tasks of one at once, the longest first; {scoring}."


def _training_lines(run: RunPlan, device: str) -> list[str]:
    train, ranks = run.recipe.train, run.training_job.ranks
    step = f"step: 2 x {_exact(run.gmacs)} GMACs x 3 x {train.batch_size} images = {_exact(run.step_tflop)} TFLOP"
    left = f"training: {run.steps_left:,} of {train.steps:,} steps left"
    if run.step_s is None or run.training is None:
        return [step, f"{left} = {_exact(run.training_pflop)} PFLOP"]
    speed = run.training
    return [
        f"{step}; / ({ranks} {device}s x {speed.peak_tflops:g} TFLOP/s x {100 * speed.mfu:.3g} %) = "
        f"{run.step_s:.4g} s, {1 / run.step_s:.4g} steps/s",
        f"{left} x {run.step_s:.4g} s x {ranks} {device}s = {_figure(run.training_gpu_hours)} {device}-hours",
    ]


def _scoring_lines(run: RunPlan, device: str) -> list[str]:
    evaluation, ranks = run.recipe.evaluation, run.scoring_job.ranks
    guided = " x 2 (guidance)" if evaluation.guidance_scale != 1 else ""
    compute = (
        f"scoring: {run.scores_left} of {len(run.recipe.train.kept_steps())} kept steps left x "
        f"{evaluation.num_samples:,} samples x {evaluation.sampling_steps} steps{guided} x 2 x {_exact(run.gmacs)} "
        f"GMACs = {_exact(run.scoring_pflop)} PFLOP"
    )
    if run.sampling is None or run.score_s is None:
        return [compute]
    speed = run.sampling
    return [
        f"{compute}; / ({speed.peak_tflops:g} TFLOP/s x {100 * speed.mfu:.3g} %) = "
        f"{_figure(run.scoring_gpu_hours)} {device}-hours; {_figure(run.score_s / 3600)} h a score on {ranks} {device}s"
    ]


def _storage_lines(run: RunPlan) -> list[str]:
    kept, image = len(run.recipe.train.kept_steps()), run.recipe.data.facts.image_shape
    return [
        f"states: {run.states} x {COPIES_IN_STATE} x {BYTES_PER_WEIGHT} bytes x {run.trained_weights:,} = "
        f"{_size(run.state_bytes)}",
        f"EMA weights: {kept} x {BYTES_PER_WEIGHT} bytes x {run.parameters:,} = {_size(run.ema_bytes)}",
        f"samples: {kept} x {run.recipe.evaluation.num_samples:,} x {' x '.join(map(str, image))} bytes = "
        f"{_size(run.sample_bytes)}",
    ]


def _figure(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _exact(value: float) -> str:
    """Enough digits to check the arithmetic."""
    return f"{value:,.6g}"


def _bytes_unit(largest: float) -> tuple[str, float]:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if largest >= scale:
            return unit, scale
    return "kB", 1e3


def _size(number: float) -> str:
    unit, scale = _bytes_unit(number)
    return f"{_figure(number / scale)} {unit}"
