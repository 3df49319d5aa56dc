"""A sweep's jobs on SLURM, through submitit: an array for all runs that get the same resources.

Only what is missing is submitted: a run that is finished, queued or running is left alone. Scoring arrays wait for the
training arrays task by task. Every submission has a folder of its own, with its record, its code and its jobs' logs.

A submission may be cut off anywhere, by a limit, by SLURM's silence or by the end of its process: what a job needs is
there before SLURM knows of it, an array is recorded by its name before it is submitted, and what is missing is found
by looking at the queue, never remembered.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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

# Requeueing is decided in `sweeps.slurm.after`, never by submitit's count of time-outs.
MAX_NUM_TIMEOUT = 10**6
# In the names of logs, SLURM replaces %j and the like, and stops that at a backslash; a colon divides PYTHONPATH.
NOT_IN_PATHS = "%\\:"


@dataclass(frozen=True)
class Todo:
    """What a submission would start, and what it leaves alone: numbers of runs by reason.

    `to_score_after`: training tasks in the queue that no scoring job waits for.
    """

    to_train: list[Recipe]
    to_score: list[Recipe]
    to_score_after: list[TrainingTask]
    finished: int
    queued: int

    @property
    def is_nothing(self) -> bool:
        return not (self.to_train or self.to_score or self.to_score_after)


@dataclass(frozen=True)
class TrainingTask:
    """A task of a training array in the queue, and its runs."""

    array: JobArray
    index: int
    runs: list[Recipe]


@dataclass(frozen=True)
class Planned:
    """An array about to be submitted: its tasks, and whom they wait for.

    Attributes:
        after: the name of the training array whose tasks it waits for, task by task.
        indices: SLURM's index of every task; None: 0, 1 and so on.
        behind: the name of an array of which all has to end first.
    """

    kind: Kind
    name: str
    group: Group
    after: str | None = None
    indices: tuple[int, ...] | None = None
    behind: str | None = None

    def part(self, name: str, start: int, stop: int) -> Planned:
        """Some of its tasks, under another name."""
        indices = self.indices[start:stop] if self.indices else None
        return replace(self, name=name, group=replace(self.group, tasks=self.group.tasks[start:stop]), indices=indices)


@dataclass(frozen=True)
class Submitted:
    """What was submitted; the arrays that SLURM did not take now, and its words for it."""

    submission: Submission
    left: Sequence[Planned] = ()
    said: str = ""


def todo(sweep: Sweep, runs: Path, jobs: Mapping[str, client.Job]) -> Todo:
    """Sort a sweep's runs by what is left to do, given the jobs that SLURM has.

    Raises:
        InputError: a submission's record is damaged.
    """
    study, folders = runs / sweep.name, run_folders(sweep, runs)
    records = submissions.read_all(study)
    busy = queued_runs(records, jobs)
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
    unfinished = {folders[r.id].name: r for r in sweep.recipes if not is_finished(folders[r.id])}
    return Todo(to_train, to_score, _unscored(records, jobs, unfinished), finished, queued)


def _needs_training(recipe: Recipe, folder: Path, busy: dict[Kind, set[str]]) -> bool:
    """Whether only a scoring job is left of a run that is not trained: its training job ended early."""
    return folder.name not in busy["training"] and not is_trained(recipe, folder)


def _unscored(
    records: Sequence[Submission], jobs: Mapping[str, client.Job], unfinished: Mapping[str, Recipe]
) -> list[TrainingTask]:
    """Training tasks in the queue whose scoring did not get there: its submission was cut off, or it was cancelled."""
    live = list(_live(records, jobs))
    last = [array.tasks[index] for _, array, index in live if array.kind == "scoring" and not array.early]
    scored = {name for task in last for name in task}
    tasks = []
    for record, array, index in live:
        runs = [unfinished[name] for name in array.tasks[index] if name in unfinished]
        is_apart = array.kind == "training" and record.profile.evaluate != "inline"
        if is_apart and runs and not scored & set(array.tasks[index]):
            tasks.append(TrainingTask(array, index, runs))
    return tasks


def _live(records: Sequence[Submission], jobs: Mapping[str, client.Job]) -> Iterator[tuple[Submission, JobArray, int]]:
    """The tasks of submissions' arrays that are in the queue, by their number."""
    by_name: dict[str, list[client.Job]] = {}
    for job in jobs.values():
        by_name.setdefault(job.name, []).append(job)
    for record in records:
        for array in record.arrays:
            for index in sorted({array.index_of(job) for job in by_name.get(array.name, [])}):
                yield record, array, index


