"""How runs become jobs: one array for all that get the same resources, one run or more in each of its tasks.

The plan and the submission both ask here, so that they agree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.device import check_modes
from bench.flops import forward_gmacs, training_gmacs
from bench.recipe import Recipe
from bench.samplers.guide import sampling_gmacs
from sweeps.cluster import ClusterProfile, Resources

Kind = Literal["training", "evaluation"]

# Work of one step beside multiply-accumulates, in their unit: kernel starts and small operations of one block.
OVERHEAD_MACS_PER_BLOCK = 12e6


@dataclass(frozen=True)
class Group:
    """An array: what each task gets, how many run at once, and the runs each task does one after the other."""

    resources: Resources
    max_parallel: int
    tasks: list[list[Recipe]]


def groups(recipes: Sequence[Recipe], profile: ClusterProfile, kind: Kind) -> list[Group]:
    """The arrays of one kind of jobs. Runs of a task are in the sweep's order, the longest tasks come first.

    Evaluation has the tasks of training, array by array and index by index, so that SLURM's `aftercorr` can have
    scoring task i wait for training task i: runs share an array if both their jobs get the same. It has none where
    training jobs score.

    Raises:
        InputError: the profile has nothing for a run, or its batch cannot be split over the ranks.
    """
    apart = not scores_in_training(profile)
    if kind == "evaluation" and not apart:
        return []
    members: dict[tuple[Resources, Resources | None], list[Recipe]] = {}
    for recipe in recipes:
        scoring = profile.evaluation_resources(recipe) if apart else None
        members.setdefault((training_resources(recipe, profile), scoring), []).append(recipe)
    result = []
    for (training, scoring), runs in members.items():
        size = training.runs_per_job
        tasks = [runs[start : start + size] for start in range(0, len(runs), size)]
        tasks.sort(key=lambda task: -sum(map(work, task)))
        resources = scoring if kind == "evaluation" and scoring else training
        result.append(Group(resources, _max_parallel(resources, profile), tasks))
    return result


def scores_in_training(profile: ClusterProfile) -> bool:
    """Whether the job that trains a run also scores it."""
    return profile.executor == "local" or profile.evaluate == "inline"


def training_resources(recipe: Recipe, profile: ClusterProfile) -> Resources:
    """What the training job of a run gets, on this machine too: one rank, on a GPU if there is one to use.

    Raises:
        InputError: the profile has nothing for it, or its modes cannot be.
    """
    resources = Resources(gpus_per_node=1 if profile.device == "cuda" else 0)
    if profile.executor == "slurm":
        resources = profile.training_resources(recipe)
    check_modes(profile.modes, recipe.model.name, resources.ranks, profile.where)
    return resources


def local_slots(device: str) -> int:
    """Jobs at once on this machine: one a core, or one for a GPU."""
    if device == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(recipe: Recipe) -> float:
    """A whole run's cost in multiply-accumulates, training and sampling, for the order of tasks and time left."""
    return training_work(recipe) + scoring_work(recipe)


def training_work(recipe: Recipe) -> float:
    return recipe.train.steps * step_work(recipe)


def scoring_work(recipe: Recipe) -> float:
    """Of sampling: scores of the same samples share them."""
    gmacs = forward_gmacs(recipe.model)
    return 1e9 * sum(
        steps * evaluation.num_samples * sampling_gmacs(evaluation, recipe.diffusion, gmacs)
        for evaluation, steps in recipe.wanted_samples()
    )


def step_work(recipe: Recipe) -> float:
    """A training step's cost in multiply-accumulates, with what small models spend on starting their operations."""
    gmacs = training_gmacs(forward_gmacs(recipe.model), recipe.train.batch_size, 1)
    return 1e9 * gmacs + recipe.model.architecture().depth * OVERHEAD_MACS_PER_BLOCK


def _max_parallel(resources: Resources, profile: ClusterProfile) -> int:
    if profile.executor == "local":
        return min(profile.max_parallel, local_slots(profile.device))
    return resources.max_parallel or profile.max_parallel
