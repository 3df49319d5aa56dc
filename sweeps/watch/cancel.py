"""Ending the jobs of a study. What they saved stays; the same submission continues it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import InputError, RunError
from bench.files.run_files import RunFiles
from sweeps.local import live_slots
from sweeps.slurm import client
from sweeps.slurm.client import Job
from sweeps.slurm.submissions import JobArray, Kind, Submission, submitters

# A job of this machine saves its work first.
SECONDS_TO_STOP = 60.0
POLL_SECONDS = 0.1


def cancel_on_slurm(
    records: Sequence[Submission], runs: Mapping[str, RunFiles], names: Collection[str] | None
) -> dict[str, list[tuple[Kind, Job]]]:
    """Cancel the queued and running jobs of these run folders, or of all; returns which ones, by run folder.

    Raises:
        InputError: a job is also for runs that are not named, or SLURM's commands are not here.
        RunError: SLURM does not answer.
    """
    queue = client.queued_jobs(submitters(records))
    cancelled: dict[str, list[tuple[Kind, Job]]] = {}
    ids: dict[str, None] = {}
    for record in records:
        for array in record.arrays:
            live = [j for j in queue.values() if j.name == array.name and j.state != "COMPLETING" and j.id not in ids]
            tasks = {job.id: array.tasks[array.index_of(job)] for job in live}
            chosen = [job for job in live if names is None or set(names) & set(tasks[job.id])]
            for job in chosen:
                left = [name for name in tasks[job.id] if not _is_done(name, record, array, runs)]
                if names is not None:
                    _refuse_others(job, left, names, runs)
                for name in left or tasks[job.id]:
                    cancelled.setdefault(name, []).append((array.kind, job))
            # A whole array costs SLURM's controller one request, a task each costs one.
            is_whole = len(chosen) == len(live) and len(array.tasks) > 1
            ids |= dict.fromkeys(job.id.partition("_")[0] if is_whole else job.id for job in chosen)
    client.cancel(list(ids))
    return cancelled


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
        time.sleep(POLL_SECONDS)
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
    except (OSError, ValueError):
        return None
