"""Training apart from runs: the last state, and how far two may differ that sum in another order."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.data import Dataset
from bench.device import PLAIN, Modes, Precision
from bench.files import checkpoint, jsonl
from bench.parallel import SINGLE, Parallel, Ranks
from bench.recipe import Recipe
from bench.run import build_trainer
from bench.stopping import StopRequest
from bench.train import Trainer

CPU = torch.device("cpu")


def trainer_of(
    recipe: Recipe,
    folder: Path,
    ranks: Ranks = SINGLE,
    micro_batches: int = 1,
    dataset: Dataset | None = None,
    stop: StopRequest | None = None,
    modes: Modes = PLAIN,
    precision: Precision = "fp32",
) -> Trainer:
    dataset = dataset or recipe.data.load(CPU)
    parallel = Parallel(CPU, precision, ranks, modes)
    return build_trainer(recipe, dataset, folder, 0.5, parallel, stop=stop, micro_batches=micro_batches)


def trained(
    recipe: Recipe,
    folder: Path,
    micro_batches: int,
    ranks: Ranks = SINGLE,
    modes: Modes = PLAIN,
    precision: Precision = "fp32",
) -> dict[str, Tensor]:
    """The last training state, with the logged values beside it."""
    folder.mkdir(exist_ok=True)
    trainer = trainer_of(recipe, folder, ranks, micro_batches, modes=modes, precision=precision)
    trainer.resume(recipe.train.steps)
    trainer.train_until(recipe.train.steps)
    return last_state(recipe, folder)


def last_state(recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    path = folder / "checkpoints" / f"state-{recipe.train.steps:08d}.safetensors"
    rows = jsonl.read(folder / "train.jsonl")
    logged = [[row[key] for row in rows] for key in ("loss", "mse", "vb", "grad_norm")]
    return {**checkpoint.load_tensors(path)[0], "logged": torch.tensor(logged, dtype=torch.float64)}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def assert_equal_but_for_the_order_of_sums(
    one: dict[str, Tensor], reordered: list[dict[str, Tensor]], other: dict[str, Tensor]
) -> None:
    """`other` is no further from `one` than four times what other orders of summing make of it, tensor by tensor."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        spread = max((each[name] - tensor).norm() for each in reordered)
        assert 0 < spread < 1e-4 * tensor.norm(), name
        assert (other[name] - tensor).norm() <= 4 * spread, name
