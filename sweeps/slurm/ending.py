"""Jobs between two states: ending those that were cancelled, for good, and waiting for what becomes of others."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bench.errors import RunError
from sweeps.slurm import client, submissions, waiting
from sweeps.slurm.client import Job
from sweeps.slurm.submissions import JobArray, Submission, submission_folder

# A job that is told to stop saves its work first, for as long as SLURM lets it (KillWait, 30 s by default).
ENDING_SECONDS = 60.0
# How soon SLURM is asked again, at first and at last.
LOOK_AGAIN_SECONDS = (1.0, 5.0)

ENDING = "COMPLETING"


Task = tuple[str, int]  # an array's name, and which of its tasks


def end_for_good(records: Sequence[Submission], ids: Sequence[str], tasks: Collection[Task]) -> list[Job]:
    """Cancel jobs, and again those that come back or did not go, until none is left; returns those still ending.

    A job may be back in the queue the moment after it was cancelled, and scancel may fail although it did its work.

    Args:
        ids: whom to cancel, jobs and whole arrays.
        tasks: what these jobs are.

    Raises:
        NotAllowed: a job is another user's.
        RunError: SLURM does not answer, or jobs stay, for `ENDING_SECONDS`.
    """
    arrays = _arrays(records)
    deadline = time.monotonic() + ENDING_SECONDS
    seconds, longest = LOOK_AGAIN_SECONDS
    while True:
        problem: RunError | None = None
        left: list[Job] | None = None
        try:
            client.cancel(list(ids))
        except client.NotAllowed:
            raise
        except RunError as error:
            problem = error
        try:
            left = [
                job
                for job in client.queued_jobs(submissions.submitters(records)).values()
                if _task(arrays, job) in tasks
            ]
        except RunError as error:
            problem = error
        is_over = time.monotonic() >= deadline
        if left is not None:
            ids = [job.id for job in left if job.state != ENDING]
            if not left or (is_over and not ids):
                return left
        if is_over:
            raise RunError(_still_there(left, problem))
        waiting.pause(seconds, f"{len(left or ids)} jobs to end" if problem is None else f"SLURM ({problem})")
        seconds = min(2 * seconds, longest)


def _still_there(left: Sequence[Job] | None, problem: RunError | None) -> str:
    if left is None:
        return f"whether the jobs have ended cannot be seen ({problem}); cancel again when SLURM answers"
    jobs = ", ".join(f"{job.id} ({job.state})" for job in left)
    return f"still there, though cancelled: {jobs}{f' ({problem})' if problem else ''}; cancel again"


def settled_jobs(study: Path, records: Sequence[Submission]) -> dict[str, Job]:
    """The jobs in the queue, without what was cancelled of this study, once none of its jobs is on its way out.

    What was cancelled and is still there is ended first. A job that is ending after `ENDING_SECONDS` is returned as it
    is.

    Raises:
        InputError: no squeue here.
        RunError: SLURM does not answer, or cancelled jobs do not end.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    seconds, longest = LOOK_AGAIN_SECONDS
    arrays = _arrays(records)
    cancelled: set[Task] = set()
    for record in records:
        marked = submissions.cancelled_runs(submission_folder(study, record.number))
        for array in record.arrays:
            cancelled |= {(array.name, index) for index, runs in enumerate(array.tasks) if marked.issuperset(runs)}
    jobs = client.queued_jobs(submissions.submitters(records))
    was_cancelled = lambda job: _task(arrays, job) in cancelled  # noqa: E731
    if alive := [job.id for job in jobs.values() if was_cancelled(job) and job.state != ENDING]:
        end_for_good(records, alive, cancelled)
    while ending := ending_jobs(arrays, {i: job for i, job in jobs.items() if not was_cancelled(job)}):
        if time.monotonic() >= deadline:
            break
        waiting.pause(seconds, f"{', '.join(job.id for job in ending)}, which SLURM is ending or putting back")
        seconds = min(2 * seconds, longest)
        jobs = client.queued_jobs(submissions.submitters(records))
    return {job_id: job for job_id, job in jobs.items() if not was_cancelled(job)}


def ending_jobs(arrays: Mapping[str, JobArray], jobs: Mapping[str, Job]) -> list[Job]:
    """Jobs of these arrays (by name) that SLURM is ending, or putting back into the queue: which, nobody knows yet."""
    return [job for job in jobs.values() if job.name in arrays and job.state == ENDING]


def _arrays(records: Sequence[Submission]) -> dict[str, JobArray]:
    return {array.name: array for record in records for array in record.arrays}


def _task(arrays: Mapping[str, JobArray], job: Job) -> Task | None:
    return (job.name, arrays[job.name].index_of(job)) if job.name in arrays else None
