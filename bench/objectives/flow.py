"""Flow matching on the paths of SiT (Ma et al. 2024, arXiv 2401.08740): the network predicts velocity, x0 or noise.

Times run from 0 = data to 1 = noise, as in SD3 and REPA. SiT's released code and JiT count from 0 = noise to 1 = data:
for their networks say `network_time: data-at-1`, and write the mean of their logit-normal times with the other sign
(JiT's mean -0.8 is `time_mean: 0.8` here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bench.objectives import Objective, check_first_channels, check_used
from bench.objectives.conversions import Prediction, error_factor, noised, rows, target
from bench.objectives.process import LinearPath, Path, TrigonometricPath

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from models.conditions import Condition

PATHS = {"linear": LinearPath, "gvp": TrigonometricPath}
# SiT's: how near to data (noise) a network is called that does not say the velocity there (or x0).
EDGE = 1e-3


@dataclass(frozen=True)
class FlowOptions:
    """Options of the objective.

    Attributes:
        path: linear, or gvp: the trigonometric one.
        prediction: what the network gives.
        loss: the space of the loss (JiT, arXiv 2511.13720, Table 2a); None: the prediction's own.
        times: of training: uniform, or logit-normal (SD3, arXiv 2403.03206, Sec. 3.1).
        time_mean, time_std: of the logit of logit-normal times.
        shift: multiplies sigma / alpha at the times of training, for higher resolutions (SD3 Sec. 5.3.2).
        network_time: what the network is told of time, t or 1 - t; a velocity is the derivative by that.
        time_scale: of what the network is told; SiT: 1.
        least_denominator: bound from below of what another space's loss divides by: sigma, of a noise prediction alpha.
    """

    path: Literal["linear", "gvp"] = "linear"
    prediction: Prediction = "velocity"
    loss: Prediction | None = None
    times: Literal["uniform", "logit-normal"] = "uniform"
    time_mean: Annotated[float, Field(ge=-100, le=100)] = 0.0
    time_std: Annotated[float, Field(gt=0, le=100)] = 1.0
    shift: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    network_time: Literal["noise-at-1", "data-at-1"] = "noise-at-1"
    time_scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    least_denominator: Annotated[float, Field(gt=0, le=1)] = 0.05

    def __post_init__(self) -> None:
        if self.loss == self.prediction:  # spelled out, the same recipe
            object.__setattr__(self, "loss", None)


class Flow(Objective):
    """Of a network with twice the channels of x (SiT's, whose second half is never trained), the first half is used."""

    options = FlowOptions
    columns = ("loss", "mse")

    def __init__(self, options: FlowOptions, device: torch.device) -> None:
        self._options = options
        self._process = self.process(options)
        self._from_data = options.network_time == "noise-at-1"
        self._sign = 1 if self._from_data or options.prediction != "velocity" else -1

    @classmethod
    def check(cls, options: FlowOptions, in_channels: int, out_channels: int) -> None:
        check_first_channels("flow", in_channels, out_channels)
        for key in ("time_mean", "time_std"):
            check_used(options, key, "times", "logit-normal")
        if options.loss is None and options.least_denominator != FlowOptions.least_denominator:
            raise ValueError(
                f"diffusion.least_denominator: {options.least_denominator:g}, but diffusion.loss is in no other space"
            )

    @classmethod
    def process(cls, options: FlowOptions) -> Path:
        path = PATHS[options.path]
        if options.prediction == "velocity":
            return path()
        # Of data x0 tells no noise, and of noise the noise tells no x0.
        return path(called_at_data=False, bounds=(EDGE, 1.0 if options.prediction == "x0" else 1 - EDGE))

    def draw(self, shape: tuple[int, ...], random: torch.Generator) -> dict[str, Tensor]:
        """Times t (B,) in 0 .. 1 and standard normal noise (B, C, *spatial)."""
        import torch

        options, device = self._options, random.device
        if options.times == "uniform":
            t = torch.rand(shape[0], generator=random, device=device)
        else:
            normal = torch.randn(shape[0], generator=random, device=device)
            t = (options.time_mean + options.time_std * normal).sigmoid()
        if options.shift != 1:
            t = self._process.shifted(t, options.shift, torch)
        return {"t": t, "noise": torch.randn(shape, generator=random, device=device)}

    def losses(
        self, network: nn.Module, x0: Tensor, condition: Condition, drawn: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """`mse` of the prediction, `loss` the same or what it is in another space."""
        import torch

        noise, prediction = drawn["noise"], self._options.prediction
        level = self._process.level(rows(drawn["t"], x0), torch)
        output = network(noised(x0, noise, level), self._told(drawn["t"]), condition).float()
        error = self._sign * output[:, : x0.shape[1]] - target(prediction, x0, noise, level)
        mse = error.square().flatten(1).mean(1)
        if self._options.loss is None:
            return {"loss": mse, "mse": mse}
        factor = error_factor(prediction, self._options.loss, level, self._options.least_denominator)
        return {"loss": (factor * error).square().flatten(1).mean(1), "mse": mse}

    def denoiser(self, network: Any, clip: bool) -> Any:
        from bench.objectives.denoiser import FlowDenoiser

        return FlowDenoiser(network, self._process, self._options.prediction, self._told, self._sign, clip)

    def _told(self, t: Any) -> Any:
        """What the network is told of times t, a float or a tensor."""
        return self._options.time_scale * (t if self._from_data else 1 - t)
