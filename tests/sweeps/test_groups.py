"""Groups of runs that share resources: one array each, the longest first."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from scaling_plans import SCALING, local, profile

import sweeps
from bench.recipe import Recipe
from sweeps.cluster import load_cluster
from sweeps.expand import load_sweep
from sweeps.groups import groups, local_slots, work


def test_groups_follow_resources_and_put_the_longest_first() -> None:
    where = load_cluster("slurm-example")
    training, scoring = groups(SCALING.recipes, where, "training"), groups(SCALING.recipes, where, "evaluation")
    labels = [[[recipe.label for recipe in task] for task in group.tasks] for group in training]
    assert labels == [
        [["S/8", "S/4", "B/8"]],
        [["B/2"], ["L/4"], ["XL/8"], ["S/2"], ["B/4"], ["L/8"]],
        [["XL/2"], ["L/2"], ["XL/4"]],
    ]
    assert [group.resources.gpus_per_node for group in training] == [2, 4, 8]
    assert [group.max_parallel for group in training] == [4, 6, 4]
    # Scoring task i is of training task i.
    assert [group.tasks for group in scoring] == [group.tasks for group in training]
    assert [group.resources.gpus_per_node for group in scoring] == [4, 4, 8]


def test_arrays_are_parted_where_scoring_jobs_differ() -> None:
    where = profile(evaluation=[{"models": ["XL/2"], "gpus_per_node": 8}, {"gpus_per_node": 1}])
    training, scoring = groups(SCALING.recipes, where, "training"), groups(SCALING.recipes, where, "evaluation")
    assert [group.resources.gpus_per_node for group in training] == [8, 8]
    assert [group.resources.gpus_per_node for group in scoring] == [1, 8]
    assert [group.tasks for group in scoring] == [group.tasks for group in training]
    assert [len(group.tasks) for group in training] == [11, 1]
    inline = where.model_copy(update={"evaluate": "inline"})
    assert [len(group.tasks) for group in groups(SCALING.recipes, inline, "training")] == [12]
    assert groups(SCALING.recipes, inline, "evaluation") == []


@given(st.integers(1, 5), st.lists(st.sampled_from(SCALING.recipes), unique_by=lambda r: r.id, max_size=12))
def test_every_run_is_in_one_task(size: int, recipes: list[Recipe]) -> None:
    packed = profile(training=[{"max_gmacs": 10.0, "gpus_per_node": 2, "runs_per_job": size}, {"gpus_per_node": 8}])
    result = groups(recipes, packed, "training")
    seen = [recipe.id for group in result for task in group.tasks for recipe in task]
    assert sorted(seen) == sorted(recipe.id for recipe in recipes)
    order = [recipe.id for recipe in recipes]
    for group in result:
        costs = [sum(map(work, task)) for task in group.tasks]
        assert costs == sorted(costs, reverse=True)
        for task in group.tasks:
            assert 1 <= len(task) <= group.resources.runs_per_job
            positions = [order.index(recipe.id) for recipe in task]
            assert positions == sorted(positions)
            assert all(packed.training_resources(recipe) == group.resources for recipe in task)


def test_groups_of_this_machine() -> None:
    digits = load_sweep(Path(sweeps.__file__).parent / "studies" / "digits.yaml").recipes
    (group,) = groups(digits, local(), "training")
    assert [task[0].label for task in group.tasks[:3]] == ["XL/1", "L/1", "XL/2"]
    assert group.max_parallel == local_slots("cpu") >= 1
    assert groups(digits, local(), "evaluation") == []
    (on_gpu,) = groups(digits, local(device="cuda"), "training")
    assert (on_gpu.max_parallel, on_gpu.resources.gpus_per_node) == (1, 1)
