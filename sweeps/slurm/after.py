"""The end of a job's batch script: decide by the exit status of its processes whether it goes back into the queue.

    python -m sweeps.slurm.after SUBMISSION_FOLDER ARRAY_NAME TASK_INDEX STATUS

Here and not in the job's own processes, because those may be dead: out of memory, a crashed driver. A job that saved
its work is requeued. One that failed is requeued while a run of it has attempts left; a death without a word counts as
well. One that was cancelled is not. Where SLURM does not requeue it, it is asked again until the job's time is over.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from bench.errors import InputError, RunError
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
from sweeps.slurm import client, submissions
from sweeps.slurm.job import last_start
from sweeps.slurm.submissions import Kind

# SIGUSR2 before the processes could listen to it.
TOO_EARLY = 128 + signal.SIGUSR2
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
    submission_folder, name, index, status_text = arguments
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
    if status == STOPPED:
        _count_if_stuck(_left(runs, array.kind, inline), array.kind, attempt, max_failures)
    elif status != TOO_EARLY:
        _count_if_silent(_left(runs, array.kind, inline), array.kind, attempt, max_failures, status)
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


def _count_if_stuck(runs: list[Path], kind: Kind, attempt: str, max_failures: int) -> None:
    """An attempt that saved nothing new before it was stopped counts as failed: it would go on like that for ever."""
    for run in runs:
        start = last_start(run, kind, attempt)
        if start and start.get("progress") == progress(run, kind):
            reason = "stopped by SLURM before it could save anything new; is the time limit too short?"
            record_failure(run, kind, reason, max_failures, {"attempt": attempt})


def _count_if_silent(left: list[Path], kind: Kind, attempt: str, max_failures: int, status: int) -> None:
    """A death that left no reason is put down to the run that was at work, else to the first that is left."""
    if not left or any(row.get("attempt") == attempt for run in left for row in failed_attempts(run, kind)):
        return
    working = [run for run in left if last_start(run, kind, attempt)]
    record_failure(
        (working or left)[-1 if working else 0],
        kind,
        f"its processes died with exit status {status} ({_meaning(status)}) and left no reason but what is in the log",
        max_failures,
        {"attempt": attempt},
    )


def _meaning(status: int) -> str:
    if status <= 128:
        return "an error before the run began, or SLURM's own"
    name = signal.Signals(status - 128).name if status - 128 in list(signal.Signals) else f"signal {status - 128}"
    return f"{name}: out of memory, most often" if name == "SIGKILL" else name


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (InputError, RunError) as error:
        sys.exit(f"not requeued: {error}")
