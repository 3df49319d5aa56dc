"""What samplers ask of a network, whatever it predicts: x0 and noise at a time; on discrete steps, a variance too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from bench.objectives.diffusion import GaussianDiffusion
from bench.objectives.discrete import Prediction, Variance
from bench.objectives.process import DiscreteProcess

# (x (N, C, *spatial), what the network is told of the time (N,), the process's time) -> its output (N, C_out,
# *spatial). Labels and guidance are bound; the process's time is a float, for a guidance interval.
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
        if self.prediction == "velocity":
            x0 = diffusion.sqrt_alphas_bar[step] * x - diffusion.sqrt_one_minus_alphas_bar[step] * predicted
            noise = diffusion.sqrt_one_minus_alphas_bar[step] * x + diffusion.sqrt_alphas_bar[step] * predicted
        else:
            x0, noise = diffusion.x0_from_xt[step] * x - diffusion.x0_from_noise[step] * predicted, predicted
        if self.clip:
            x0 = x0.clamp(-1, 1)
            noise = (diffusion.x0_from_xt[step] * x - x0) / diffusion.x0_from_noise[step]
        return Denoised(x0, noise, self._log_variance(learned, step))

    def _log_variance(self, learned: Tensor, step: int) -> Tensor:
        large, small = self.diffusion.log_betas[step], self.diffusion.posterior_log_variance[step]
        if not learned.shape[1]:
            return small if self.variance == "fixed-small" else large
        fraction = (learned + 1) / 2  # IDDPM Eq. 15
        return fraction * large + (1 - fraction) * small
