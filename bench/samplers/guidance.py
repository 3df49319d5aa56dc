"""Condition and guidance, bound to a network: classifier-free, by another network, in an interval of times alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.objectives.denoiser import Network
from bench.samplers import is_guided_at
from models.conditions import Condition, joined, without
from models.layers import classifier_free, guided_channels


def guided(
    network: nn.Module,
    condition: Condition,
    num_classes: int,
    in_channels: int,
    scale: float,
    channels: int | None,
    interval: tuple[float, float] | None = None,
    guide: nn.Module | None = None,
) -> Network:
    """A `Network` for labels (N,) or captions: its conditional prediction, guided on the first `channels` (None: all)
    of x's.

    weak + scale (conditional prediction - weak), where weak is the prediction for the null label or caption (Ho &
    Salimans 2022, arXiv 2207.12598) or the conditional prediction of `guide` (autoguidance: Karras et al. 2024,
    arXiv 2406.02507). The other channels, a variance among them, are the conditional prediction.

    Scale 1 is no guidance and costs one forward pass, not two; so does a time outside of `interval`, which is in the
    process's times and includes its ends (Kynkaanniemi et al. 2024, arXiv 2404.07724).
    """

    def plain(x: Tensor, t: Tensor, time: float) -> Tensor:
        return network(x, t, condition).float()

    if scale == 1.0:
        return plain
    channels = guided_channels(channels, in_channels)
    both = joined([condition, without(condition, num_classes)])

    def call(x: Tensor, t: Tensor, time: float) -> Tensor:
        if not is_guided_at(time, interval):
            return plain(x, t, time)
        if guide is None:
            out = network(torch.cat([x, x]), torch.cat([t, t]), both)
        else:
            out = torch.cat([network(x, t, condition), guide(x, t, condition)])
        return torch.cat([classifier_free(out[:, :channels], scale), out[: len(x), channels:]], dim=1).float()

    return call
