"""What a sweep will cost, before anything is submitted: GPU-hours, wall time and storage of every run.

Compute is exact (`bench.flops.cost_of`); time is compute over a speed (`sweeps.planning.speeds`), and no shorter than
starting kernels and jobs takes. Runs that exist cost what is left of them. Nothing here imports torch, asks SLURM, or
changes a file.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest
from math import prod
from pathlib import Path
from typing import Literal

from bench.averages import RAW, kept_shares, kept_weights
from bench.device import Modes
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import PHASES, STATES_KEPT, is_complete, is_trained, read_error
from bench.files.scored import samples_path, unscored
from bench.flops import cost_of, training_gmacs
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.samplers.guide import forward_passes, guide_of_recipe
from sweeps.cluster import ClusterProfile, Evaluate, Precision, Resources
from sweeps.expand import Sweep
from sweeps.groups import Group, Kind, groups, scores_in_training, training_resources
from sweeps.planning.measured import FLOPS_PER_MAC
from sweeps.planning.memory import TrainingMemory, training_memory
from sweeps.planning.speeds import JOB_START_S, Speed, expected_speeds, score_floor_s, step_floor_s

State = Literal["new", "started", "finished", "failed"]

BYTES_PER_WEIGHT = 4


@dataclass(frozen=True)
class RunPlan:
    """One run. Compute, hours and seconds are of what is left; seconds are wall time on the job's devices.

    `step` is the last one that was logged: a stopped run may repeat up to `train.save_every` steps before it.
    `scores_left` counts scores that are missing; `to_sample` has the evaluations whose samples they need and that are
    not there, and at how many kept steps: scores by other features share samples. Without speeds there is compute, but
    no time. `..._start_s` are the run's share of the least that its jobs take.
    """

    recipe: Recipe
    state: State
    step: int
    scores_left: int
    to_sample: tuple[tuple[EvaluationConfig, int], ...]
    gmacs: float
    parameters: int
    fixed_parameters: int
    training_job: Resources
    scoring_job: Resources
    training: Speed | None
    sampling: Speed | None
    memory: TrainingMemory
    training_start_s: float = 0.0
    scoring_start_s: float = 0.0

    @property
    def label(self) -> str:
        return self.recipe.label or self.recipe.model.name

    @property
    def steps_left(self) -> int:
        return 0 if self.state == "finished" else self.recipe.train.steps - self.step

    @property
    def step_tflop(self) -> float:
        """True TFLOP of one training step: forward and backward, the whole batch."""
        return FLOPS_PER_MAC * training_gmacs(self.gmacs, self.recipe.train.batch_size, 1) / 1e3

    @property
    def forward_passes(self) -> float:
        """Forward passes of one image that a score by the recipe's `evaluation` needs, in those of the model."""
        evaluation = self.recipe.evaluation
        return evaluation.num_samples * forward_passes(evaluation, self.recipe.diffusion, self.gmacs)

    @property
    def score_tflop(self) -> float:
        """`sampling_tflop` of the recipe's `evaluation`."""
        return self.sampling_tflop(self.recipe.evaluation)

    def sampling_tflop(self, evaluation: EvaluationConfig) -> float:
        """True TFLOP of one score's samples, without decoder and feature network."""
        passes = evaluation.num_samples * forward_passes(evaluation, self.recipe.diffusion, self.gmacs)
        return FLOPS_PER_MAC * self.gmacs * passes / 1e3

    @property
    def training_pflop(self) -> float:
        return self.steps_left * self.step_tflop / 1e3

    @property
    def scoring_pflop(self) -> float:
        return sum(steps * self.sampling_tflop(evaluation) for evaluation, steps in self.to_sample) / 1e3

    @property
    def step_floor_s(self) -> float:
        """The least that a training step takes; 0 where its speed was measured."""
        return step_floor_s(self.recipe) if self.training and self.training.kind == "assumed" else 0.0

    def sampling_floor_s(self, evaluation: EvaluationConfig) -> float:
        """The least that one score's samples take, likewise."""
        is_assumed = self.sampling and self.sampling.kind == "assumed"
        return score_floor_s(self.recipe, self.scoring_job.ranks, evaluation) if is_assumed else 0.0

    @cached_property
    def step_s(self) -> float | None:
        if self.training is None:
            return None
        return max(self.step_tflop / (self.training.tflops * self.training_job.ranks), self.step_floor_s)

    @property
    def score_s(self) -> float | None:
        """`sampling_s` of the recipe's `evaluation`."""
        return self.sampling_s(self.recipe.evaluation)

    def sampling_s(self, evaluation: EvaluationConfig) -> float | None:
        """Of one score's samples."""
        if self.sampling is None:
            return None
        computing = self.sampling_tflop(evaluation) / (self.sampling.tflops * self.scoring_job.ranks)
        return max(computing, self.sampling_floor_s(evaluation))

    @cached_property
    def training_s(self) -> float | None:
        if self.step_s is None:
            return None
        return max(self.steps_left * self.step_s, self.training_start_s) if self.steps_left else 0.0

    @cached_property
    def scoring_s(self) -> float | None:
        if self.sampling is None:
            return None
        spent = sum(steps * (self.sampling_s(evaluation) or 0) for evaluation, steps in self.to_sample)
        return max(spent, self.scoring_start_s) if self.scores_left else 0.0

    @property
    def training_gpu_hours(self) -> float | None:
        return None if self.training_s is None else self.training_s * self.training_job.ranks / 3600

    @property
    def scoring_gpu_hours(self) -> float | None:
        return None if self.scoring_s is None else self.scoring_s * self.scoring_job.ranks / 3600

    @property
    def wall_s(self) -> float | None:
        """Training, then scoring, if nothing has to be waited for."""
        if self.training_s is None or self.scoring_s is None:
            return None
        return self.training_s + self.scoring_s

    @property
    def checkpoint_interval(self) -> int:
        """Steps between two training states, at most: one is written every `save_every` steps and at kept ones."""
        kept = [0, *self.recipe.train.kept_steps()]
        return min(self.recipe.train.save_every, max(b - a for a, b in pairwise(kept)))

    @property
    def states(self) -> int:
        """Training states on disk at once: those kept, and until the run is finished the one being written."""
        train = self.recipe.train
        written = train.steps // train.save_every + sum(step % train.save_every > 0 for step in train.kept_steps())
        return min(STATES_KEPT + (self.state != "finished"), written)

    @property
    def trained_weights(self) -> int:
        """Parameters less the position table, which is fixed and not in a training state."""
        return self.parameters - self.fixed_parameters

    @property
    def copies_in_state(self) -> int:
        """In a training state, fp32: weights, two moments of AdamW, the averages."""
        return 3 + sum(name != RAW for name in kept_shares(self.recipe.train))

    @property
    def state_bytes(self) -> int:
        return self.states * self.copies_in_state * BYTES_PER_WEIGHT * self.trained_weights

    @property
    def kept_files(self) -> int:
        """Files of weights that are kept: of scored steps, and snapshots."""
        return sum(map(len, kept_weights(self.recipe.train).values()))

    @property
    def ema_bytes(self) -> int:
        return self.kept_files * BYTES_PER_WEIGHT * self.parameters

    @property
    def sample_bytes(self) -> int:
        """uint8 samples of all scores; some share theirs."""
        number = sum(steps * evaluation.num_samples for evaluation, steps in self.recipe.wanted_samples())
        return number * prod(self.recipe.data.facts.image_shape)


