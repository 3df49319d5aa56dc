"""How a plan is shown: a table with its assumptions, its arithmetic written out, or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench.commands.quantities import figure, flop_text, macs_text, short_time, size_text, time_text
from bench.commands.text_table import print_table
from bench.device import PLAIN
from bench.files.names import visible
from bench.recipe.evaluation import EvaluationConfig
from bench.samplers import network_calls
from bench.samplers.guide import forward_passes
from sweeps.planning.plan import BYTES_PER_WEIGHT, Plan, RunPlan
from sweeps.planning.speeds import (
    CALL_KERNELS,
    CALL_KERNELS_PER_BLOCK,
    JOB_START_S,
    LAUNCH_S,
    STEP_KERNELS,
    STEP_KERNELS_PER_BLOCK,
    Speed,
)

CONVENTION = """\
GMACs: multiply-accumulates (1e9) of one forward pass of one image, what the paper calls Gflops; true FLOPs = 2 x MACs.
Training: forward and backward = 3 forward passes an image. Hours are of what is left; storage is of whole runs, with
2 training states and one being written."""

NOT_INCLUDED = """\
Not included: waiting in the queue, restarts, loading data, writing checkpoints, the decoder and the feature network of
scoring; on disk, the second copy of a step's samples while they are put together."""

COMPUTE_FORMULAS = """\
FLOP of a step       = 2 x GMACs x 3 x batch
FLOP of scoring      = kept steps without a score x samples x forward passes x 2 x GMACs (of `scores`, for each that
                       has samples of its own)
forward passes       = the sampler's network calls, and a second one of the null label, or of the guide by its cost, in
                       each call that is guided"""

MEASURED_FORMULA = (
    "time                 = FLOP / speed, as it was measured or estimated; wall time: with so many runs at once"
)

TIME_FORMULAS = """\
seconds a step       = 2 x GMACs x 3 x batch / (GPUs x peak x MFU), and at least its kernels x {launch:g} microseconds
                       (kernels: {step} + {step_block} x blocks)
training GPU-hours   = steps left x seconds a step x GPUs / 3600
scoring GPU-hours    = kept steps without a score x samples x forward passes x 2 x GMACs / (peak x MFU) / 3600, and at
                       least batches x network calls x kernels x {launch:g} microseconds on every GPU (kernels:
                       {call} + {call_block} x blocks); of `scores`, for each that has samples of its own
forward passes       = the sampler's network calls, and a second one of the null label, or of the guide by its cost, in
                       each call that is guided
a run's share of a job's start, {start:g} s / runs_per_job, is the least for its training and for its scoring
wall time            = the tasks of each array in order of index, the longest first, at most so many at once"""

STORAGE_FORMULAS = """\
training state       = 4 x 4 bytes x trained parameters: weights, their average, two moments of AdamW; each further
                       average (train.ema_decays, train.ema_stds) is one copy more
EMA weights          = 4 bytes x parameters with the position table, for each average, kept step and snapshot
samples              = number x image bytes (uint8), a kept step"""


