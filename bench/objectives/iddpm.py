"""IDDPM, the paper's objective (Nichol & Dhariwal 2021, arXiv 2102.09672): 1000 discrete steps, linear betas.

The network predicts the noise, or the velocity (Salimans & Ho 2022, arXiv 2202.00512), and, if it has the channels,
the variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.objectives import Objective
from bench.objectives.discrete import MIN_TIMESTEPS, Prediction, Variance
from bench.objectives.process import DiscreteProcess, alphas_bar, linear_betas

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class IDDPMOptions:
    """Options of the objective.

    Attributes:
        timesteps: T of the forward process.
        prediction: what the network is trained to give.
        variance: of a sampling step: learned between the two fixed ones, beta (large) and the posterior's (small).
            None: learned if the network predicts it (`model.learn_sigma`), else beta.
    """

    timesteps: int = 1000
    prediction: Prediction = "noise"
    variance: Variance | None = None


class IDDPM(Objective):
    """L_simple, and L_vlb for the variance where that is learned."""

    options = IDDPMOptions
    columns = ("loss", "mse", "vb")

    def __init__(self, options: IDDPMOptions, device: torch.device) -> None:
        from bench.objectives.diffusion import GaussianDiffusion

        self._options = options
        self.diffusion = GaussianDiffusion.linear(options.timesteps, device)

    @classmethod
    def check(cls, options: IDDPMOptions, in_channels: int, out_channels: int) -> None:
        if options.timesteps < MIN_TIMESTEPS:
            raise ValueError(
                f"diffusion.timesteps: {options.timesteps}: fewer linear steps reach beta = 1; accepted: at least "
                f"{MIN_TIMESTEPS}"
            )
        if out_channels not in (in_channels, 2 * in_channels):
            raise ValueError(
                f"model: predicts {out_channels} channels; iddpm needs {in_channels}, or twice as many for the variance"
            )
        learned = out_channels == 2 * in_channels
        if options.variance is not None and (options.variance == "learned") != learned:
            has = "predicts the variance" if learned else "does not predict the variance"
            raise ValueError(f"diffusion.variance: {options.variance}, but the model {has} (model.learn_sigma)")

    @classmethod
    def process(cls, options: IDDPMOptions) -> DiscreteProcess:
        return DiscreteProcess(alphas_bar(linear_betas(options.timesteps)))

    def draw(self, shape: tuple[int, ...], random: torch.Generator) -> dict[str, Tensor]:
        """Steps t (B,) int64, uniform, and standard normal noise (B, C, H, W)."""
        import torch

        device = random.device
        t = torch.randint(self._options.timesteps, (shape[0],), generator=random, device=device)
        return {"t": t, "noise": torch.randn(shape, generator=random, device=device)}

    def losses(self, network: nn.Module, x0: Tensor, labels: Tensor, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """`mse` of the prediction, `vb` in bits per dimension (0 with a fixed variance), `loss` their sum.

        L_simple + 0.001 L_vlb (IDDPM Eq. 16): L_vlb sums T = 1000 terms of which one is drawn, so the term enters
        with weight 0.001 x 1000 = 1. Its mean is detached: it trains the variance only (IDDPM Sec. 3.1).
        """
        t, noise, diffusion = drawn["t"], drawn["noise"], self.diffusion
        xt = diffusion.q_sample(x0, t, noise)
        output = network(xt, diffusion.timesteps[t], labels).float()
        predicted, learned = output[:, : x0.shape[1]], output[:, x0.shape[1] :]
        is_velocity = self._options.prediction == "velocity"
        target = diffusion.velocity(x0, t, noise) if is_velocity else noise
        mse = (predicted - target).square().flatten(1).mean(1)
        if not learned.shape[1]:
            return {"loss": mse, "mse": mse, "vb": mse.new_zeros(mse.shape)}
        fixed = predicted.detach()
        predicted_noise = diffusion.noise_from_velocity(xt, t, fixed) if is_velocity else fixed
        vb = diffusion.vb_terms(x0, xt, t, predicted_noise, learned)
        return {"loss": mse + vb, "mse": mse, "vb": vb}

    def denoiser(self, network: Any, clip: bool) -> Any:
        from bench.objectives.denoiser import DiscreteDenoiser

        variance = self._options.variance or "fixed-large"
        process = self.process(self._options)
        return DiscreteDenoiser(network, process, self.diffusion, self._options.prediction, variance, clip)
