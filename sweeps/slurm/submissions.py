"""The record of every submission: which array of which name runs which runs. Written by `submit`, read by all.

A job is recognised by its array's name, which no other has, so that even one whose submission was cut off before
SLURM's answer was written down is found again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import InputError
from bench.files.atomic import write_json
from bench.schema import describe
from sweeps.cluster import ClusterProfile
from sweeps.slurm.client import Job

Kind = Literal["training", "scoring"]


class JobArray(BaseModel):
    """An array, or a single job where it has one task. `tasks`: the run folders' names of every task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str
    job_id: str | None
    tasks: tuple[tuple[str, ...], ...]

    def task_id(self, index: int) -> str | None:
        """SLURM's id of a task."""
        if self.job_id is None:
            return None
        return self.job_id if len(self.tasks) == 1 else f"{self.job_id}_{index}"

    def index_of(self, job: Job) -> int:
        """Which task a job of this array's name is."""
        _, _, index = job.id.partition("_")
        return int(index) if index else 0


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


def _load(path: Path, schema: type[BaseModel]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema.model_validate(content)
    except ValidationError as error:
        problem = describe(error, schema)
    except (OSError, ValueError) as error:
        problem = str(error)
    else:
        return content
    raise InputError(
        f"{path}: not a whole record of a submission ({problem}); jobs it started cannot be told from others: look at "
        "`squeue --me`, cancel what is left of them, then delete this file and submit again"
    )
