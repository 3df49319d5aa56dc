"""The suite's own training step and sampling, as `ditbench run` and `ditbench sample` have them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.flops import forward_gmacs
from bench.parallel import Parallel, prepare_device
from bench.perf.contenders import Entrant, Work, examples
from bench.run import build_model, build_trainer
from bench.sample import Sampling, sample


class _Examples:
    """Examples in memory as a data set (`bench.data.Dataset`)."""

    def __init__(self, x0: Tensor, labels: Tensor, num_classes: int) -> None:
        self.num_classes = num_classes
        self._x0, self._labels = x0, labels

    def __len__(self) -> int:
        return len(self._x0)

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = indices[share].to(self._x0.device)
        return self._x0[chosen], self._labels[chosen]

    def read_ahead(self, indices: Tensor) -> None:
        """They are there."""


class _Undecoded:
    """In the place of a decoder: samples as the network's range has them."""

    id = "none"
    latent_channels = None

    def decode(self, x: Tensor) -> Tensor:
        return x


def training(work: Work) -> Entrant:
    device, recipe = prepare_device(work.device, work.precision), work.recipe
    dataset = _Examples(*examples(work, device), work.arch.num_classes)
    parallel = Parallel(device, work.precision)
    trainer = build_trainer(recipe, dataset, Path(), forward_gmacs(recipe.model), parallel)  # a step writes nothing
    return Entrant(trainer.model, trainer.take_step)


def sampling(work: Work) -> Entrant:
    device, recipe = prepare_device(work.device, work.precision), work.recipe
    network = build_model(recipe, device).eval()
    asked, number = Sampling.of(recipe), recipe.evaluation.batch_size
    return Entrant(network, lambda: sample(network, asked, _Undecoded(), 0, number, device, work.precision))
