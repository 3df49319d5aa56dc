"""What is missing of a sweep, as arrays of jobs: found by looking at queue and run folders, never remembered."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.files.run_folder import is_complete, is_trained
from bench.recipe import Recipe
from sweeps.cluster import ClusterProfile, Resources
from sweeps.expand import Sweep, run_folders
from sweeps.groups import Group, groups
from sweeps.slurm import client, submissions
from sweeps.slurm.submissions import JobArray, Kind, Submission


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
        if is_complete(recipe, folder):
            finished += 1
        elif folder.name in busy["training"] | busy["scoring"] and not _needs_training(recipe, folder, busy):
            queued += 1
        elif is_trained(recipe, folder):
            to_score.append(recipe)
        else:
            to_train.append(recipe)
    unfinished = {folders[r.id].name: r for r in sweep.recipes if not is_complete(r, folders[r.id])}
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
