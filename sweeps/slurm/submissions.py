"""The record of every submission: which array of which name runs which runs. Written by `submit`, read by all.

A job is recognised by its array's name, which no other has, so that even one whose submission was cut off before
SLURM's answer was written down is found again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import InputError
from bench.files import jsonl
from bench.files.atomic import write_json
from bench.files.jsonl import now
from bench.schema import describe
from sweeps.cluster import ClusterProfile
from sweeps.slurm.client import Job

Kind = Literal["training", "scoring"]


def _is_unset(value: object) -> bool:
    return not value


class JobArray(BaseModel):
    """An array, or a single job where it has one task. `tasks`: the run folders' names of every task.

    `indices`: SLURM's index of every task, where they are not 0, 1 and so on. `early`: a job that scores while its run
    is trained. Neither is written where it says nothing: jobs of earlier versions read their records, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str
    job_id: str | None
    tasks: tuple[tuple[str, ...], ...]
    indices: tuple[int, ...] | None = Field(default=None, exclude_if=_is_unset)
    early: bool = Field(default=False, exclude_if=_is_unset)

    def task_id(self, index: int) -> str | None:
        """SLURM's id of a task."""
        if self.job_id is None or len(self.tasks) == 1:
            return self.job_id
        return f"{self.job_id}_{self.slurm_index(index)}"

    def slurm_index(self, index: int) -> int:
        """SLURM's index of a task; 0 of a single job."""
        return self.indices[index] if self.indices and len(self.tasks) > 1 else index

    def index(self, slurm_index: int) -> int:
        """Which task has this index of SLURM's."""
        return self.indices.index(slurm_index) if self.indices and len(self.tasks) > 1 else slurm_index

    def index_of(self, job: Job) -> int:
        """Which task a job of this array's name is."""
        return self.index(int(job.id.partition("_")[2] or 0))


class Submission(BaseModel):
    """One call of `submit`. `number` counts them in a study; its folder is submissions/0001 and so on.

    `uid` is the submitting user's; earlier versions did not record it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    time: str
    sweep: str
    cluster: str
    profile: ClusterProfile
    commit: str | None
    trackers: tuple[str, ...]
    arrays: tuple[JobArray, ...]
    uid: int | None = None


def submitters(records: Iterable[Submission]) -> set[int]:
    """The users whose jobs may be a study's, by number."""
    return {record.uid for record in records if record.uid is not None}


def submission_folder(study: Path, number: int) -> Path:
    return study / "submissions" / f"{number:04d}"


def write(study: Path, submission: Submission) -> Path:
    """Write a submission's record, atomically; errors as `bench.files.atomic.replace`."""
    path = submission_folder(study, submission.number) / "record.json"
    write_json(path, submission.model_dump(mode="json"))
    return path


def write_early_scoring(folder: Path, array: JobArray) -> None:
    """Record a scoring job that a training job submitted, in its submission's folder."""
    write_json(folder / f"scoring-{array.name}.json", array.model_dump(mode="json"))


def cancelled_runs(folder: Path) -> set[str]:
    """Names of the run folders whose jobs of a submission were cancelled: they never work again, nor come back.

    Raises:
        InputError: the file that says so is damaged.
    """
    path = folder / "cancelled.json"
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["runs"])
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it, then cancel again") from None


def cancel_runs(folder: Path, names: Collection[str]) -> None:
    """Note that the jobs of these runs are being cancelled, before SLURM is told: see `cancelled_runs`."""
    write_json(folder / "cancelled.json", {"runs": sorted(cancelled_runs(folder) | set(names))})


def keep_runs(folder: Path, names: Collection[str]) -> None:
    """Take back what `cancel_runs` noted."""
    write_json(folder / "cancelled.json", {"runs": sorted(cancelled_runs(folder) - set(names))})


def record_not_requeued(folder: Path, attempt: str, runs: Collection[str], reason: str) -> None:
    """Note that a job with runs left could not be put back into the queue."""
    row = {"time": now(), "attempt": attempt, "runs": sorted(runs), "reason": reason}
    jsonl.append(folder / "not-requeued.jsonl", row)


def not_requeued(folder: Path, run: str) -> dict[str, Any] | None:
    """The newest row of `record_not_requeued` for a run."""
    rows = [row for row in jsonl.read(folder / "not-requeued.jsonl") if run in row["runs"]]
    return rows[-1] if rows else None


def read(path: Path) -> Submission:
    """Read a record.

    Raises:
        InputError: it is damaged.
    """
    return Submission.model_validate(_load(path, Submission))


def read_array(path: Path) -> JobArray:
    """Read what `write_early_scoring` wrote; errors as `read`."""
    return JobArray.model_validate(_load(path, JobArray))


def read_all(study: Path) -> list[Submission]:
    """All submissions of a study, oldest first, with the scoring jobs that their training jobs submitted.

    Raises:
        InputError: a record is damaged.
    """
    submissions = []
    for path in sorted((study / "submissions").glob("*/record.json")):
        submission = read(path)
        early = [read_array(p) for p in sorted(path.parent.glob("scoring-*.json"))]
        submissions.append(submission.model_copy(update={"arrays": (*submission.arrays, *early)}))
    return submissions


def adopt(study: Path, jobs: Collection[Job]) -> None:
    """Note the ids of arrays whose submission was cut off before SLURM's answer, where they are among `jobs`.

    Raises:
        InputError: a record is damaged.
    """
    ids = {job.name: job.id.partition("_")[0] for job in jobs}
    for path in sorted((study / "submissions").glob("*/record.json")):
        record = read(path)
        arrays = tuple(a.model_copy(update={"job_id": a.job_id or ids.get(a.name)}) for a in record.arrays)
        if arrays != record.arrays:
            write(study, record.model_copy(update={"arrays": arrays}))


def _load(path: Path, schema: type[BaseModel]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema.model_validate(content)
    except ValidationError as error:
        problem = describe(error, schema)
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error)
    else:
        return content
    raise InputError(
        f"{path}: not a whole record of a submission ({problem}); jobs it started cannot be told from others: look at "
        "`squeue --me`, cancel what is left of them, then delete this file and submit again"
    )
