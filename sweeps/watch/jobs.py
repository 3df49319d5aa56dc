"""Which SLURM jobs a study has, and what they do for each of its runs. SLURM is asked once for all of them.

Accounting (`sacct`) is asked, because it also knows how jobs ended. The queue (`squeue`) is asked where accounting does
not answer, and where its answer proves nothing: it shows a job that is being requeued as lost, and learns of new jobs
late, of held ones never.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.errors import InputError, RunError
from bench.files.run_files import RunFiles
from sweeps.slurm import client
from sweeps.slurm.client import Job
from sweeps.slurm.submissions import JobArray, Kind, Submission, submitters

QUEUED = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
# Accounting and the queue together; the run folders tell something without them.
PATIENCE_SECONDS = 12.0
# Of a job that SLURM has forgotten, or that ended where no accounting says how; and of one that it says nothing about.
GONE, NO_ANSWER = "", "no answer"

Phase = Literal["running", "queued", "unknown", "ended"]
_RANK: dict[Phase, int] = {"ended": 0, "unknown": 1, "queued": 2, "running": 3}


@dataclass(frozen=True)
class Answer:
    """What SLURM said: jobs by id, and what a reader must know of it. `is_whole`: a job that is not in it has ended."""

    jobs: Mapping[str, Job]
    is_whole: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskJob:
    """One job and the folder names of the runs that it does, one after the other; `left` are those not yet done."""

    kind: Kind
    job: Job
    left: tuple[str, ...]

    @property
    def phase(self) -> Phase:
        if self.job.state in QUEUED:
            return "queued"
        if self.job.state in RUNNING:
            return "running"
        return "ended" if self.job.has_ended or self.job.state == GONE else "unknown"


@dataclass(frozen=True)
class RunJob:
    """What a job does for one run. A running job's run is queued until its turn comes."""

    kind: Kind
    job: Job
    phase: Phase

    @property
    def word(self) -> str | None:
        """SLURM's word for the job's state, None if it gives none."""
        return self.job.state if self.job.state not in (GONE, NO_ANSWER) else None


def ask(records: Sequence[Submission], runs: Mapping[str, RunFiles]) -> Answer:
    """Ask SLURM for the jobs of all runs (by folder name) for which something is left to do; never fails.

    It takes no longer than `PATIENCE_SECONDS`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    ids, has_unnumbered = _ids(records, runs)
    if not ids and not has_unnumbered:
        return Answer({}, is_whole=True)
    accounted = client.accounted_jobs(ids, PATIENCE_SECONDS / 2)
    if accounted is not None and not has_unnumbered and ids <= _proven(records, accounted):
        return Answer(accounted, is_whole=True)
    try:
        queued = client.queued_jobs(submitters(records), timeout_s=deadline - time.monotonic())
    except (InputError, RunError) as error:
        if accounted is None:
            note = f"SLURM does not answer ({error}): what is not finished may be queued, running or dead"
            return Answer({}, is_whole=False, notes=(note,))
        proven = {job_id: job for job_id, job in accounted.items() if job.state not in client.MAYBE_REQUEUED}
        return Answer(proven, is_whole=False, notes=(f"the queue cannot be seen ({error})",))
    if accounted is None:
        note = "sacct does not answer here: states are from squeue and the run folders"
        return Answer(queued, is_whole=True, notes=(note,))
    believed = {i: replace(job, state=GONE) if job.state == "REQUEUED" else job for i, job in accounted.items()}
    return Answer({**believed, **queued}, is_whole=True)


def task_jobs(records: Sequence[Submission], runs: Mapping[str, RunFiles], answer: Answer) -> Iterator[TaskJob]:
    """All jobs of a study with something left to do, oldest first; also those that SLURM does not show."""
    by_name: dict[str, list[Job]] = {}
    for job in answer.jobs.values():
        by_name.setdefault(job.name, []).append(job)
    for record, array in _arrays(records):
        jobs = [(array.index_of(job), job) for job in by_name.get(array.name, [])]
        seen = {index for index, _ in jobs}
        for index in range(len(array.tasks)):
            task_id = array.task_id(index)
            if index not in seen and (task_id or not answer.is_whole):
                jobs.append((index, Job(task_id or "", GONE if answer.is_whole else NO_ANSWER, array.name)))
        for index, job in jobs:
            if index < len(array.tasks) and (left := _left(record, array, index, runs)):
                yield TaskJob(array.kind, job, left)


def jobs_of_runs(
    records: Sequence[Submission], runs: Mapping[str, RunFiles], answer: Answer
) -> dict[str, dict[Kind, RunJob]]:
    """Run folder name -> kind -> the job that counts: a live one, else the newest."""
    result: dict[str, dict[Kind, RunJob]] = {}
    for task in task_jobs(records, runs, answer):
        at_work = _at_work(task, runs)
        for name in task.left:
            phase: Phase = "queued" if task.phase == "running" and name != at_work else task.phase
            before = result.setdefault(name, {}).get(task.kind)
            if before is None or _RANK[phase] >= _RANK[before.phase]:
                result[name][task.kind] = RunJob(task.kind, task.job, phase)
    return result


def _arrays(records: Sequence[Submission]) -> Iterator[tuple[Submission, JobArray]]:
    return ((record, array) for record in records for array in record.arrays)


def _left(record: Submission, array: JobArray, index: int, runs: Mapping[str, RunFiles]) -> tuple[str, ...]:
    inline = record.profile.evaluate == "inline"
    return tuple(name for name in array.tasks[index] if name in runs and not runs[name].is_done(array.kind, inline))


def _ids(records: Sequence[Submission], runs: Mapping[str, RunFiles]) -> tuple[set[str], bool]:
    """SLURM's ids of the jobs with something left to do, and whether there is an array without an id."""
    ids: set[str] = set()
    has_unnumbered = False
    for record, array in _arrays(records):
        for index in range(len(array.tasks)):
            left = _left(record, array, index, runs)
            if not left:
                continue
            task_id = array.task_id(index)
            has_unnumbered |= task_id is None
            # Of the jobs that score a run while it is trained, the record has the newest only: another may be at work.
            starts = [runs[name].newest[array.kind] for name in left] if array.kind == "scoring" else []
            ids |= {str(row["job"]) for row in starts if "attempt" in row} | ({task_id} if task_id else set())
    return ids, has_unnumbered


def _proven(records: Sequence[Submission], jobs: Mapping[str, Job]) -> set[str]:
    """Ids of the jobs that accounting is right about. One that just begins to exist has no name of ours yet."""
    names = {array.name for _, array in _arrays(records)}
    return {job.id for job in jobs.values() if job.name in names and job.state not in client.MAYBE_REQUEUED}


def _at_work(task: TaskJob, runs: Mapping[str, RunFiles]) -> str:
    """The run that a running job is at: the one it started last, or is about to start."""
    starts = {name: runs[name].newest[task.kind] for name in task.left}
    started = [name for name, row in starts.items() if row.get("job") == task.job.id and "attempt" in row]
    latest = max((runs[name].newest_s(task.kind) for name in started), default=0)
    return next((n for n in reversed(started) if runs[n].newest_s(task.kind) == latest), task.left[0])
