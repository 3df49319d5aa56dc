"""Euler's method, to let recipes of continuous processes be read and run by tests that are about something else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from bench.samplers import NoOptions


class _Euler:
    options = NoOptions

    def __init__(self, *serves: str) -> None:
        self.serves = serves

    def call_times(self, process: Any, num_steps: int, options: NoOptions) -> list[float]:
        return process.grid(num_steps)[:-1]

    def sample(self, denoiser: Any, x: Any, num_steps: int, draw: Any, options: NoOptions) -> Any:
        """Every step to the x of the same x0 and noise at the next time."""
        process = denoiser.process
        grid = process.grid(num_steps)
        x = process.sigma(grid[0]) * x
        for now, later in pairwise(grid):
            x0, noise, _ = denoiser(x, now)
            x = process.alpha(later) * x0 + process.sigma(later) * noise
        return x


EULER = _Euler("continuous")
OF_BOTH = _Euler("discrete", "continuous")
