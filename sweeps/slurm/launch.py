"""A sweep's jobs on SLURM, through submitit: an array for all runs that get the same resources.

Only what is missing is submitted: a run that is finished, queued or running is left alone. Scoring arrays wait for the
training arrays task by task. Every submission has a folder of its own, with its record, its code and its jobs' logs.

A submission may be cut off anywhere, by a limit, by SLURM's silence or by the end of its process: what a job needs is
there before SLURM knows of it, an array is recorded by its name before it is submitted, and what is missing is found
by looking at the queue, never remembered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.errors import InputError, RunError
from bench.files.jsonl import now
from bench.files.run_folder import clear_error, open_lock, try_lock, write_config
from bench.provenance import commit
from bench.ready import check_ready
from sweeps.cluster import ClusterProfile
from sweeps.expand import Sweep, run_folders
from sweeps.slurm import client, submissions
from sweeps.slurm.batch_script import sbatch_script
from sweeps.slurm.job import Task
from sweeps.slurm.planned import Planned, Todo, planned_arrays
from sweeps.slurm.snapshot import copy_code
from sweeps.slurm.submissions import JobArray, Kind, Submission, submission_folder

# Requeueing is decided in `sweeps.slurm.after`, never by submitit's count of time-outs.
MAX_NUM_TIMEOUT = 10**6


@dataclass(frozen=True)
class Submitted:
    """What was submitted; the arrays that SLURM did not take now, and its words for it."""

    submission: Submission
    left: Sequence[Planned] = ()
    said: str = ""


def submit(
    sweep: Sweep, runs: Path, work: Todo, profile: ClusterProfile, cluster: str, trackers: tuple[str, ...] = ()
) -> Submitted:
    """Submit what is to be done, or as much of it as SLURM takes. Call it with the study locked (see `submitting`).

    Raises:
        InputError: SLURM refuses an array (its own words), the data are not there, or the folder belongs to another
            recipe or cannot be written. Arrays that were accepted before are cancelled again.
        MissingAsset: a file of others is not in the cache.
        RunError: SLURM does not answer, or takes no job now. What was accepted stays, and the same call continues.
    """
    client.require("sbatch")
    study, folders = (runs / sweep.name).resolve(), run_folders(sweep, runs)
    for recipe in (*work.to_train, *work.to_score):
        check_ready(recipe, offline=True)
        write_config(recipe, folders[recipe.id], sweep.axes.get(recipe.id))
        clear_error(folders[recipe.id])  # first: a job may start at once, and would leave a failed run alone
    planned = planned_arrays(sweep, work, profile, client.largest_array())
    submission = Submission(
        number=_next_number(study),
        time=now(),
        sweep=sweep.name,
        cluster=cluster,
        profile=profile,
        commit=commit(),
        trackers=trackers,
        arrays=(),
        uid=os.getuid(),
    )
    folder = submission_folder(study, submission.number)
    copy_code(folder / "code")
    known = {array.name: array for record in submissions.read_all(study) for array in record.arrays}
    accepted: list[JobArray] = []
    while planned:
        array = planned[0]
        names = tuple(tuple(folders[recipe.id].name for recipe in task) for task in array.group.tasks)
        record = JobArray(kind=array.kind, name=array.name, job_id=None, tasks=names, indices=array.indices)
        # Before SLURM knows of it: see `sweeps.slurm.submissions`.
        submission = submission.model_copy(update={"arrays": (*accepted, record)})
        submissions.write(study, submission)
        try:
            job_id = submit_array(array, record, _dependency(array, known), study, folder, submission)
        except client.TooMany as error:
            for index in range(len(names)):
                _task_file(folder, record, index).unlink()
            if len(names) > 1:
                planned = _halves(planned)
                continue
            submission = submission.model_copy(update={"arrays": tuple(accepted)})
            submissions.write(study, submission)
            if not accepted:
                raise RunError(f"SLURM takes no more jobs now ({error}); the same command submits them later") from None
            return Submitted(submission, planned, str(error))
        except client.NoAnswer as error:
            ids = ", ".join(str(one.job_id) for one in accepted)
            done = f"submitted were {ids}, and " if ids else ""
            raise RunError(
                f"SLURM does not answer: {error}; {done}whether the {array.kind} array is cannot be seen; the same "
                "command, when it does, submits what is missing, and nothing twice"
            ) from None
        except InputError as error:
            submissions.write(study, submission.model_copy(update={"arrays": tuple(accepted)}))
            stay = _take_back(folder, accepted)
            raise InputError(f"SLURM refused the {array.kind} array: {error}{stay}") from None
        accepted.append(record.model_copy(update={"job_id": job_id}))
        known[array.name] = accepted[-1]
        planned.pop(0)
        submission = submission.model_copy(update={"arrays": tuple(accepted)})
        submissions.write(study, submission)
    return Submitted(submission)


def submit_array(
    array: Planned,
    record: JobArray,
    dependency: str | None,
    study: Path,
    folder: Path,
    submission: Submission,
    newer_than: int = 0,
) -> str:
    """Submit one array of the submission in `folder`; returns its id. Errors, and `newer_than`, as `client.submit`."""
    from submitit.core.utils import DelayedSubmission

    (folder / "jobs").mkdir(exist_ok=True)
    for index, names in enumerate(record.tasks):
        delayed = DelayedSubmission(make_task(record.kind, names, study, folder, submission))
        delayed.set_timeout(submission.profile.time_limit_minutes(array.group.resources), MAX_NUM_TIMEOUT)
        path = _task_file(folder, record, index)
        aside = path.with_name(f".{path.name}")  # an earlier job of the name may be reading it
        delayed.dump(aside)
        aside.replace(path)
    script = folder / "jobs" / f"{array.name}.sh"
    script.write_text(sbatch_script(submission.profile, array, folder, dependency), encoding="utf-8")
    return client.submit(script, array.name, newer_than)


def _task_file(folder: Path, record: JobArray, index: int) -> Path:
    """What a task does, pickled: found by the array's name, not by an id that nobody knows yet."""
    return folder / "jobs" / f"{record.name}-{record.slurm_index(index)}.pkl"


