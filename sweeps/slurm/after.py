"""The end of a job's batch script: decide by the exit status of its processes whether it goes back into the queue.

    python -m sweeps.slurm.after SUBMISSION_FOLDER ARRAY_NAME TASK_INDEX STATUS SECONDS

SECONDS is how long the script has run. Here and not in the job's own processes, because those may be dead: out of
memory, a crashed driver. A job that saved its work is requeued, as long as its starts are of use (see
`bench.files.lost_time`). One that failed is requeued while a run of it has attempts left; a death without a word
counts as well. One that was cancelled is not. Where SLURM does not requeue it, it is asked again until the job's time
is over.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.lost_time import lost_time, record_stop
from bench.files.names import write_any_text
from bench.files.run_files import seconds
from bench.files.run_folder import (
    failed_attempts,
    is_finished,
    is_trained,
    progress,
    read_config,
    read_error,
    record_failure,
)
from bench.stopping import STOPPED
from sweeps.cluster import ClusterProfile, whole_start_s
from sweeps.slurm import client, submissions
from sweeps.slurm.job import STOP_SIGNAL, last_start
from sweeps.slurm.last_words import cause_of_death, died_of_a_stop
from sweeps.slurm.submissions import Kind

# SLURM's signals, before the processes could listen to them.
TOO_EARLY = (128 + STOP_SIGNAL, 128 + signal.SIGTERM)
# Between two attempts to requeue a job, at first and at last.
ASK_AGAIN_SECONDS = (1.0, 60.0)
# For a last word before the job's time is over.
LAST_WORD_SECONDS = 10.0
# SLURM's words for a job that it never requeues; they come for a moment, too, and so are asked for more than once.
NEVER = ("presently disabled", "Invalid job id", "Access/permission denied", "Operation not permitted")
ATTEMPTS_WHERE_NEVER = 4


class TimeIsUp(Exception):
    """SLURM ends the job: its time is over, or somebody cancelled it."""


def main(arguments: list[str]) -> int:
    """Requeue the job or let it end, with the returned status; prints what it decided into the job's log."""
    submission_folder, name, index, status_text, *lived = arguments
    folder, status = Path(submission_folder), int(status_text)
    submission = submissions.read(folder / "record.json")
    early = folder / f"scoring-{name}.json"
    array = submissions.read_array(early) if early.exists() else next(a for a in submission.arrays if a.name == name)
    study = folder.parents[1]
    runs = [study / run for run in array.tasks[array.index(int(index))]]
    inline = submission.profile.evaluate == "inline"
    job_id = _job_id()
    attempt = f"{job_id}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    max_failures = submission.profile.max_failures
    if status in (STOPPED, *TOO_EARLY) or died_of_a_stop(folder, job_id):
        lived_s = float(lived[0]) if lived else 0.0
        _count_if_stuck(runs, _left(runs, array.kind, inline), array.kind, attempt, submission.profile, lived_s)
    else:
        died = cause_of_death(folder, job_id, attempt, status)
        _count_if_silent(runs, _left(runs, array.kind, inline), array.kind, attempt, max_failures, died)
    left = _left(runs, array.kind, inline)
    wanted = _wanted(left, folder)
    if len(wanted) < len(left):
        print(f"exit status {status}: {len(left) - len(wanted)} runs that are left were cancelled", flush=True)
    if wanted and submission.profile.requeue:
        print(f"exit status {status}: requeueing, {len(wanted)} of {len(runs)} runs are left", flush=True)
        try:
            _requeue(job_id, left, folder)
        except RunError as error:
            submissions.record_not_requeued(folder, attempt, [run.name for run in wanted], str(error))
            raise
        return status
    if left or all(read_error(run, array.kind) for run in runs):
        print(f"exit status {status}: not requeued", flush=True)
        return status
    # The signal may come when all is done, or the death: what waits for this job shall not be cancelled.
    print(f"exit status {status}, but nothing is left to do", flush=True)
    return 0


