"""Data whose optimal prediction is known in closed form, noised by any process: mixtures of Gaussians, pixel by pixel."""

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

DISCRETE = DiscreteProcess(alphas_bar(linear_betas(1000)))
PROCESSES: dict[str, Process] = {
    "discrete": DISCRETE,
    "linear": LinearPath(),
    "linear-not-at-data": LinearPath(called_at_data=False),
    "trigonometric": TrigonometricPath(),
    "noise-levels": NoiseLevels(0.002, 80.0, 7.0),
}
CONTINUOUS = [name for name, process in PROCESSES.items() if process.kind == "continuous"]


def served(sampler: str) -> list[str]:
    """Names of the processes that a built-in serves."""
    return [name for name, process in PROCESSES.items() if process.kind in SAMPLERS.find(sampler).serves]


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
        offsets = torch.stack([x - alpha * mean for mean in self.means])
        share = torch.softmax(-offsets.square() / (2 * variance), 0)
        x0 = (
            share * torch.stack([mean + alpha * self.std**2 / variance * o for mean, o in zip(self.means, offsets)])
        ).sum(0)
        return Denoised(x0, (share * offsets).sum(0) * (sigma / variance))

    def exact(self, noise: Tensor) -> Tensor:
        """Where the probability-flow ODE takes noise of deviation 1 from the first time on; of one Gaussian."""
        (mean,) = self.means
        t = self.process.grid(2)[0]
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        x = noise if self.process.kind == "discrete" else sigma * noise
        return mean + self.std * (x - alpha * mean) / math.sqrt(alpha**2 * self.std**2 + sigma**2)


def run(
    sampler: str, denoiser: Any, x: Tensor, steps: int, draw: Callable[[], Tensor] | None = None, **options: Any
) -> Tensor:
    """Samples by a built-in; without `draw` no noise may be asked for."""
    found = SAMPLERS.find(sampler)

    def never() -> Tensor:
        raise AssertionError("no noise was due")

    return found.sample(denoiser, x, steps, draw or never, found.options(**options))
