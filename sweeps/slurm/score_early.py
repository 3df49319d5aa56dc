"""Submit a scoring job for a checkpoint that a training job has just written (`evaluate: as-ready`).

    python -m sweeps.slurm.score_early SUBMISSION_FOLDER RUN_FOLDER_NAME STEP

A process of its own, run by the training job, without that job's environment. The jobs of one run go one after the
other (they have one name, and `singleton`), and each scores whatever is ready.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from bench.errors import InputError, RunError
from bench.files.names import write_any_text
from bench.files.run_folder import read_config
from sweeps.environment import cleaned
from sweeps.groups import Group
from sweeps.slurm import client, submissions
from sweeps.slurm.launch import MAX_NUM_TIMEOUT, Planned, make_task, sbatch_parameters
from sweeps.slurm.submissions import JobArray


@cleaned()
def main(arguments: list[str]) -> None:
    """Submit the job; errors go to stderr, for the training job's log."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    submission_folder, run_name, step = arguments
    folder = Path(submission_folder)
    study = folder.parents[1]
    submission = submissions.read(folder / "record.json")
    recipe = read_config(study / run_name)
    resources = submission.profile.evaluation_resources(recipe)
    if int(step) == recipe.train.steps:
        return  # the scoring array, which waits for the end of training, does the last one
    # The same for all jobs of this run, and for no other run of this user.
    name = f"{submission.sweep}-scoring-{hashlib.sha256(str(study).encode()).hexdigest()[:8]}-{recipe.id}"
    array = Planned("scoring", name, Group(resources, 1, [[recipe]]), after=None)
    executor = submitit.SlurmExecutor(folder / "jobs", max_num_timeout=MAX_NUM_TIMEOUT)
    executor.update_parameters(**sbatch_parameters(submission.profile, resources, array, folder, "singleton"))
    task = make_task("scoring", [run_name], study, folder, submission)
    record = JobArray(kind="scoring", name=name, job_id=None, tasks=((run_name,),))
    submissions.write_early_scoring(folder, record)
    try:
        job = executor.submit(task)
    except (FailedJobError, FailedSubmissionError) as error:
        raise RunError(client.shortened(str(error))) from None
    submissions.write_early_scoring(folder, record.model_copy(update={"job_id": job.job_id}))


if __name__ == "__main__":
    write_any_text()
    try:
        main(sys.argv[1:])
    except (InputError, RunError) as error:
        sys.exit(str(error))