def print_plan(plan: Plan) -> None:
    """One line a run, the totals, and everything that was assumed."""
    device = _device(plan)
    unit, an_hour = (f" {device}-h", 1.0) if (plan.gpu_hours or 0) >= 1 else (f" {device}-min", 60.0)
    if plan.device == "cpu" and not plan.on_slurm:  # one thread a run: its time
        unit = ""

    def spent(gpu_hours: float | None) -> str:
        if gpu_hours is None:
            return "?"
        return figure(an_hour * gpu_hours) if unit else short_time(3600 * gpu_hours)

    timed: dict[str, Callable[[RunPlan], str]] = {
        "steps/s": lambda run: figure(1 / run.step_s) if run.step_s else "?",
        f"training{unit}": lambda run: spent(run.training_gpu_hours),
        f"scoring{unit}": lambda run: spent(run.scoring_gpu_hours),
        "wall time": lambda run: "?" if run.wall_s is None else short_time(run.wall_s),
    }
    untimed: dict[str, Callable[[RunPlan], str]] = {
        "training": lambda run: _rounded_flop(run.training_pflop),
        "scoring": lambda run: _rounded_flop(run.scoring_pflop),
    }
    columns = untimed if plan.unknown_time else timed
    sums = {
        f"training{unit}": spent(plan.training_gpu_hours),
        f"scoring{unit}": spent(plan.scoring_gpu_hours),
        "wall time": "" if plan.wall_s is None else short_time(plan.wall_s),
    }
    if plan.unknown_time:
        sums = {
            "training": _rounded_flop(sum(run.training_pflop for run in plan.runs)),
            "scoring": _rounded_flop(sum(run.scoring_pflop for run in plan.runs)),
        }
    small = max(run.gmacs for run in plan.runs) < 1
    headings = ["model", "state", "MMACs" if small else "GMACs", f"{device}s", *columns, "checkpoints", "samples"]
    rows = [
        [run.label, run.state, f"{run.gmacs * (1000 if small else 1):.4g}", str(run.training_job.ranks)]
        + [text(run) for text in columns.values()]
        + [size_text(run.state_bytes + run.ema_bytes), size_text(run.sample_bytes)]
        for run in plan.runs
    ]
    total = ["total", "", "", "", *(sums.get(name, "") for name in columns)]
    rows.append([*total, size_text(plan.checkpoint_bytes), size_text(plan.sample_bytes)])
    print(f"{plan.sweep} on {plan.cluster}: {_states(plan)}\n")
    print_table(headings, rows, [index < 2 for index in range(len(headings))])
    print(f"\n{_totals(plan, device)}\n")
    print("\n".join(_assumptions(plan, device)))


