"""A sweep's jobs on SLURM, through submitit: an array for all runs that get the same resources.

Only what is missing is submitted: a run that is finished, queued or running is left alone. Scoring arrays wait for the
training arrays task by task. Every submission has a folder of its own, with its record, its code and its jobs' logs.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shlex
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError, RunError
from bench.files.jsonl import now
from bench.files.run_folder import clear_error, is_finished, is_trained, open_lock, try_lock, write_config
from bench.provenance import commit
from bench.ready import check_ready
from bench.recipe import Recipe
from sweeps.cluster import ClusterProfile, Resources
from sweeps.environment import THREAD_VARIABLES
from sweeps.expand import Sweep, run_folders
from sweeps.groups import Group, groups
from sweeps.slurm import client, submissions
from sweeps.slurm.job import STOP_SIGNAL, Task
from sweeps.slurm.snapshot import copy_code
from sweeps.slurm.submissions import JobArray, Kind, Submission, submission_folder

# SLURM's default MaxArraySize is 1001.
LARGEST_ARRAY = 1000
# Requeueing is decided in `sweeps.slurm.after`, never by submitit's count of time-outs.
MAX_NUM_TIMEOUT = 10**6
# In the names of logs, SLURM replaces %j and the like, and stops that at a backslash; a colon divides PYTHONPATH.
NOT_IN_PATHS = "%\\:"


@dataclass(frozen=True)
class Todo:
    """What a submission would start, and what it leaves alone: numbers of runs by reason."""

    to_train: list[Recipe]
    to_score: list[Recipe]
    finished: int
    queued: int


@dataclass(frozen=True)
class Planned:
    """An array about to be submitted: its tasks, and the sbatch options and lines that `sbatch_parameters` made."""

    kind: Kind
    name: str
    group: Group
    after: str | None  # the name of the training array whose tasks it waits for


def todo(sweep: Sweep, runs: Path, jobs: dict[str, client.Job]) -> Todo:
    """Sort a sweep's runs by what is left to do, given the jobs that SLURM has.

    Raises:
        InputError: a submission's record is damaged.
    """
    study, folders = runs / sweep.name, run_folders(sweep, runs)
    busy = queued_runs(submissions.read_all(study), jobs)
    to_train, to_score, finished, queued = [], [], 0, 0
    for recipe in sweep.recipes:
        folder = folders[recipe.id]
        if is_finished(folder):
            finished += 1
        elif folder.name in busy["training"] | busy["scoring"] and not _needs_training(recipe, folder, busy):
            queued += 1
        elif is_trained(recipe, folder):
            to_score.append(recipe)
        else:
            to_train.append(recipe)
    return Todo(to_train, to_score, finished, queued)


def _needs_training(recipe: Recipe, folder: Path, busy: dict[Kind, set[str]]) -> bool:
    """Whether only a scoring job is left of a run that is not trained: its training job ended early."""
    return folder.name not in busy["training"] and not is_trained(recipe, folder)


def queued_runs(records: Sequence[Submission], jobs: dict[str, client.Job]) -> dict[Kind, set[str]]:
    """Names of the run folders that a queued or running job is for, by the kind of job."""
    by_name: dict[str, list[client.Job]] = {}
    for job in jobs.values():
        by_name.setdefault(job.name, []).append(job)
    busy: dict[Kind, set[str]] = {"training": set(), "scoring": set()}
    for record in records:
        for array in record.arrays:
            for job in by_name.get(array.name, []):
                busy[array.kind].update(array.tasks[array.index_of(job)])
    return busy


def planned_arrays(sweep: Sweep, work: Todo, profile: ClusterProfile) -> list[Planned]:
    """The arrays of a submission: training, scoring that waits for it, scoring of what is trained already."""
    token = uuid.uuid4().hex[:8]
    result: list[Planned] = []

    def add(kind: Kind, group: Group, after: str | None) -> str:
        name = f"{sweep.name}-{kind}-{token}-{len(result)}"
        result.append(Planned(kind, name, group, after))
        return name

    training = _split(groups(work.to_train, profile, "training"))
    waiting = _split(groups(work.to_train, profile, "evaluation")) or [None] * len(training)
    for group, scoring in zip(training, waiting, strict=True):
        after = add("training", group, None)
        if scoring is not None:
            add("scoring", scoring, after)
    # Where training jobs score, they also score what was trained before.
    kind: Kind = "training" if profile.evaluate == "inline" else "scoring"
    for group in _split(groups(work.to_score, profile, "training" if kind == "training" else "evaluation")):
        add(kind, group, None)
    return result


def _split(whole: list[Group]) -> list[Group]:
    """Arrays no larger than SLURM allows."""
    return [
        Group(group.resources, group.max_parallel, group.tasks[start : start + LARGEST_ARRAY])
        for group in whole
        for start in range(0, len(group.tasks), LARGEST_ARRAY)
    ]


def submit(
    sweep: Sweep, runs: Path, work: Todo, profile: ClusterProfile, cluster: str, trackers: tuple[str, ...] = ()
) -> Submission:
    """Submit what is to be done. Call it with the study locked (see `submitting`).

    Raises:
        InputError: SLURM refuses an array (its own words), the data are not there, or the folder belongs to another
            recipe or cannot be written. Arrays that were accepted before are cancelled again.
        MissingAsset: a file of others is not in the cache.
        RunError: SLURM does not answer.
    """
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    client.require("sbatch")
    study, folders = (runs / sweep.name).resolve(), run_folders(sweep, runs)
    for recipe in (*work.to_train, *work.to_score):
        check_ready(recipe, offline=True)
        write_config(recipe, folders[recipe.id], sweep.axes.get(recipe.id))
        clear_error(folders[recipe.id])  # first: a job may start at once, and would leave a failed run alone
    arrays = planned_arrays(sweep, work, profile)
    records = [
        JobArray(
            kind=a.kind,
            name=a.name,
            job_id=None,
            tasks=tuple(tuple(folders[r.id].name for r in task) for task in a.group.tasks),
        )
        for a in arrays
    ]
    submission = Submission(
        number=_next_number(study),
        time=now(),
        sweep=sweep.name,
        cluster=cluster,
        profile=profile,
        commit=commit(),
        trackers=trackers,
        arrays=tuple(records),
        uid=os.getuid(),
    )
    folder = submission_folder(study, submission.number)
    copy_code(folder / "code")
    submissions.write(study, submission)  # before SLURM knows of them: see `sweeps.slurm.submissions`
    ids: dict[str, str] = {}
    for index, (array, record) in enumerate(zip(arrays, records, strict=True)):
        try:
            # Not submitit's AutoExecutor, which drops the None that stands for no wckey.
            executor = submitit.SlurmExecutor(folder / "jobs", max_num_timeout=MAX_NUM_TIMEOUT)
            after = _dependency(array, ids)
            executor.update_parameters(**sbatch_parameters(profile, array.group.resources, array, folder, after))
            tasks = [make_task(record.kind, names, study, folder, submission) for names in record.tasks]
            # submitit prints what sbatch says besides raising it.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        except (FailedJobError, FailedSubmissionError) as error:
            said = client.shortened(_said(error))
            if any(words in said for words in client.NO_ANSWER):
                raise RunError(f"SLURM does not answer: {said}; submit again when it does") from None
            client.cancel(list(ids.values()))
            raise InputError(f"SLURM refused the {array.kind} array: {said}") from None
        ids[array.name] = jobs[0].job_id.partition("_")[0]
        records[index] = record.model_copy(update={"job_id": ids[array.name]})
        submission = submission.model_copy(update={"arrays": tuple(records)})
        submissions.write(study, submission)
    return submission


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
        cluster=submission.cluster,
        max_failures=profile.max_failures,
        trackers=submission.trackers,
        inline_scoring=profile.evaluate == "inline",
        score_as_ready=profile.evaluate == "as-ready",
    )


def _said(error: Exception) -> str:
    """sbatch's own message: submitit wraps it."""
    lines = [line for line in str(error).splitlines() if "error:" in line or "fatal:" in line]
    return "\n".join(lines) or str(error)


