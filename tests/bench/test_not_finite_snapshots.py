"""Averages' snapshots of a run with steps that are not finite are those of the weights that the run went on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipes import tiny
from test_not_finite_steps import disturbed, rows, trainer
from torch import Tensor
from trainings import assert_same

from bench.averages import kept_weights
from bench.files import checkpoint
from bench.files.run_folder import weights_path
from bench.recipe import Recipe


def averaging(policy: str) -> Recipe:
    """With a snapshot of two averages after every step."""
    train: dict[str, Any] = {"non_finite": policy, "ema_decays": [0], "ema_stds": [0.05, 0.1], "ema_snapshot_every": 1}
    return tiny(train={**train, "checkpoint_steps": [6]})


def kept(recipe: Recipe, folder: Path) -> dict[tuple[int, str], dict[str, Tensor]]:
    """All kept weights, by step and name, which are exactly those that the recipe asks for."""
    wanted = [(step, name) for step, names in kept_weights(recipe.train).items() for name in names]
    paths = {(step, name): weights_path(folder / "checkpoints", step, name) for step, name in wanted}
    states = {*(folder / "checkpoints").glob("state-*")}
    assert {*paths.values()} == {*(folder / "checkpoints").glob("*.safetensors")} - states
    return {key: checkpoint.load_tensors(path)[0] for key, path in paths.items()}


@pytest.mark.parametrize("stops", [(), (9,), (10, 11)])
def test_after_a_roll_back_they_are_of_the_kept_trajectory(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """Batch 9 is not finite: step 9 has a snapshot by then, and is made again of batch 10."""
    recipe = averaging("roll-back")
    disturbed(recipe, tmp_path / "run", 9, stops=stops)
    assert rows(tmp_path / "run", "roll-backs.jsonl") == [{"step": 8, "failed_step": 10, "first_step": 10}]
    other = trainer(recipe, tmp_path / "other")
    other.train_until(8)
    before = checkpoint.load_tensors(weights_path(tmp_path / "other/checkpoints", 8, "ema std=0.1"))[0]
    other._batches._batch_of = lambda step: step + 2
    other.train_until(12)
    found, expected = kept(recipe, tmp_path / "run"), kept(recipe, tmp_path / "other")
    for key, tensors in expected.items():
        assert_same(tensors, found[key])
    plain = trainer(averaging("stop"), tmp_path / "plain")
    plain.train_until(9)
    failed = checkpoint.load_tensors(weights_path(tmp_path / "plain/checkpoints", 9, "ema std=0.1"))[0]
    assert any((failed[name] != tensor).any() for name, tensor in found[9, "ema std=0.1"].items())
    assert_same(before, found[8, "ema std=0.1"])


def test_a_skipped_step_has_the_average_of_the_one_before(tmp_path: Path) -> None:
    """Its snapshot is there all the same: what is made of snapshots counts on every one."""
    recipe = averaging("skip")
    trainer(recipe, tmp_path / "run", 4).train_until(12)
    found = kept(recipe, tmp_path / "run")
    for name in ("ema std=0.05", "ema std=0.1"):
        assert_same(found[4, name], found[5, name])
        assert any((found[6, name][key] != tensor).any() for key, tensor in found[5, name].items())
