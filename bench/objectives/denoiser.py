"""What samplers ask of a network, whatever it predicts: x0 and noise at a time; on discrete steps, a variance too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from bench.objectives.conversions import Level, Prediction, x0_and_noise
from bench.objectives.diffusion import GaussianDiffusion
from bench.objectives.discrete import Variance
from bench.objectives.process import DiscreteProcess, NoiseLevels, Path

# (x (N, C, *spatial), what the network is told of the time (N,), the process's time) -> its output (N, C_out,
# *spatial). Condition and guidance are bound; the process's time is a float, for a guidance interval.
Network = Callable[[Tensor, Tensor, float], Tensor]


class Denoised(NamedTuple):
    """x0 and noise (N, C, *spatial) that x is made of; on discrete steps the step's log variance (broadcasting)."""

    x0: Tensor
    noise: Tensor
    log_variance: Tensor | None = None


@dataclass(frozen=True)
class DiscreteDenoiser:
    """A network on a process of discrete steps.

    Attributes:
        variance: of a network that does not predict it.
        clip: clip the predicted x0 to [-1, 1].
    """

    network: Network
    process: DiscreteProcess
    diffusion: GaussianDiffusion
    prediction: Prediction
    variance: Variance
    clip: bool

    def respace(self, num_steps: int) -> DiscreteDenoiser:
        """The same on `num_steps` of the steps (`GaussianDiffusion.respace`)."""
        return replace(self, diffusion=self.diffusion.respace(num_steps))

    def __call__(self, x: Tensor, t: float) -> Denoised:
        """One network call, at a step of `diffusion`. After clipping x0, the noise is what leads from x to it."""
        diffusion, step = self.diffusion, round(t)
        output = self.network(x, diffusion.timesteps[step].expand(len(x)), diffusion.times[step])
        predicted, learned = output[:, : x.shape[1]], output[:, x.shape[1] :]
        x0, noise = x0_and_noise(self.prediction, predicted, x, self.process.level(diffusion.times[step]))
        if self.clip:
            x0 = x0.clamp(-1, 1)
            # (x - alpha x0) / sigma, in the order of operations with which the first results were made.
            noise = (diffusion.x0_from_xt[step] * x - x0) / diffusion.x0_from_noise[step]
        return Denoised(x0, noise, self._log_variance(learned, step))

    def _log_variance(self, learned: Tensor, step: int) -> Tensor:
        large, small = self.diffusion.log_betas[step], self.diffusion.posterior_log_variance[step]
        if not learned.shape[1]:
            return small if self.variance == "fixed-small" else large
        fraction = (learned + 1) / 2  # IDDPM Eq. 15
        return fraction * large + (1 - fraction) * small


@dataclass(frozen=True)
class FlowDenoiser:
    """A network on a path of continuous times.

    Attributes:
        told: what the network is told of a time of the process.
        sign: of its output: -1 for a velocity that points from noise to data.
        clip: clip the predicted x0 to [-1, 1].
    """

    network: Network
    process: Path
    prediction: Prediction
    told: Callable[[float], float]
    sign: int
    clip: bool

    def __call__(self, x: Tensor, t: float) -> Denoised:
        """One network call, at a time within `process.bounds`: beyond, its prediction does not tell x0 and noise."""
        level = self.process.level(t)
        output = self.network(x, x.new_full((len(x),), self.told(t)), t)
        x0, noise = x0_and_noise(self.prediction, self.sign * output[:, : x.shape[1]], x, level)
        return _clipped(x0, noise, x, level) if self.clip else Denoised(x0, noise)


@dataclass(frozen=True)
class EDMDenoiser:
    """A preconditioned network on noise levels (arXiv 2206.00364 Eq. 7).

    Attributes:
        precondition: sigma -> c_skip, c_out, c_in and what the network is told.
        clip: clip the predicted x0 to [-1, 1].
    """

    network: Network
    process: NoiseLevels
    precondition: Callable[[float], tuple[float, float, float, float]]
    clip: bool

    def __call__(self, x: Tensor, t: float) -> Denoised:
        """One network call at sigma = t > 0."""
        c_skip, c_out, c_in, told = self.precondition(t)
        output = self.network(c_in * x, x.new_full((len(x),), told), t)
        level = self.process.level(t)
        x0, noise = x0_and_noise("x0", c_skip * x + c_out * output[:, : x.shape[1]], x, level)
        return _clipped(x0, noise, x, level) if self.clip else Denoised(x0, noise)


def _clipped(x0: Tensor, noise: Tensor, x: Tensor, level: Level) -> Denoised:
    """x0 in [-1, 1] and the noise that leads from x to it; of data, which have none, the noise stays."""
    x0 = x0.clamp(-1, 1)
    return Denoised(x0, (x - level.alpha * x0) / level.sigma if level.sigma else noise)