def queued_runs(records: Sequence[Submission], jobs: Mapping[str, client.Job]) -> dict[Kind, set[str]]:
    """Names of the run folders that a queued or running job is for, by the kind of job."""
    busy: dict[Kind, set[str]] = {"training": set(), "scoring": set()}
    for _, array, index in _live(records, jobs):
        busy[array.kind].update(array.tasks[index])
    return busy


def planned_arrays(
    sweep: Sweep, work: Todo, profile: ClusterProfile, largest: int = client.SAFE_ARRAY
) -> list[Planned]:
    """The arrays of a submission: training, scoring that waits for it, scoring of what is trained already.

    `largest`: as many tasks as an array may have.
    """
    token = uuid.uuid4().hex[:8]
    result: list[Planned] = []

    def add(kind: Kind, whole: Group, after: Sequence[str] = (), indices: tuple[int, ...] | None = None) -> list[str]:
        names: list[str] = []
        if kind == "scoring":
            whole = replace(whole, max_parallel=_last_scoring(whole.max_parallel, profile))
        for number, group in enumerate(_split(whole, largest)):
            names.append(f"{sweep.name}-{kind}-{token}-{len(result)}")
            # As many at once as the profile says, however many arrays they are.
            behind = names[number - whole.max_parallel] if number >= whole.max_parallel else None
            result.append(Planned(kind, names[-1], group, after[number] if after else None, indices, behind))
        return names

    training = groups(work.to_train, profile, "training")
    waiting = groups(work.to_train, profile, "evaluation") or [None] * len(training)
    for group, scoring in zip(training, waiting, strict=True):
        after = add("training", group)
        if scoring is not None:
            add("scoring", scoring, after)
    # Where training jobs score, they also score what was trained before.
    if profile.evaluate == "inline":
        for group in groups(work.to_score, profile, "training"):
            add("training", group)
        return result
    for group in groups(work.to_score, profile, "evaluation"):
        add("scoring", group)
    for group, array, indices in _following(work.to_score_after, profile):
        add("scoring", group, [array.name], indices)
    return result


def _following(
    tasks: Sequence[TrainingTask], profile: ClusterProfile
) -> Iterator[tuple[Group, JobArray, tuple[int, ...]]]:
    """Scoring for training tasks in the queue, an array for each training array and resources."""
    members: dict[tuple[str, Resources], list[TrainingTask]] = {}
    for task in tasks:
        members.setdefault((task.array.name, profile.evaluation_resources(task.runs[0])), []).append(task)
    for (_, resources), these in members.items():
        group = Group(resources, resources.max_parallel or profile.max_parallel, [task.runs for task in these])
        array = these[0].array
        yield group, array, tuple(array.slurm_index(task.index) for task in these)


def early_scoring(max_parallel: int) -> int:
    """How many scoring jobs of the profile's number may be at work while training goes on (`evaluate: as-ready`)."""
    return max_parallel // 2


def _last_scoring(max_parallel: int, profile: ClusterProfile) -> int:
    """How many scoring tasks may be at work that waited for the end of training: the others of the number."""
    return max_parallel - early_scoring(max_parallel) if profile.evaluate == "as-ready" else max_parallel


def _split(whole: Group, largest: int) -> list[Group]:
    """Arrays no larger than SLURM allows, which share what may be at work at once."""
    starts = range(0, len(whole.tasks), largest)
    share, more = divmod(whole.max_parallel, len(starts))
    return [
        Group(whole.resources, max(1, share + (number < more)), whole.tasks[start : start + largest])
        for number, start in enumerate(starts)
    ]


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


def sbatch_script(profile: ClusterProfile, array: Planned, folder: Path, dependency: str | None) -> str:
    """What sbatch is given for an array of the submission in `folder`."""
    from submitit.slurm.slurm import _make_sbatch_string

    jobs = folder / "jobs"
    parameters = sbatch_parameters(profile, array.group.resources, array, folder, dependency)
    # submitit looks for a job's task under its id, which nobody knows yet.
    link = (
        f'ln -sf {shlex.quote(array.name)}-"${{SLURM_ARRAY_TASK_ID:-0}}".pkl {shlex.quote(str(jobs))}/'
        '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    )
    parameters["setup"] = [link, *parameters["setup"]]
    if (size := len(array.group.tasks)) > 1:
        parameters["map_count"] = size
        if array.indices:
            at_once = f"{','.join(map(str, array.indices))}%{min(size, array.group.max_parallel)}"
            parameters["additional_parameters"] = {**parameters["additional_parameters"], "array": at_once}
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(jobs))}"
    return _make_sbatch_string(command=command, folder=jobs, **parameters)


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