@dataclass(frozen=True)
class Array:
    """A job array of the plan; `ends_s` is when its last task ends, from the first start on."""

    kind: Kind
    resources: Resources
    num_tasks: int
    max_parallel: int
    ends_s: float | None


@dataclass(frozen=True)
class Plan:
    """A sweep on a cluster. `unknown_time` says why there is no time, where there is none."""

    sweep: str
    cluster: str
    device: str
    precision: Precision
    gpu_name: str | None
    modes: Modes
    evaluate: Evaluate
    on_slurm: bool
    runs: tuple[RunPlan, ...]
    arrays: tuple[Array, ...]
    unknown_time: str | None

    @cached_property
    def training_gpu_hours(self) -> float | None:
        return _total([run.training_gpu_hours for run in self.runs])

    @cached_property
    def scoring_gpu_hours(self) -> float | None:
        return _total([run.scoring_gpu_hours for run in self.runs])

    @property
    def gpu_hours(self) -> float | None:
        return _total([self.training_gpu_hours, self.scoring_gpu_hours])

    @property
    def wall_s(self) -> float | None:
        """From the first start to the last score."""
        if self.unknown_time:
            return None
        return max((array.ends_s for array in self.arrays if array.ends_s is not None), default=0.0)

    @property
    def checkpoint_bytes(self) -> int:
        return sum(run.state_bytes + run.ema_bytes for run in self.runs)

    @property
    def sample_bytes(self) -> int:
        return sum(run.sample_bytes for run in self.runs)