def _halves(planned: Sequence[Planned]) -> list[Planned]:
    """Two arrays instead of the first; the scoring that waits for it, if it is to come, is cut alike."""
    first, *others = planned
    size = len(first.group.tasks)
    half = size // 2

    def cut(array: Planned) -> list[Planned]:
        parts = [array.part(f"{array.name}a", 0, half), array.part(f"{array.name}b", half, size)]
        room = array.group.max_parallel - half
        if room > 0:
            parts[1] = replace(parts[1], group=replace(parts[1].group, max_parallel=room))
        else:
            parts[1] = replace(parts[1], behind=parts[0].name)
        return parts

    scoring = [array for array in others if array.after == first.name]
    rest = [array for array in others if array.after != first.name]
    if first.after:  # its training array stays whole, and task i is for task i
        first = replace(first, indices=first.indices or tuple(range(size)))
    halves = cut(first)
    for array in scoring:
        waiting = [replace(part, after=one.name) for part, one in zip(cut(array), halves, strict=True)]
        halves = [halves[0], waiting[0], halves[1], waiting[1]]
        rest = _behind_parts(rest, array)
    return [*halves, *_behind_parts(rest, first)]


def _behind_parts(arrays: Sequence[Planned], whole: Planned) -> list[Planned]:
    """What was to go behind an array goes behind its second part."""
    return [replace(a, behind=f"{whole.name}b") if a.behind == whole.name else a for a in arrays]


def _take_back(folder: Path, accepted: Sequence[JobArray]) -> str:
    """Cancel arrays of a submission that was refused in part; says which stay where that fails."""
    if not accepted:
        return ""
    submissions.cancel_runs(folder, {name for array in accepted for task in array.tasks for name in task})
    try:
        client.cancel([str(array.job_id) for array in accepted])
    except RunError as error:
        ids = ", ".join(str(array.job_id) for array in accepted)
        return f"; {ids} could not be cancelled yet ({error}): the next `submit` or `cancel` does it"
    return ""


def make_task(kind: Kind, names: Sequence[str], study: Path, folder: Path, submission: Submission) -> Task:
    """The job of one task: these run folders of `study`, for the submission in `folder`."""
    profile = submission.profile
    return Task(
        kind=kind,
        folders=tuple(study / name for name in names),
        study=study,
        submission=folder,
        device=profile.device,
        precision=profile.precision,
        modes=profile.modes,
        cluster=submission.cluster,
        max_failures=profile.max_failures,
        trackers=submission.trackers,
        inline_scoring=profile.evaluate == "inline",
        score_as_ready=profile.evaluate == "as-ready",
    )


def _dependency(array: Planned, known: Mapping[str, JobArray]) -> str | None:
    """Task i after task i: that of an array, or the one job; and all after all of the array it is behind."""
    waits = []
    if array.after and len(array.group.tasks) > 1:
        waits.append(f"aftercorr:{known[array.after].job_id}")
    elif array.after:
        training = known[array.after]
        waits.append(f"afterok:{training.task_id(training.index(array.indices[0] if array.indices else 0))}")
    if array.behind:
        waits.append(f"afterany:{known[array.behind].job_id}")
    return ",".join(waits) or None


def sbatch_scripts(
    sweep: Sweep, runs: Path, work: Todo, profile: ClusterProfile, largest: int = client.SAFE_ARRAY
) -> list[tuple[Planned, str]]:
    """Every array with the script that `submit` would hand to sbatch; nothing is written, SLURM is not asked."""
    study = (runs / sweep.name).resolve()
    folder = submission_folder(study, _next_number(study))
    known = {array.name: array for record in submissions.read_all(study) for array in record.arrays}
    scripts = []
    for array in planned_arrays(sweep, work, profile, largest):
        scripts.append((array, sbatch_script(profile, array, folder, _dependency(array, known))))
        # Only the number of its tasks is of interest.
        tasks = tuple(tuple(recipe.id for recipe in task) for task in array.group.tasks)
        known[array.name] = JobArray(kind=array.kind, name=array.name, job_id="JOBID", tasks=tasks)
    return scripts


def _next_number(study: Path) -> int:
    return max((int(path.name) for path in (study / "submissions").glob("[0-9]*")), default=0) + 1


@contextmanager
def submitting(study: Path) -> Iterator[None]:
    """Hold a study against another `submit`, from looking what is queued until the new jobs are.

    Raises:
        InputError: another one is at work, or the folder cannot be written.
    """
    try:
        study.mkdir(parents=True, exist_ok=True)
        lock = open_lock(study / ".submit-lock")
    except OSError as error:
        raise InputError(f"{study}: cannot be written ({error}); give another folder with --runs") from None
    with lock:
        if not try_lock(lock):
            raise InputError(f"{study}: another `ditbench sweep submit` is at work on it; wait until it is done")
        yield
