"""Training apart from runs: the last state, and how far two may differ that sum in another order."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench import checkpoint, jsonl
from bench.data import Digits
from bench.parallel import SINGLE, Ranks
from bench.recipe import Recipe
from bench.train import Trainer

CPU = torch.device("cpu")


def trained(recipe: Recipe, folder: Path, micro_batches: int, ranks: Ranks = SINGLE) -> dict[str, Tensor]:
    """The last training state, with the logged values beside it."""
    folder.mkdir(exist_ok=True)
    digits = Digits(CPU)
    trainer = Trainer(recipe, digits, folder, 0.5, CPU, "fp32", ranks=ranks, micro_batches=micro_batches)
    trainer.resume(recipe.train.steps)
    trainer.train_until(recipe.train.steps)
    return last_state(recipe, folder)


def last_state(recipe: Recipe, folder: Path) -> dict[str, Tensor]:
    path = folder / "checkpoints" / f"state-{recipe.train.steps:08d}.safetensors"
    rows = jsonl.read(folder / "train.jsonl")
    logged = [[row[key] for row in rows] for key in ("loss", "mse", "vb", "grad_norm")]
    return {**checkpoint.load_tensors(path)[0], "logged": torch.tensor(logged, dtype=torch.float64)}


def assert_equal_but_for_the_order_of_sums(
    one: dict[str, Tensor], reordered: list[dict[str, Tensor]], other: dict[str, Tensor]
) -> None:
    """`other` is no further from `one` than four times what other orders of summing make of it, tensor by tensor."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        spread = max((each[name] - tensor).norm() for each in reordered)
        assert 0 < spread < 1e-4 * tensor.norm(), name
        assert (other[name] - tensor).norm() <= 4 * spread, name
