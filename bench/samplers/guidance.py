"""Labels and classifier-free guidance, bound to a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.objectives.denoiser import Network
from models.layers import classifier_free, guided_channels


def guided(
    network: nn.Module, labels: Tensor, null_label: int, in_channels: int, scale: float, channels: int | None
) -> Network:
    """A `Network` for labels (N,): its class prediction, guided on the first `channels` (None: all) of x's.

    Scale 1 is no guidance and costs one forward pass, not two. The other channels, a variance among them, are the
    class prediction.
    """
    if scale == 1.0:
        return lambda x, t, time: network(x, t, labels).float()
    channels = guided_channels(channels, in_channels)
    both = torch.cat([labels, torch.full_like(labels, null_label)])

    def call(x: Tensor, t: Tensor, time: float) -> Tensor:
        out = network(torch.cat([x, x]), torch.cat([t, t]), both)
        return torch.cat([classifier_free(out[:, :channels], scale), out[: len(x), channels:]], dim=1).float()

    return call
