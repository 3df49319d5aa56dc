"""Ancestral sampling (DDPM Alg. 2, arXiv 2006.11239) on respaced steps (IDDPM Sec. 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.samplers import NoOptions

if TYPE_CHECKING:
    from torch import Tensor

    from bench.objectives.process import Process


class _DDPM:
    """One network call a step; noise is drawn in every step but the last."""

    options = NoOptions
    serves = ("discrete",)

    def call_times(self, process: Process, num_steps: int, options: NoOptions) -> list[float]:
        return process.grid(num_steps)[:-1]

    def sample(
        self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: NoOptions
    ) -> Tensor:
        denoiser = denoiser.respace(num_steps)
        diffusion = denoiser.diffusion
        for step in reversed(range(num_steps)):
            x0, _, log_variance = denoiser(x, step)
            x = diffusion.posterior_mean_x0[step] * x0 + diffusion.posterior_mean_xt[step] * x
            if step:
                x = x + (0.5 * log_variance).exp() * draw()
        return x


DDPM = _DDPM()