def _dependency(array: Planned, ids: dict[str, str]) -> str | None:
    """Task i after task i: that of an array, or the one job."""
    if array.after is None:
        return None
    return f"{'afterok' if len(array.group.tasks) == 1 else 'aftercorr'}:{ids[array.after]}"


def check_folder(study: Path) -> None:
    """Refuse a study's folder whose path SLURM, or a search path, would take for another.

    Raises:
        InputError: with the characters that do that.
    """
    path = str(study.resolve())
    special = sorted({c for c in path if c in NOT_IN_PATHS or not c.isprintable()})
    if special:
        raise InputError(
            f"{path!r}: SLURM's logs and Python's search path cannot be there because of "
            f"{' '.join(map(repr, special))}; give another folder with --runs"
        )


def sbatch_parameters(
    profile: ClusterProfile, resources: Resources, array: Planned, folder: Path, dependency: str | None
) -> dict[str, Any]:
    """Options of sbatch and lines of the batch script, as submitit names them. `folder`: of the submission."""
    code, python = shlex.quote(str(folder / "code")), shlex.quote(sys.executable)
    stop_signal = STOP_SIGNAL.name.removeprefix("SIG")
    request_as = profile.gpu.request_as if profile.gpu else None
    gpus = resources.gpus_per_node
    additional: dict[str, Any] = {
        "requeue" if profile.requeue else "no-requeue": True,
        # Not submitit's, which a variable of the caller's may have changed.
        "signal": f"{stop_signal}@{profile.signal_before_end_s}",
    }
    if dependency:
        # Else a job whose dependency can never be satisfied stays in the queue for ever.
        additional |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
    parameters = {
        "job_name": array.name,
        "partition": resources.partition or profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "time": profile.time_limit_minutes(resources),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "gpus_per_node": (f"{request_as}:{gpus}" if request_as else gpus) if gpus else None,
        "cpus_per_task": resources.cpus_per_task,
        # Rounded up: to sbatch, 0 is all memory of the node.
        "mem": f"{math.ceil(resources.mem_gb * 1024)}M" if resources.mem_gb else None,
        "array_parallelism": array.group.max_parallel,
        "mail_user": profile.mail.user if profile.mail else None,
        "mail_type": ",".join(profile.mail.events) if profile.mail else None,
        "stderr_to_stdout": True,
        "wckey": None,
        "srun_args": [
            # What the lines of the script set, also where the script itself was given nothing (`export: NONE`).
            "--export=ALL",
            # Else ranks wait for ever for one that died.
            *(["--kill-on-bad-exit=1"] if resources.ranks > 1 else []),
        ],
        "additional_parameters": {**additional, **profile.sbatch_options},
        "setup": [
            # As in `sweeps.slurm.after`, which looks below it for what srun said.
            'echo "attempt ${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}'
            '${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}.${SLURM_RESTART_COUNT:-0}"',
            *profile.setup,
            f"cd {code}",
            f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"',  # modules of a cluster may need theirs
            f"export SUBMITIT_PREEMPT_SIGNAL={stop_signal}",
            " ".join(["export", *(f'{name}="${{SLURM_CPUS_PER_TASK:-1}}"' for name in THREAD_VARIABLES)]),
            'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not take it over since 22.05',
        ],
        "teardown": [
            "status=$?",
            'if [ "$status" -ne 0 ]; then',
            f"  {python} -m sweeps.slurm.after {shlex.quote(str(folder))} {array.name} "
            '"${SLURM_ARRAY_TASK_ID:-0}" "$status" "$SECONDS"',
            "  status=$?",
            "fi",
            'exit "$status"',
        ],
    }
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def sbatch_scripts(sweep: Sweep, runs: Path, work: Todo, profile: ClusterProfile) -> list[tuple[Planned, str]]:
    """Every array with the script that `submit` would hand to sbatch; nothing is written, SLURM is not asked."""
    from submitit.slurm.slurm import _make_sbatch_string

    study = (runs / sweep.name).resolve()
    folder = submission_folder(study, _next_number(study))
    scripts = []
    for array in planned_arrays(sweep, work, profile):
        dependency = _dependency(array, {array.after: "JOBID"} if array.after else {})
        parameters = sbatch_parameters(profile, array.group.resources, array, folder, dependency)
        if len(array.group.tasks) > 1:
            parameters["map_count"] = len(array.group.tasks)
        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder / 'jobs'))}"
        scripts.append((array, _make_sbatch_string(command=command, folder=folder / "jobs", **parameters)))
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
