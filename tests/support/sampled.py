"""Samples of any network by the suite's samplers, and its losses, on the paper's process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.objectives.denoiser import Network
from bench.objectives.iddpm import IDDPM, IDDPMOptions
from bench.samplers import NoOptions
from bench.samplers.ddim import DDIM, DDIMOptions
from bench.samplers.ddpm import DDPM

CPU = torch.device("cpu")
NOISE = IDDPMOptions()


def never() -> Tensor:
    raise AssertionError("no noise was due")


def sample_ddim(
    network: Network,
    num_steps: int,
    x: Tensor,
    clip: bool,
    draw: Callable[[], Tensor] = never,
    eta: float = 0.0,
    options: IDDPMOptions = NOISE,
) -> Tensor:
    return DDIM.sample(IDDPM(options, CPU).denoiser(network, clip), x, num_steps, draw, DDIMOptions(eta))


def sample_ddpm(
    network: Network, num_steps: int, x: Tensor, draw: Callable[[], Tensor], clip: bool, options: IDDPMOptions = NOISE
) -> Tensor:
    return DDPM.sample(IDDPM(options, CPU).denoiser(network, clip), x, num_steps, draw, NoOptions())


def losses(
    network: nn.Module, x0: Tensor, t: Tensor, labels: Tensor, noise: Tensor, options: IDDPMOptions = NOISE
) -> dict[str, Tensor]:
    return IDDPM(options, CPU).losses(network, x0, labels, {"t": t, "noise": noise})
