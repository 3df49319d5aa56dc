"""EDM (Karras et al. 2022, arXiv 2206.00364): x0 by a preconditioned network on noise levels, x = x0 + sigma noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from bench.objectives import Objective, check_first_channels
from bench.objectives.conversions import noised, rows
from bench.objectives.process import NoiseLevels

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from models.conditions import Condition


@dataclass(frozen=True)
class EDMOptions:
    """Options of the objective (their Table 1).

    Attributes:
        sigma_data: standard deviation of the data.
        p_mean, p_std: of ln sigma in training.
        sigma_min, sigma_max, rho: of a sampler's steps.
        time_scale: of what the network is told, ln(sigma) / 4.
    """

    sigma_data: Annotated[float, Field(gt=0, le=1e3)] = 0.5
    p_mean: Annotated[float, Field(ge=-10, le=10)] = -1.2
    p_std: Annotated[float, Field(gt=0, le=10)] = 1.2
    sigma_min: Annotated[float, Field(ge=1e-5)] = 0.002
    sigma_max: Annotated[float, Field(le=1e5)] = 80.0
    rho: Annotated[float, Field(ge=1, le=100)] = 7.0
    time_scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class EDM(Objective):
    """The weighted loss of x0, which is the mean square of what the network itself has to give (their Eq. 8).

    Of a network with twice the channels of x, the first half is used.
    """

    options = EDMOptions

    def __init__(self, options: EDMOptions, device: torch.device) -> None:
        self._options = options

    @classmethod
    def check(cls, options: EDMOptions, in_channels: int, out_channels: int) -> None:
        check_first_channels("edm", in_channels, out_channels)
        if options.sigma_min >= options.sigma_max:
            raise ValueError(
                f"diffusion.sigma_min: {options.sigma_min:g} is not below diffusion.sigma_max, {options.sigma_max:g}"
            )

    @classmethod
    def process(cls, options: EDMOptions) -> NoiseLevels:
        return NoiseLevels(options.sigma_min, options.sigma_max, options.rho)

    def draw(self, shape: tuple[int, ...], random: torch.Generator) -> dict[str, Tensor]:
        """Log-normal sigma (B,) and standard normal noise (B, C, *spatial)."""
        import torch

        options, device = self._options, random.device
        normal = torch.randn(shape[0], generator=random, device=device)
        sigma = (options.p_mean + options.p_std * normal).exp()
        return {"sigma": sigma, "noise": torch.randn(shape, generator=random, device=device)}

    def losses(
        self, network: nn.Module, x0: Tensor, condition: Condition, drawn: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """As their weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 is 1 / c_out^2, the output's mean square."""
        import torch

        noise, spread = drawn["noise"], self._options.sigma_data
        _, _, c_in, told = self._precondition(drawn["sigma"], torch)
        sigma, c_in = rows(drawn["sigma"], x0), rows(c_in, x0)
        x = noised(x0, noise, self.process(self._options).level(sigma))
        output = network(c_in * x, told, condition).float()
        # (x0 - c_skip x) / c_out, without the difference of near numbers at small sigma: minus the velocity of
        # x0 / sigma_data and noise at the angle atan(sigma / sigma_data).
        aim = c_in * (sigma / spread * x0 - spread * noise)
        return {"loss": (output[:, : x0.shape[1]] - aim).square().flatten(1).mean(1)}

    def denoiser(self, network: Any, clip: bool) -> Any:
        from bench.objectives.denoiser import EDMDenoiser

        return EDMDenoiser(network, self.process(self._options), self._precondition, clip)

    def _precondition(self, sigma: Any, m: Any = math) -> tuple[Any, Any, Any, Any]:
        """c_skip, c_out, c_in and what the network is told (their Table 1); `m` is torch for a tensor."""
        spread = self._options.sigma_data
        total = sigma**2 + spread**2
        told = self._options.time_scale * m.log(sigma) / 4
        return spread**2 / total, sigma * spread / m.sqrt(total), 1 / m.sqrt(total), told