def plan(
    sweep: Sweep,
    profile: ClusterProfile,
    cluster: str,
    folders: dict[str, Path],
    mfu: float | None = None,
    precision: Precision | None = None,
    runs_folder: Path | None = None,
) -> Plan:
    """Plan what is left of a sweep.

    Args:
        sweep: what to run.
        profile: where.
        cluster: the profile's name, as sessions.jsonl records it: speeds that were measured elsewhere are not used.
        folders: recipe id -> run folder, which need not exist.
        mfu: expected of training and sampling, instead of what was measured or the profile says.
        precision: default: the profile's.
        runs_folder: all sweeps' folders, whose runs tell this machine's speed where those of the sweep do not.

    Raises:
        InputError: the profile has no entry for a run, or a guide's weights are not there.
    """
    precision = precision or profile.precision
    speeds, unknown = expected_speeds(sweep, profile, cluster, folders, mfu, precision, runs_folder)
    runs = {
        r.id: _run_plan(r, folders[r.id], profile, precision, speeds.get(r.id, (None, None))) for r in sweep.recipes
    }
    for run in runs.values():
        for evaluation, _ in run.to_sample:
            guide_of_recipe(run.recipe, evaluation, offline=True)
    return Plan(
        sweep=sweep.name,
        cluster=cluster,
        device=profile.device,
        precision=precision,
        modes=profile.modes,
        gpu_name=profile.gpu.name if profile.gpu else None,
        evaluate="inline" if scores_in_training(profile) else profile.evaluate,
        on_slurm=profile.executor == "slurm",
        runs=tuple(runs.values()),
        arrays=tuple(_arrays(runs, profile)),
        unknown_time=unknown,
    )


def end_times(durations: Sequence[float], max_parallel: int, ready: Sequence[float] | None = None) -> list[float]:
    """When each task of an array ends: in the order of their indices, at most `max_parallel` at once.

    A task starts no earlier than `ready` (default 0); one that waits for that lets those behind it pass.
    """
    ready = ready or [0.0] * len(durations)
    ends = [0.0] * len(durations)
    waiting = list(range(len(durations)))
    free = [0.0] * min(max_parallel, len(durations))  # when each slot becomes free: a heap
    while waiting:
        start = max(heapq.heappop(free), min(ready[task] for task in waiting))
        task = next(task for task in waiting if ready[task] <= start)
        waiting.remove(task)
        ends[task] = start + durations[task]
        heapq.heappush(free, ends[task])
    return ends


def check_time_known(plan: Plan, profile: ClusterProfile) -> None:
    """Refuse a plan that cannot say how long it takes, where time is paid for.

    Raises:
        InputError: the profile lacks what turns compute into time.
    """
    if plan.unknown_time and profile.executor == "slurm":
        raise InputError(plan.unknown_time)


def check_time_limits(plan: Plan, profile: ClusterProfile) -> None:
    """Refuse a plan whose jobs would end before they reach a checkpoint. (Samples are kept batch by batch.)

    Raises:
        InputError: the steps between two checkpoints do not fit into a job.
    """
    if plan.unknown_time or profile.executor == "local":
        return
    for run in plan.runs:
        usable = _usable_s(run.training_job, profile)
        if run.steps_left and run.step_s is not None and run.checkpoint_interval * run.step_s > usable:
            fitting = int(usable / run.step_s)
            lower = f"train.save_every of at most {fitting}, " if fitting >= 1 else ""
            raise InputError(
                f"{run.label}: train.save_every: {run.checkpoint_interval} steps between checkpoints take "
                f"{run.checkpoint_interval * run.step_s:.0f} s at {run.step_s:.3g} s a step, but a job of "
                f"{profile.where} has {_limit(run.training_job, profile)}; accepted: {lower}a longer time_limit, or "
                f"more {'GPUs' if plan.device == 'cuda' else 'tasks_per_node'} in training"
            )


def check_budget(plan: Plan, gpu_hours: float) -> None:
    """Refuse a plan that costs more than a budget.

    Raises:
        InputError: it does, or its cost is not known.
    """
    if plan.gpu_hours is None:
        raise InputError(f"--budget: what {plan.sweep} needs is not known: {plan.unknown_time}; nothing was submitted")
    if not plan.gpu_hours <= gpu_hours:  # nan is a budget for nothing
        needs = f"{plan.gpu_hours:,.{1 if plan.gpu_hours >= 1 else 3}f} GPU-hours"
        raise InputError(
            f"{plan.sweep} on {plan.cluster} needs {needs}, over --budget {gpu_hours:g}; nothing was submitted"
        )


