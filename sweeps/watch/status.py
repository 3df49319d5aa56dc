"""The state of runs: what their files tell, and what their jobs do. Read-only: looking never changes a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.files.jsonl import not_finite_in_words
from bench.files.run_files import RunFiles, read_ends
from bench.files.run_folder import is_locked, lock_path
from bench.flops import forward_gmacs, training_gmacs
from bench.recipe import Recipe
from sweeps.planning.measured import FLOPS_PER_MAC, rate_of
from sweeps.slurm.client import HELD
from sweeps.slurm.submissions import Kind
from sweeps.watch.jobs import RunJob

# waiting: it was not submitted. queued, running, scoring: what its job does. trained: scores are to come, but no job is
# there for them. failed: given up. stopped: its job ended without finishing it. unknown: SLURM says nothing of its job,
# or calls it a state that we do not know.
State = Literal["waiting", "queued", "running", "scoring", "trained", "finished", "failed", "stopped", "unknown"]
LIVE: tuple[State, ...] = ("queued", "running", "scoring", "unknown")


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        step: the last logged one, of `steps`; `loss` and `images_per_s` (of all ranks) are of that row.
        fid: of the newest score by the recipe's `evaluation`, at `fid_step`.
        scores: how many of the recipe's `wanted_scores` are there, those of its `scores` too.
        mfu: share of the devices' peak that training reaches; None without a peak in the cluster's profile.
        elapsed_s: from the first start to the end, or to now; waiting in the queue in between counts.
        seconds_left: of training, at the last speed.
        restarts: starts of its training after the first.
        job: the id of its live job, else of the last one that started it, and where that runs (`node`).
        job_kind: what that job does; `job_state`: in SLURM's word.
        error: why it was given up.
        not_finite: what it did about losses that were not finite, in words; empty where it did nothing.
    """

    label: str
    id: str
    folder: Path
    state: State
    step: int
    steps: int
    loss: float | None
    fid: float | None
    fid_step: int | None
    scores: int
    wanted_scores: int
    images_per_s: float | None
    mfu: float | None
    elapsed_s: float | None
    seconds_left: float | None
    restarts: int
    node: str | None
    job: str | None
    job_kind: Kind | None
    job_state: str | None
    error: str | None
    not_finite: str

    @property
    def shown_state(self) -> str:
        """The state as a person reads it, with SLURM's word where that says more."""
        if self.state in ("stopped", "unknown") and self.job_state:
            return f"{self.state}: {self.job_state}"
        if self.state == "queued" and self.job_state in HELD:
            return f"queued: {self.job_state}"
        return "queued: scoring" if self.state == "queued" and self.job_kind == "scoring" else self.state


def run_status(recipe: Recipe, folder: Path) -> RunStatus:
    """Read a run of this machine, where a job is at work or will be."""
    return status_here(read_ends(recipe, folder), waits=True)


def status_here(files: RunFiles, waits: bool) -> RunStatus:
    """A run of this machine: its lock shows whether a job is at it; `waits`: one that is not at work will be."""
    state: State = "waiting" if waits or not files.first else "stopped"
    if files.is_finished:
        state = "finished"
    elif is_locked(lock_path(files.folder)):
        state = "running"
    elif files.errors:
        state = "failed"
    return _status(files, state, None, None)


def status_on_slurm(files: RunFiles, jobs: Mapping[Kind, RunJob], peak_tflops: float | None) -> RunStatus:
    """A run of a study that was submitted to SLURM. `peak_tflops`: of one device, in true TFLOP/s."""
    state, job = _state_on_slurm(files, jobs)
    return _status(files, state, job, peak_tflops)


def _state_on_slurm(files: RunFiles, jobs: Mapping[Kind, RunJob]) -> tuple[State, RunJob | None]:
    """The state and the job that it is of."""
    training, scoring = jobs.get("training"), jobs.get("scoring")
    if files.is_finished:
        return "finished", None
    if "training" in files.errors:
        return "failed", None
    if training and training.phase == "running":
        return "running", training
    if scoring and scoring.phase == "running":
        return "scoring", scoring
    if training and training.phase == "queued":
        return "queued", training
    # A scoring job whose training job was lost never starts.
    if scoring and scoring.phase == "queued" and (files.is_trained or training is None):
        return "queued", scoring
    for job in (training, scoring):
        if job and job.phase == "unknown":
            return "unknown", job
    if "scoring" in files.errors:
        return "failed", None
    if _is_at_work_here(files):
        return "running", None
    if files.is_trained:
        return "trained", scoring
    return ("stopped", training or scoring) if training or scoring else ("waiting", None)


def _is_at_work_here(files: RunFiles) -> bool:
    """Whether this machine works on a run, outside of SLURM."""
    last = files.last_start
    return last is not None and "attempt" not in last[1] and is_locked(lock_path(files.folder))


def _status(files: RunFiles, state: State, job: RunJob | None, peak_tflops: float | None) -> RunStatus:
    recipe, train = files.recipe, files.train
    step, rate = train.get("step", 0), rate_of(train)
    images_left = max(0, recipe.train.steps - step) * recipe.train.batch_size
    wanted = len(recipe.wanted_scores())
    kind, start = files.last_start or (None, {})
    node = job.job.node if job and job.phase == "running" else ""
    return RunStatus(
        label=recipe.label,
        id=recipe.id,
        folder=files.folder,
        state=state,
        step=step,
        steps=recipe.train.steps,
        loss=train.get("loss"),
        fid=files.score.get("fid"),
        fid_step=files.score.get("step"),
        scores=wanted - files.unscored,
        wanted_scores=wanted,
        images_per_s=rate,
        mfu=_mfu(files, rate, peak_tflops) if rate and peak_tflops else None,
        elapsed_s=_elapsed_s(files, state),
        seconds_left=images_left / rate if rate and state == "running" else None,
        restarts=max(0, files.starts["training"] - 1),
        node=node or start.get("node") or start.get("host"),
        job=(job.job.id or None) if job else start.get("job"),
        job_kind=job.kind if job else kind,
        job_state=job.word if job else None,
        error=files.errors.get("training") or files.errors.get("scoring"),
        not_finite=not_finite_in_words(train),
    )


def _mfu(files: RunFiles, images_per_s: float, peak_tflops: float) -> float:
    """True FLOP/s of training over the peak of all ranks."""
    gmacs = training_gmacs(forward_gmacs(files.recipe.model), 1, 1)
    flops = FLOPS_PER_MAC * 1e9 * gmacs * images_per_s
    return flops / (files.newest["training"].get("world_size", 1) * 1e12 * peak_tflops)


def _elapsed_s(files: RunFiles, state: State) -> float | None:
    if files.started_s is None:
        return None
    last_sign = max(files.written_s or 0, *(files.newest_s(kind) for kind in files.newest))
    end = files.finished_s or (time.time() if state in LIVE else last_sign)
    return max(0.0, end - files.started_s)