def _requeue(job_id: str, left: list[Path], folder: Path) -> None:
    """Have SLURM put the job back, however often that must be tried; one that is cancelled meanwhile is not.

    Raises:
        RunError: it was refused, until the job's time was over.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGTERM, stop)
    end_s = float(os.environ.get("SLURM_JOB_END_TIME") or "inf") - LAST_WORD_SECONDS
    seconds, longest = ASK_AGAIN_SECONDS
    problem: RunError | None = None
    refused = 0
    try:
        while True:
            try:
                client.requeue(job_id, max(1.0, min(client.TIMEOUT_SECONDS, end_s - time.time())))
                break
            except RunError as error:
                problem = error
            refused += any(words in str(problem) for words in NEVER)
            if refused == ATTEMPTS_WHERE_NEVER or time.time() + seconds > end_s:
                raise problem
            print(f"not requeued yet: {problem}; trying again in {seconds:.0f} s", flush=True)
            time.sleep(seconds)
            seconds = min(2 * seconds, longest)
            if not _wanted(left, folder):
                print("cancelled: not requeued", flush=True)
                return
    except TimeIsUp:
        is_obeyed = problem is None and time.time() < end_s  # the first request, though its answer has not come yet
        if is_obeyed or not _wanted(left, folder):
            return
        raise RunError(f"{problem or 'scontrol: no answer'}; tried until the job was ended") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if not _wanted(left, folder):  # cancelled while it was asked for
        client.cancel([job_id])


def _wanted(runs: list[Path], folder: Path) -> list[Path]:
    """Runs whose jobs were not cancelled."""
    cancelled = submissions.cancelled_runs(folder)
    return [run for run in runs if run.name not in cancelled]


def _job_id() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _left(runs: list[Path], kind: Kind, inline: bool) -> list[Path]:
    """Runs that this job has to go on with: not done, and not given up."""

    def is_done(run: Path) -> bool:
        return is_finished(run) or (kind == "training" and not inline and is_trained(read_config(run), run))

    return [run for run in runs if not is_done(run) and not read_error(run, kind)]


def _count_if_stuck(
    runs: list[Path], left: list[Path], kind: Kind, attempt: str, profile: ClusterProfile, lived_s: float
) -> None:
    """Put the time of a start that was stopped to the account of the run that was at work, else of the first left.

    One rule for preemption and time limits: see `bench.files.lost_time`.
    """
    if not left:
        return
    starts = {run: start for run in runs if (start := last_start(run, kind, attempt))}
    run = next((run for run in reversed(left) if run in starts), left[0])
    others = len(starts.keys() - {run})  # the job's time before this run was theirs
    useful_s = since_s = 0.0
    if start := starts.get(run):
        since_s = max(0.0, time.time() - (seconds(start.get("time")) or time.time()))
        useful_s = _useful_s(run, kind, start, since_s)
    whole_s = since_s if others else max(lived_s, since_s)
    record_stop(run, kind, attempt, useful_s, whole_s - useful_s)
    limit_s = _time_limit_s(run, kind, profile)
    account, planned_s = lost_time(run, kind), whole_start_s(limit_s, profile.signal_before_end_s)
    if account.is_hopeless(profile.max_failures, planned_s):
        reason = (
            f"given up: its last {account.starts} starts, all stopped by SLURM, lost {_duration(account.lost_s)} and "
            f"were of use for {_duration(account.useful_s)}; mend it with a longer time_limit (now "
            f"{_duration(limit_s)}), a shorter signal_before_end_s ({profile.signal_before_end_s}), or a partition "
            "that preempts less"
        )
        record_failure(run, kind, reason, 1, {"attempt": attempt, "lost_s": account.lost_s})


def _useful_s(run: Path, kind: Kind, start: dict[str, Any], since_s: float) -> float:
    """Of the seconds since a start's beginning was recorded, those that were spent on what it saved."""
    before, saved = start.get("progress"), progress(run, kind)
    if before == saved:
        return 0.0
    rate = (jsonl.last_row(run / "train.jsonl") or {}).get("images_per_s")
    if kind == "training" and before and before[1:] == saved[1:] and rate:
        # Steps alone: the rest of the time was for warming up, and for writing them.
        steps = max(0, saved[0] - before[0])
        return min(since_s, steps * read_config(run).train.batch_size / rate)
    return since_s


def _time_limit_s(run: Path, kind: Kind, profile: ClusterProfile) -> int:
    recipe = read_config(run)
    resources = profile.training_resources(recipe) if kind == "training" else profile.evaluation_resources(recipe)
    return 60 * profile.time_limit_minutes(resources)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _count_if_silent(
    runs: list[Path],
    left: list[Path],
    kind: Kind,
    attempt: str,
    max_failures: int,
    died: tuple[str, dict[str, Any]],
) -> None:
    """A death of which no run says the reason is put down to the run that was at work, else to the first left."""
    said = [(run, row) for run in runs for row in failed_attempts(run, kind) if row.get("attempt") == attempt]
    if any(not row.get("lost_a_peer") for _, row in said):
        return
    working = [run for run, _ in said] or [run for run in left if last_start(run, kind, attempt)] or left[:1]
    if working:
        reason, facts = died
        record_failure(working[-1], kind, reason, max_failures, {"attempt": attempt, **facts})


if __name__ == "__main__":
    write_any_text()
    try:
        sys.exit(main(sys.argv[1:]))
    except (InputError, RunError) as error:
        sys.exit(f"not requeued: {error}")