def print_explanation(plan: Plan) -> None:
    """The formulas, then each run's and each array's numbers in them."""
    device = _device(plan)
    times = TIME_FORMULAS.format(
        launch=1e6 * LAUNCH_S, step=STEP_KERNELS, step_block=STEP_KERNELS_PER_BLOCK, call=CALL_KERNELS,
        call_block=CALL_KERNELS_PER_BLOCK, start=JOB_START_S,
    )  # fmt: skip
    if _has_no_peak(plan):
        times = COMPUTE_FORMULAS if plan.unknown_time else f"{COMPUTE_FORMULAS}\n{MEASURED_FORMULA}"
    print(f"\n{times}\n{STORAGE_FORMULAS}")
    for run in plan.runs:
        print(f"\n{visible(run.label)} ({run.state})")
        for line in (*_training_lines(run, device), *_scoring_lines(run, device), *_storage_lines(run)):
            print(f"  {line}")
        print(f"  memory of a {device} in training: {_memory_terms(run)}")
    print()
    for number, array in enumerate(plan.arrays, start=1):
        ends = f", ends after {time_text(array.ends_s)}" if array.ends_s is not None else ""
        print(
            f"array {number}: {array.kind}, {array.num_tasks} tasks, {_devices(array.resources.ranks, device)} each, "
            f"at most {array.max_parallel} at once{ends}"
        )


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything the table and the explanation show, in seconds, bytes, PFLOP and device-hours."""
    return {
        "sweep": plan.sweep,
        "cluster": plan.cluster,
        "device": plan.gpu_name,
        "precision": plan.precision,
        **asdict(plan.modes),
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
        "training_memory_bytes": run.memory.total,
        "activation_bytes": run.memory.activations,
        "state_bytes": run.state_bytes,
        "ema_bytes": run.ema_bytes,
        "sample_bytes": run.sample_bytes,
    }


def _states(plan: Plan) -> str:
    """`12 runs: 10 new, 2 finished`."""
    states = [run.state for run in plan.runs]
    counts = [f"{states.count(state)} {state}" for state in ("new", "started", "finished", "failed") if state in states]
    return f"{len(states)} run{'s' if len(states) > 1 else ''}: {', '.join(counts)}"


def _device(plan: Plan) -> str:
    return "GPU" if plan.device == "cuda" else "rank"


def _has_no_peak(plan: Plan) -> bool:
    return not any(run.training and run.training.peak_tflops for run in plan.runs)


def _totals(plan: Plan, device: str) -> str:
    if plan.gpu_hours is None or plan.wall_s is None:
        return f"Time is not known: {plan.unknown_time}."
    if not plan.arrays:
        return "Nothing is left to do."
    spent = _hours(plan.gpu_hours, device)
    if plan.device == "cpu" and not plan.on_slurm:
        spent = f"{time_text(3600 * plan.gpu_hours)} of one thread's work"
    return f"Left to do: {spent}, {time_text(plan.wall_s)} from the first start to the last score."


def _assumptions(plan: Plan, device: str) -> list[str]:
    lines = []
    if not plan.unknown_time:
        training = [run.training for run in plan.runs]
        sampling = [run.sampling for run in plan.runs]
        if _has_no_peak(plan):
            lines += _measurements(plan)
        else:
            peak = next(run.training.peak_tflops for run in plan.runs if run.training)
            lines.append(f"Peak: {peak:g} TFLOP/s a {device} at {plan.precision}, dense ({plan.gpu_name}).")
            both, one = _efficiencies(training, plan), _efficiencies(sampling, plan)
            if both == one:
                lines += [f"MFU in training and sampling{text}" for text in both]
            else:
                lines += [f"MFU in training{text}" for text in both] + [f"MFU in sampling{text}" for text in one]
            lines += _floors(plan)
        lines.append(f"Wall time: {_schedule(plan)}")
    if plan.device == "cuda" or plan.modes != PLAIN:
        lines.append(_memory(plan, device))
    return [*lines, CONVENTION, NOT_INCLUDED]


def _memory(plan: Plan, device: str) -> str:
    """Of the run that needs most of it."""
    run = max(plan.runs, key=lambda run: run.memory.total)
    asked = [name for name, is_asked in vars(plan.modes).items() if is_asked]
    how = f" ({', '.join(asked)})" if asked else ""
    return f"Memory of a {device} in training{how}: at most that of {visible(run.label)}, {_memory_terms(run)}."


def _memory_terms(run: RunPlan) -> str:
    memory = run.memory
    terms = [f"{size_text(memory.held)} of weights, gradients, moments and averages"]
    if memory.whole:
        terms.append(f"{size_text(memory.whole)} of weights put together")
    if memory.cast:
        terms.append(f"{size_text(memory.cast)} of weights in bf16")
    activations = "activations, of which nothing is known"
    if memory.activations is not None:
        activations = f"roughly {size_text(memory.activations)} of activations"
    return " + ".join([*terms, activations])


def _measurements(plan: Plan) -> list[str]:
    """Which runs' speeds were measured here, and for which they are estimated from these."""
    measured = [run.label for run in plan.runs if run.training and run.training.kind == "measured"]
    estimated = [run.label for run in plan.runs if run.training and run.training.kind == "estimated"]
    lines = []
    if measured:
        lines.append(f"Speed of {_listed(measured, plan)}: measured, by runs that were trained here before.")
    if estimated:
        source = next(run.training.source for run in plan.runs if run.training and run.training.kind == "estimated")
        lines.append(f"Speed of {_listed(estimated, plan)}: {visible(source)}; a rough figure.")
    return lines


