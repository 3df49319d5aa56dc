"""DDIM (Song et al. 2020, arXiv 2010.02502) on respaced steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from bench.objectives.process import Process


@dataclass(frozen=True)
class DDIMOptions:
    """eta: 0 is deterministic; 1 has the variance of DDPM's posterior (their Eq. 16)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta: {self.eta}; accepted: 0 to 1")


class _DDIM:
    """One network call a step; noise is drawn only with eta > 0, in every step but the last."""

    options = DDIMOptions
    serves = ("discrete",)

    def call_times(self, process: Process, num_steps: int, options: DDIMOptions) -> list[float]:
        return process.grid(num_steps)[:-1]

    def sample(
        self, denoiser: Any, x: Tensor, num_steps: int, draw: Callable[[], Tensor], options: DDIMOptions
    ) -> Tensor:
        denoiser = denoiser.respace(num_steps)
        for step in reversed(range(num_steps)):
            x0, noise, _ = denoiser(x, step)
            previous = denoiser.diffusion.alphas_bar_previous[step]
            if not options.eta or not step:
                x = previous.sqrt() * x0 + (1 - previous).sqrt() * noise
                continue
            current = denoiser.diffusion.alphas_bar[step]
            variance = options.eta**2 * (1 - previous) / (1 - current) * (1 - current / previous)  # Eq. 16
            x = previous.sqrt() * x0 + (1 - previous - variance).sqrt() * noise + variance.sqrt() * draw()
        return x


DDIM = _DDIM()