def _total(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _usable_s(job: Resources, profile: ClusterProfile) -> float:
    """Seconds of a job before it is told to save and stop."""
    return 60 * profile.time_limit_minutes(job) - profile.signal_before_end_s


def _limit(job: Resources, profile: ClusterProfile) -> str:
    given = job.time_limit or profile.time_limit
    before = profile.signal_before_end_s
    return f"{_usable_s(job, profile):.0f} s (time_limit {given} less signal_before_end_s {before})"


def _run_plan(
    recipe: Recipe,
    folder: Path,
    profile: ClusterProfile,
    precision: Precision,
    speeds: tuple[Speed, Speed] | tuple[None, None],
) -> RunPlan:
    cost, state = cost_of(recipe.model.name, recipe.model.architecture()), _state(recipe, folder)
    training_job = training_resources(recipe, profile)
    left = unscored(recipe, folder) if state != "finished" else []
    lacking = {
        (score.step, score.samples) for score in left if not samples_path(folder, score.step, score.samples).exists()
    }
    steps = Counter(samples for _, samples in lacking)
    to_sample = {score.samples: score.evaluation for score in left if score.samples in steps}
    row = jsonl.last_row(folder / "train.jsonl") or {}
    trained, together = is_trained(recipe, folder), scores_in_training(profile)
    # On this machine a few processes do all runs.
    start_s = JOB_START_S / training_job.runs_per_job if profile.executor == "slurm" else 0.0
    return RunPlan(
        recipe=recipe,
        state=state,
        step=recipe.train.steps if trained else row.get("step", 0),
        scores_left=len(left),
        to_sample=tuple((evaluation, steps[samples]) for samples, evaluation in to_sample.items()),
        gmacs=cost.macs / 1e9,
        parameters=cost.parameters,
        fixed_parameters=cost.fixed_parameters,
        training_job=training_job,
        scoring_job=training_job if together else profile.evaluation_resources(recipe),
        training=speeds[0],
        sampling=speeds[1],
        memory=training_memory(recipe, training_job.ranks, profile.modes, precision),
        training_start_s=start_s,
        scoring_start_s=start_s if trained or not together else 0.0,
    )


def _state(recipe: Recipe, folder: Path) -> State:
    if is_complete(recipe, folder):
        return "finished"
    if any(read_error(folder, phase) is not None for phase in PHASES):
        return "failed"
    return "started" if (folder / "sessions.jsonl").exists() else "new"


def _arrays(runs: dict[str, RunPlan], profile: ClusterProfile) -> list[Array]:
    """The arrays of what is left, as they would be submitted; each training array before the one that scores its runs.

    Runs that are trained already are in scoring arrays of their own, except on this machine, which has one queue.
    """
    left = [run.recipe for run in runs.values() if run.steps_left or run.scores_left]
    local = profile.executor == "local"
    to_train = [r for r in left if local or runs[r.id].steps_left]
    to_score = [r for r in left if not local and not runs[r.id].steps_left]

    def array(kind: Kind, group: Group, ends: list[float] | None) -> Array:
        return Array(kind, group.resources, len(group.tasks), group.max_parallel, max(ends) if ends else None)

    result = []
    for training, scoring in zip_longest(
        groups(to_train, profile, "training"), groups(to_train, profile, "evaluation")
    ):
        train_s = [_total([runs[r.id].training_s for r in task]) for task in training.tasks]
        score_s = [_total([runs[r.id].scoring_s for r in task]) for task in training.tasks]
        if scoring:
            trained = _ends(train_s, training)
            result.append(array("training", training, trained))
            result.append(array("evaluation", scoring, _ends(score_s, scoring, ready=trained)))
        else:
            both = [_total([*parts]) for parts in zip(train_s, score_s, strict=True)]
            result.append(array("training", training, _ends(both, training)))
    kind: Kind = "training" if scores_in_training(profile) else "evaluation"
    for group in groups(to_score, profile, kind):
        score_s = [_total([runs[r.id].scoring_s for r in task]) for task in group.tasks]
        result.append(array(kind, group, _ends(score_s, group)))
    return result


def _ends(durations: list[float | None], group: Group, ready: list[float] | None = None) -> list[float] | None:
    known = [seconds for seconds in durations if seconds is not None]
    return end_times(known, group.max_parallel, ready) if len(known) == len(durations) else None