def _floors(plan: Plan) -> list[str]:
    """What the least times are, why, and for which runs they are more than the compute takes."""
    bound = [run.label for run in plan.runs if run.steps_left and run.step_s == run.step_floor_s]
    begun = [run.label for run in plan.runs if run.steps_left and run.training_s == run.training_start_s]
    lines = [
        f"Least time of a step: {1e6 * LAUNCH_S:g} microseconds to start each kernel, as PyTorch and CUDA need:",
        f"in training {STEP_KERNELS_PER_BLOCK} a block and {STEP_KERNELS} more, in sampling {CALL_KERNELS_PER_BLOCK} a "
        f"block and {CALL_KERNELS} more (counted on DiTs).",
        f"Least time of a job: {JOB_START_S:g} s to start Python, torch and the device.",
    ]
    if bound:
        lines.append(f"Bound by their kernels' starts, not by compute: training steps of {_listed(bound, plan)}.")
    if begun:
        lines.append(f"Bound by its start: the training job of {_listed(begun, plan)}.")
    return lines


def _listed(labels: list[str], plan: Plan) -> str:
    if len(labels) == len(plan.runs) > 1:
        return f"all {len(labels)} runs"
    return visible(", ".join(labels))


def _efficiencies(speeds: list[Speed | None], plan: Plan) -> list[str]:
    """One text for all runs with the same MFU from the same source; runs are named where there are several."""
    labels: dict[str, list[str]] = {}
    for run, speed in zip(plan.runs, speeds, strict=True):
        if speed:
            labels.setdefault(f"{100 * (speed.mfu or 0):.3g} % ({speed.source}).", []).append(run.label)
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
    step = f"step: 2 x {macs_text(run.gmacs)} x 3 x {train.batch_size} images = {flop_text(run.step_tflop)}"
    left = f"training: {run.steps_left:,} of {train.steps:,} steps left"
    if run.step_s is None or run.training is None:
        return [step, f"{left} = {flop_text(1e3 * run.training_pflop)}"]
    computing = run.step_tflop / (run.training.tflops * ranks)
    lines = [f"{step}; / ({_devices(ranks, device)} x {_rate(run.training)}) = {_seconds(computing)}"]
    if run.step_s == computing:
        lines[0] += f", {figure(1 / run.step_s)} steps/s"
    else:
        depth = run.recipe.model.architecture().depth
        lines.append(
            f"but at least ({STEP_KERNELS} + {STEP_KERNELS_PER_BLOCK} x {depth} blocks) kernels x "
            f"{1e6 * LAUNCH_S:g} microseconds = {_seconds(run.step_s)}, {figure(1 / run.step_s)} steps/s"
        )
    hours = f"{left} x {_seconds(run.step_s)} x {_devices(ranks, device)} = {_hours(run.training_gpu_hours, device)}"
    if run.steps_left and run.training_s == run.training_start_s:
        hours = f"{left} x {_seconds(run.step_s)}, but at least {_start(run)} x {_devices(ranks, device)} = " + _hours(
            run.training_gpu_hours, device
        )
    return [*lines, hours]


def _scoring_lines(run: RunPlan, device: str) -> list[str]:
    """A line for each evaluation that has samples of its own, and their sum where there are several."""
    wanted = run.recipe.wanted_samples()
    left = Counter({evaluation.samples_id: steps for evaluation, steps in run.to_sample})
    started = f", but at least {_start(run)}" if run.scores_left and run.scoring_s == run.scoring_start_s else ""
    hours = f" = {_hours(run.scoring_gpu_hours, device)}"
    lines = []
    for evaluation, steps in wanted:
        number = left[evaluation.samples_id]
        compute = (
            f"scoring{_with(evaluation, run)}: {number} of {steps} kept steps left x "
            f"{evaluation.num_samples:,} samples x {_passes(evaluation, run)} x 2 x {macs_text(run.gmacs)} = "
            f"{flop_text(number * run.sampling_tflop(evaluation))}"
        )
        seconds = run.sampling_s(evaluation)
        if run.sampling is None or seconds is None:
            lines.append(compute)
            continue
        least = ""
        if seconds == run.sampling_floor_s(evaluation):
            least = f", but at least {_seconds(seconds)} a score to start its kernels"
        if len(wanted) == 1:
            least += f"{started}{hours}"
        lines.append(
            f"{compute}; / ({_rate(run.sampling)}){least}; {_seconds(seconds)} a score on "
            f"{_devices(run.scoring_job.ranks, device)}"
        )
    if len(wanted) > 1:
        time = f"{started}{hours}" if run.sampling else ""
        lines.append(f"scoring in all: {run.scores_left} scores left, {flop_text(1e3 * run.scoring_pflop)}{time}")
    return lines


