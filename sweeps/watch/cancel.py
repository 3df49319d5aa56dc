"""Ending the jobs of a study. What they saved stays; the same submission continues it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError, RunError
from bench.files.run_files import RunFiles
from sweeps.local import live_slots
from sweeps.slurm import client, submissions, waiting
from sweeps.slurm.client import Job
from sweeps.slurm.ending import end_for_good
from sweeps.slurm.submissions import JobArray, Kind, Submission, submission_folder, submitters

# A job of this machine saves its work first.
SECONDS_TO_STOP = 60.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Cancelled:
    """The jobs that were cancelled, by run folder, and which of them are still ending."""

    jobs: dict[str, list[tuple[Kind, Job]]]
    ending: list[Job]


def cancel_on_slurm(
    study: Path, records: Sequence[Submission], runs: Mapping[str, RunFiles], names: Collection[str] | None
) -> Cancelled:
    """End the jobs in the queue of these run folders, or of all, whatever their state; none comes back.

    Raises:
        InputError: a job is also for runs that are not named, or SLURM's commands are not here.
        RunError: SLURM does not answer, or jobs do not go.
    """
    queue = client.queued_jobs(submitters(records))
    cancelled: dict[str, list[tuple[Kind, Job]]] = {}
    ids: dict[str, None] = {}
    meant: set[tuple[str, int]] = set()
    marks: dict[Path, set[str]] = {}
    for record in records:
        for array in record.arrays:
            live = [job for job in queue.values() if job.name == array.name and job.id not in ids]
            tasks = {job.id: array.tasks[array.index_of(job)] for job in live}
            chosen = [job for job in live if names is None or set(names) & set(tasks[job.id])]
            for job in chosen:
                left = [name for name in tasks[job.id] if not _is_done(name, record, array, runs)]
                if names is not None:
                    _refuse_others(job, left, names, runs)
                for name in left or tasks[job.id]:
                    cancelled.setdefault(name, []).append((array.kind, job))
            meant |= {(array.name, array.index_of(job)) for job in chosen}
            # A whole array costs SLURM's controller one request, a task each costs one.
            is_whole = len(chosen) == len(live) and len(array.tasks) > 1
            ids |= dict.fromkeys(job.id.partition("_")[0] if is_whole else job.id for job in chosen)
            # One whose submission was cut off may come to be in the queue yet.
            all_of_it = {name for task in array.tasks for name in task}
            hidden = (all_of_it if names is None else all_of_it & set(names)) if array.job_id is None else set()
            marks.setdefault(submission_folder(study, record.number), set()).update(
                hidden, *(tasks[job.id] for job in chosen)
            )
    marks = {folder: names - submissions.cancelled_runs(folder) for folder, names in marks.items() if names}
    for folder, marked in marks.items():
        submissions.cancel_runs(folder, marked)  # first: a job may be about to requeue itself
    try:
        return Cancelled(cancelled, end_for_good(records, list(ids), meant) if ids else [])
    except client.NotAllowed:
        for folder, marked in marks.items():
            submissions.keep_runs(folder, marked)
        raise


def stop_here(study: Path) -> int:
    """Stop the study's jobs on this machine, and wait for it; returns their number.

    Raises:
        InputError: they are on another machine.
        RunError: they are another user's, or do not stop.
    """
    told: set[int] = set()
    deadline = time.monotonic() + SECONDS_TO_STOP
    while slots := live_slots(study):
        for slot in slots:
            holder = _holder(slot)
            if holder and holder["host"] != socket.gethostname():
                raise InputError(f"{study}: its jobs are on {holder['host']}; cancel them there")
            if holder and holder["pid"] not in told:
                try:
                    os.kill(holder["pid"], signal.SIGTERM)
                except ProcessLookupError:
                    continue  # it has ended meanwhile
                except PermissionError:
                    raise RunError(f"{study}: its jobs are another user's (process {holder['pid']})") from None
                told.add(holder["pid"])
        if time.monotonic() > deadline:
            busy = ", ".join(str(path) for path in slots)
            raise RunError(f"jobs were told to stop, but still hold {busy} after {SECONDS_TO_STOP:.0f} s")
        waiting.pause(POLL_SECONDS, "jobs of this machine to save their work")
    return len(told)


def _is_done(name: str, record: Submission, array: JobArray, runs: Mapping[str, RunFiles]) -> bool:
    return name in runs and runs[name].is_done(array.kind, record.profile.evaluate == "inline")


def _refuse_others(job: Job, left: list[str], names: Collection[str], runs: Mapping[str, RunFiles]) -> None:
    others = [runs[name].recipe.label if name in runs else name for name in left if name not in names]
    if others:
        raise InputError(
            f"job {job.id} does {len(left)} runs one after the other; accepted: naming {', '.join(others)} as well, or "
            "no run, to cancel all jobs of the sweep"
        )


def _holder(slot: Path) -> dict[str, Any] | None:
    """Host and process id of the job that holds a slot; None at the instant before it wrote them."""
    try:
        return json.loads(slot.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
