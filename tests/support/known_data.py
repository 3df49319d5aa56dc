"""Data whose optimal prediction is known in closed form, noised by any process, and samples of it by our samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.objectives.denoiser import Denoised
from bench.objectives.process import (
    DiscreteProcess,
    LinearPath,
    NoiseLevels,
    Process,
    TrigonometricPath,
    alphas_bar,
    linear_betas,
)
from bench.samplers import SAMPLERS

PROCESSES: dict[str, Process] = {
    "discrete": DiscreteProcess(alphas_bar(linear_betas(1000))),
    "linear": LinearPath(),
    "linear-not-at-data": LinearPath(called_at_data=False),
    "trigonometric": TrigonometricPath(),
    "noise-levels": NoiseLevels(0.002, 80.0, 7.0),
}
CONTINUOUS = [name for name, process in PROCESSES.items() if process.kind == "continuous"]
SOLVERS = ("euler", "heun", "dpm-solver++", "unipc")


@dataclass
class Mixture:
    """A denoiser: E[x0 | x] and E[noise | x] of equally likely N(mean, std^2); remembers when it was called."""

    process: Process
    means: Sequence[float] = (0.4,)
    std: float = 0.3
    calls: list[float] = field(default_factory=list)

    def __call__(self, x: Tensor, t: float) -> Denoised:
        self.calls.append(t)
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        variance = alpha**2 * self.std**2 + sigma**2
        offsets = [x - alpha * mean for mean in self.means]
        shares = torch.softmax(torch.stack([-offset.square() / (2 * variance) for offset in offsets]), 0)
        x0, noise = torch.zeros_like(x), torch.zeros_like(x)
        for mean, offset, share in zip(self.means, offsets, shares, strict=True):
            x0 += share * (mean + alpha * self.std**2 / variance * offset)
            noise += share * (sigma / variance * offset)
        return Denoised(x0, noise)

    def exact(self, noise: Tensor) -> Tensor:
        """Where the probability-flow ODE takes noise of deviation 1 from the first time on; of one Gaussian."""
        (mean,) = self.means
        t = self.process.grid(2)[0]
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        x = noise if self.process.kind == "discrete" else sigma * noise
        return mean + self.std * (x - alpha * mean) / math.hypot(alpha * self.std, sigma)


def never() -> Tensor:
    raise AssertionError("no noise was due")


def run(
    sampler: str, denoiser: Any, x: Tensor, steps: int, draw: Callable[[], Tensor] = never, **options: Any
) -> Tensor:
    """Samples by a built-in; without `draw` no noise may be asked for."""
    found = SAMPLERS.find(sampler)
    return found.sample(denoiser, x, steps, draw, found.options(**options))