def _with(evaluation: EvaluationConfig, run: RunPlan) -> str:
    """In what one of the recipe's `scores` differs from its `evaluation`."""
    own = run.recipe.evaluation.model_dump()
    differing = [f"{key} {value}" for key, value in evaluation.model_dump().items() if value != own[key]]
    return f" with {visible(', '.join(differing))}" if differing else ""


def _passes(evaluation: EvaluationConfig, run: RunPlan) -> str:
    """The forward passes of a sample: "250 network calls", "(250 network calls + 120 guided ones)"."""
    calls = network_calls(evaluation, run.recipe.diffusion)
    text = f"{calls.sampler:,} network calls"
    if not calls.guided:
        return text
    each = (forward_passes(evaluation, run.recipe.diffusion, run.gmacs) - calls.sampler) / calls.guided
    share = "" if each == 1 else f" x {each:.3g} (the guide's cost)"
    return f"({text} + {calls.guided:,} guided ones{share})"


def _start(run: RunPlan) -> str:
    """A run's share of the least that a job takes."""
    shared = run.training_job.runs_per_job
    return f"{JOB_START_S:g} s{f' / {shared} runs' if shared > 1 else ''} for the start of a job"


def _rate(speed: Speed) -> str:
    """A device's speed, as a factor in arithmetic."""
    if speed.peak_tflops is None or speed.mfu is None:
        return f"{flop_text(speed.tflops)}/s, {speed.kind}"
    return f"{speed.peak_tflops:g} TFLOP/s x {100 * speed.mfu:.3g} %"


def _seconds(seconds: float) -> str:
    """A time for arithmetic, in seconds or parts of one where it is short."""
    for unit, size, largest in (("us", 1e-6, 1000), ("ms", 1e-3, 1000), ("s", 1.0, 120)):
        if seconds < largest * size:
            return f"{seconds / size:.4g} {unit}"
    return time_text(seconds)


def _hours(gpu_hours: float | None, device: str) -> str:
    if gpu_hours is None:
        return "?"
    return f"{figure(gpu_hours)} {device}-hours" if gpu_hours >= 1 else f"{figure(60 * gpu_hours)} {device}-minutes"


def _devices(ranks: int, device: str) -> str:
    return f"{ranks} {device}{'s' if ranks > 1 else ''}"


def _storage_lines(run: RunPlan) -> list[str]:
    image = run.recipe.data.facts.image_shape
    many: Counter[int] = Counter()
    for evaluation, steps in run.recipe.wanted_samples():
        many[evaluation.num_samples] += steps
    numbers = [f"{steps} x {number:,}" for number, steps in many.items()]
    arrays = numbers[0] if len(numbers) == 1 else f"({' + '.join(numbers)})"
    return [
        f"states: {run.states} x {run.copies_in_state} x {BYTES_PER_WEIGHT} bytes x {run.trained_weights:,} = "
        f"{size_text(run.state_bytes)}",
        f"EMA weights: {run.kept_files} x {BYTES_PER_WEIGHT} bytes x {run.parameters:,} = {size_text(run.ema_bytes)}",
        f"samples: {arrays} x {' x '.join(map(str, image))} bytes = {size_text(run.sample_bytes)}",
    ]


def _rounded_flop(pflop: float) -> str:
    number, unit = flop_text(1e3 * pflop).split()
    return f"{figure(float(number.replace(',', '')))} {unit}"
