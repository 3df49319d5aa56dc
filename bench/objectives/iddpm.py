"""IDDPM, the paper's objective (Nichol & Dhariwal 2021, arXiv 2102.09672): 1000 discrete steps, linear betas.

The network predicts the noise, x0 or the velocity (Salimans & Ho 2022, arXiv 2202.00512), and, if it has the channels,
the variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from bench.objectives import Objective, check_used
from bench.objectives.conversions import Level, Prediction, error_factor, target, x0_and_noise
from bench.objectives.discrete import Schedule, Variance, Weighting
from bench.objectives.process import DiscreteProcess, alphas_bar, cosine_betas, linear_betas

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from models.conditions import Condition

BETAS = {"linear": linear_betas, "cosine": cosine_betas}
# Fewer linear steps reach beta = 1.
LEAST_TIMESTEPS = {"linear": 21, "cosine": 2}
MOST_TIMESTEPS = 100_000
Gamma = Annotated[float, Field(gt=0, le=1e6)]


@dataclass(frozen=True)
class IDDPMOptions:
    """Options of the objective.

    Attributes:
        timesteps: T of the forward process.
        prediction: what the network is trained to give.
        variance: of a sampling step: learned between the two fixed ones, beta (large) and the posterior's (small).
            None: learned if the network predicts it (`model.learn_sigma`), else beta.
        schedule: of the betas: linear, or cosine (IDDPM Eq. 17).
        weighting: of the prediction's loss, by the signal-to-noise ratio of its step.
        min_snr_gamma: the loss of x0 is weighted with min(SNR, gamma) (Hang et al. 2023, arXiv 2303.09556).
        p2_gamma: the loss of the noise is weighted with 1 / (1 + SNR)^gamma (Choi et al. 2022, arXiv 2204.00227).
    """

    timesteps: int = 1000
    prediction: Prediction = "noise"
    variance: Variance | None = None
    schedule: Schedule = "linear"
    weighting: Weighting = "none"
    min_snr_gamma: Gamma = 5.0
    p2_gamma: Gamma = 1.0


class IDDPM(Objective):
    """L_simple, and L_vlb for the variance where that is learned."""

    options = IDDPMOptions
    columns = ("loss", "mse", "vb")

    def __init__(self, options: IDDPMOptions, device: torch.device) -> None:
        from bench.objectives.diffusion import GaussianDiffusion

        self._options = options
        self.diffusion = GaussianDiffusion(BETAS[options.schedule](options.timesteps), device=device)
        self._weights = None if options.weighting == "none" else self.loss_weights().to(device)

    @classmethod
    def check(cls, options: IDDPMOptions, in_channels: int, out_channels: int) -> None:
        least = LEAST_TIMESTEPS[options.schedule]
        if not least <= options.timesteps <= MOST_TIMESTEPS:
            why = f"fewer {options.schedule} steps reach beta = 1; " if options.timesteps < least else ""
            raise ValueError(
                f"diffusion.timesteps: {options.timesteps}: {why}accepted: at least {least}, up to {MOST_TIMESTEPS}"
            )
        if out_channels not in (in_channels, 2 * in_channels):
            raise ValueError(
                f"model: predicts {out_channels} channels; iddpm needs {in_channels}, or twice as many for the variance"
            )
        learned = out_channels == 2 * in_channels
        if options.variance is not None and (options.variance == "learned") != learned:
            has = "predicts the variance" if learned else "does not predict the variance"
            raise ValueError(f"diffusion.variance: {options.variance}, but the model {has} (model.learn_sigma)")
        check_used(options, "min_snr_gamma", "weighting", "min-snr")
        check_used(options, "p2_gamma", "weighting", "p2")

    @classmethod
    def process(cls, options: IDDPMOptions) -> DiscreteProcess:
        return DiscreteProcess(alphas_bar(BETAS[options.schedule](options.timesteps)))

    def loss_weights(self) -> Tensor:
        """(T,) float32, of the mean square of the network's own prediction at every step."""
        import torch

        options = self._options
        alpha_bar = torch.tensor(self.process(options).alphas_bar, dtype=torch.float64)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        snr = (alpha / sigma).square()
        p2 = options.weighting == "p2"
        of_x0 = snr / (1 + snr) ** options.p2_gamma if p2 else snr.clamp(max=options.min_snr_gamma)
        return (of_x0 * error_factor(options.prediction, "x0", Level(alpha, sigma, -sigma, alpha)).square()).float()

    def draw(self, shape: tuple[int, ...], random: torch.Generator) -> dict[str, Tensor]:
        """Steps t (B,) int64, uniform, and standard normal noise (B, C, *spatial)."""
        import torch

        device = random.device
        t = torch.randint(self._options.timesteps, (shape[0],), generator=random, device=device)
        return {"t": t, "noise": torch.randn(shape, generator=random, device=device)}

    def losses(
        self, network: nn.Module, x0: Tensor, condition: Condition, drawn: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """`mse` of the prediction, `vb` in bits per dimension (0 with a fixed variance), `loss` their sum.

        The sum has the weighting on `mse`. L_simple + 0.001 L_vlb (IDDPM Eq. 16): L_vlb sums T = 1000 terms of which
        one is drawn, so the term enters with weight 0.001 x 1000 = 1. Its mean is detached: it trains the variance
        only (IDDPM Sec. 3.1).
        """
        t, noise, diffusion, prediction = drawn["t"], drawn["noise"], self.diffusion, self._options.prediction
        xt = diffusion.q_sample(x0, t, noise)
        output = network(xt, diffusion.timesteps[t], condition).float()
        predicted, learned = output[:, : x0.shape[1]], output[:, x0.shape[1] :]
        level = diffusion.level(x0, t)
        mse = (predicted - target(prediction, x0, noise, level)).square().flatten(1).mean(1)
        loss = mse if self._weights is None else self._weights[t] * mse
        if not learned.shape[1]:
            return {"loss": loss, "mse": mse, "vb": mse.new_zeros(mse.shape)}
        _, predicted_noise = x0_and_noise(prediction, predicted.detach(), xt, level)
        vb = diffusion.vb_terms(x0, xt, t, predicted_noise, learned)
        return {"loss": loss + vb, "mse": mse, "vb": vb}

    def denoiser(self, network: Any, clip: bool) -> Any:
        from bench.objectives.denoiser import DiscreteDenoiser

        variance = self._options.variance or "fixed-large"
        process = self.process(self._options)
        return DiscreteDenoiser(network, process, self.diffusion, self._options.prediction, variance, clip)
