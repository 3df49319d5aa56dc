"""Convolutions are counted on the meta device, to what the sizes of their weights and outputs say."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.flops import count_macs, count_network


def forward_macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Counted on the meta device; nothing else is tried."""
    return count_macs(network.to("meta"), shape, others=())[""]


KINDS = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}


@pytest.mark.parametrize("axes", KINDS)
@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2, "bias": False}])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_convolution_costs_its_weights_at_every_place(
    axes: int, settings: dict[str, Any], is_transposed: bool
) -> None:
    """At every output place; at every input place, where it is transposed. Without a batch as with one."""
    network = KINDS[axes][is_transposed](4, 6, 3, **settings)
    shape = (4, 9, 8, 7)[: 1 + axes]
    places = shape if is_transposed else network(torch.zeros(shape)).shape
    expected = network.weight.numel() * prod(places[1:])
    assert forward_macs(network, (2, *shape)) == 2 * expected
    assert forward_macs(network, shape) == expected


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize(("padding", "kernel"), [("valid", (3, 3)), ("same", (3, 3)), ("same", (4, 1)), ("same", 2)])
def test_padding_by_name(padding: str, kernel: Any) -> None:
    network = nn.Conv2d(3, 5, kernel, padding=padding, dilation=(1, 2))
    side = network(torch.zeros(1, 3, 9, 9)).shape[2:]
    assert forward_macs(network, (1, 3, 9, 9)) == network.weight.numel() * prod(side)


def test_convolutions_that_are_no_modules_and_whose_sizes_come_from_the_input() -> None:
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 4, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            x = functional.conv2d(input=x, weight=self.weight, padding=1, stride=(2, 1))
            # The nearest neighbour is a copy, which costs nothing.
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")[..., : x.shape[-1]]
            x = functional.pad(x, (1, 0, 0, 1))
            return torch.conv_transpose2d(x, self.weight, output_padding=(1, 0), stride=[2, 1])

    weight, (height, width) = 6 * 4 * 9, (8, 6)
    halved = height // 2 * width
    assert forward_macs(Called(), (1, 4, height, width)) == weight * (halved + (height + 1) * (width + 1))


def test_a_network_too_large_for_memory_is_counted() -> None:
    """2^44 weights of a convolution of clips: 64 TB."""
    side, channels = 16, 2**20
    found = count_network(
        "large", lambda: nn.Conv3d(channels, channels, (4, 2, 2), bias=False), (channels, 4, side, side), lambda _: [()]
    )
    assert found.cost.parameters == channels**2 * 16
    assert found.cost.macs == found.cost.parameters * (side - 1) ** 2
