"""Submit a scoring job for a checkpoint that a training job has just written (`evaluate: as-ready`).

    python -m sweeps.slurm.score_early SUBMISSION_FOLDER RUN_FOLDER_NAME STEP

A process of its own, run by the training job, without that job's environment. The jobs of one run go one after the
other (they have one name, and `singleton`), and each scores whatever is ready. Of all of a study no more are at work
than `max_parallel` leaves beside the last scoring jobs: a job more waits for an earlier one.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import InputError, RunError
from bench.files.names import write_any_text
from bench.files.run_folder import open_lock, read_config, try_lock
from sweeps.environment import cleaned
from sweeps.groups import Group
from sweeps.slurm import client, submissions
from sweeps.slurm.launch import submit_array
from sweeps.slurm.planned import Planned, early_scoring
from sweeps.slurm.submissions import JobArray

# The training job that asks goes on when this is over.
PATIENCE_SECONDS = 60.0


@cleaned()
def main(arguments: list[str]) -> None:
    """Submit the job; errors go to stderr, for the training job's log."""
    submission_folder, run_name, step = arguments
    folder = Path(submission_folder)
    study = folder.parents[1]
    submission = submissions.read(folder / "record.json")
    recipe = read_config(study / run_name)
    resources = submission.profile.evaluation_resources(recipe)
    max_parallel = early_scoring(resources.max_parallel or submission.profile.max_parallel)
    is_last = int(step) == recipe.train.steps  # the scoring array, which waits for the end of training, does it
    if is_last or not max_parallel or run_name in submissions.cancelled_runs(folder):
        return
    # The same for all jobs of this run in this submission, and for no other run of this user.
    name = f"{submission.sweep}-scoring-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}-{recipe.id}"
    with _one_at_a_time(folder.parent):
        records = submissions.read_all(study)
        early = [array for one in records for array in one.arrays if array.early]
        names = {name, *(array.name for array in early)}
        queue = client.queued_jobs(submissions.submitters(records))
        jobs = (job for job in queue.values() if job.name in names)
        live = sorted(jobs, key=lambda job: int(job.id))  # oldest first
        known = [job.id for job in live] + [array.job_id for array in early if array.name == name]
        if any(job.name == name and job.state == "PENDING" for job in live):
            return  # it scores this one, too, when it starts
        behind = f",afterany:{live[-max_parallel].id}" if len(live) >= max_parallel else ""
        array = Planned("scoring", name, Group(resources, 1, [[recipe]]))
        record = JobArray(kind="scoring", name=name, job_id=None, tasks=((run_name,),), early=True)
        submissions.write_early_scoring(folder, record)
        newest = max((int(job_id) for job_id in known if job_id), default=0)
        job_id = submit_array(array, record, f"singleton{behind}", study, folder, submission, newest)
        submissions.write_early_scoring(folder, record.model_copy(update={"job_id": job_id}))
    if run_name in submissions.cancelled_runs(folder):  # meanwhile, by somebody who could not see it yet
        client.cancel([job_id])


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Training jobs that count and submit at the same moment would each find room.

    Raises:
        RunError: others are at it for too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    with open_lock(folder / ".early-scoring-lock") as lock:
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise RunError("other jobs are submitting theirs")
            time.sleep(0.1)
        yield


if __name__ == "__main__":
    write_any_text()
    try:
        main(sys.argv[1:])
    except (InputError, RunError) as error:
        sys.exit(str(error))
