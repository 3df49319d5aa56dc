"""The batches of a recipe, apart from a trainer."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data import Dataset
from bench.objectives import OBJECTIVES
from bench.parallel import SINGLE, Parallel, Ranks
from bench.recipe import Recipe
from bench.train import BatchSampler

CPU = torch.device("cpu")


def batches_of(recipe: Recipe, dataset: Dataset, ranks: Ranks = SINGLE) -> BatchSampler:
    objective = OBJECTIVES.find(recipe.diffusion.objective)(recipe.diffusion.options, CPU)
    return BatchSampler(objective, dataset, recipe.train, recipe.seed, Parallel(ranks=ranks))


def tensors(batch: tuple[Tensor, Tensor, dict[str, Tensor]]) -> list[Tensor]:
    """x0, labels, and what the objective drew."""
    x0, labels, drawn = batch
    return [x0, labels, *drawn.values()]
