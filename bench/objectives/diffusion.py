"""Diffusion on discrete steps as IDDPM has it (Nichol & Dhariwal 2021, arXiv 2102.09672), in tensors.

Notation of DDPM (Ho et al. 2020, arXiv 2006.11239): beta_t, alpha_bar_t = prod (1 - beta_s), x_t from x_0 by Eq. 4,
posterior q(x_{t-1} | x_t, x_0) by Eq. 6-7. Steps count from 0. All schedule tensors are (T,) float32 on the device,
computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.objectives.conversions import Level, rows
from bench.objectives.process import respaced

LOG_2 = math.log(2.0)


def respaced_steps(timesteps: int, num_steps: int) -> Tensor:
    """(num_steps,) int64: evenly spread over 0 .. timesteps - 1, both ends included (IDDPM Sec. 4)."""
    if not 2 <= num_steps <= timesteps:
        raise ValueError(f"sampling steps: {num_steps} is not in 2 .. {timesteps}")
    return torch.tensor(respaced(timesteps, num_steps))


class GaussianDiffusion:
    """q(x_t | x_0), its posterior, and p(x_{t-1} | x_t) from a noise- and variance-predicting network.

    `timesteps` (T,) int64 maps this process's steps to those the network was trained with: 0 .. T - 1, or a subset
    after `respace`.
    """

    def __init__(
        self, betas: Sequence[float] | Tensor, timesteps: Tensor | None = None, device: torch.device | str = "cpu"
    ) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if timesteps is None:
            timesteps = torch.arange(len(betas))
        alphas_bar = torch.cumprod(1 - betas, 0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_bar[:-1]])
        variance = betas * (1 - previous) / (1 - alphas_bar)

        def table(values: Tensor) -> Tensor:
            return values.float().to(device)

        self.num_steps = len(betas)
        self.betas = betas
        self.timesteps = timesteps.to(device)
        self.times = [float(t) for t in timesteps.tolist()]  # for what must not wait for the device
        self.alphas_bar = table(alphas_bar)
        self.alphas_bar_previous = table(previous)
        self.sqrt_alphas_bar = table(alphas_bar.sqrt())
        self.sqrt_one_minus_alphas_bar = table((1 - alphas_bar).sqrt())
        self.x0_from_xt = table(alphas_bar.rsqrt())
        self.x0_from_noise = table((1 / alphas_bar - 1).sqrt())
        self.posterior_mean_x0 = table(betas * previous.sqrt() / (1 - alphas_bar))
        self.posterior_mean_xt = table((1 - previous) * (1 - betas).sqrt() / (1 - alphas_bar))
        # The posterior variance is 0 at step 0: its logarithm is replaced by that of step 1 (IDDPM Sec. 3.1).
        self.posterior_log_variance = table(torch.cat([variance[1:2], variance[1:]]).log())
        self.log_betas = table(betas.log())

    def respace(self, num_steps: int) -> GaussianDiffusion:
        """The process that visits `num_steps` of these steps and has the same alpha_bar there (IDDPM Sec. 4).

        Raises:
            ValueError: fewer than 2 steps, or more than there are.
        """
        keep = respaced_steps(self.num_steps, num_steps)
        alphas_bar = torch.cumprod(1 - self.betas, 0)[keep]
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_bar[:-1]])
        device = self.timesteps.device
        return GaussianDiffusion(1 - alphas_bar / previous, self.timesteps.cpu()[keep], device)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t (N, C, *spatial) for steps t (N,) (DDPM Eq. 4)."""
        return _at(self.sqrt_alphas_bar, t, x0) * x0 + _at(self.sqrt_one_minus_alphas_bar, t, x0) * noise

    def predict_x0(self, xt: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_0 from x_t and its noise, the inverse of `q_sample`."""
        return _at(self.x0_from_xt, t, xt) * xt - _at(self.x0_from_noise, t, xt) * noise

    def posterior_mean(self, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0) (DDPM Eq. 7)."""
        return _at(self.posterior_mean_x0, t, xt) * x0 + _at(self.posterior_mean_xt, t, xt) * xt

    def log_variance(self, v: Tensor, t: Tensor) -> Tensor:
        """log of the learned variance: v in [-1, 1] interpolates posterior variance to beta (IDDPM Eq. 15)."""
        fraction = (v + 1) / 2
        return fraction * _at(self.log_betas, t, v) + (1 - fraction) * _at(self.posterior_log_variance, t, v)

    def level(self, x: Tensor, t: Tensor) -> Level:
        """alpha and sigma at steps t (N,), and the derivatives of the velocity, to broadcast against x."""
        alpha, sigma = _at(self.sqrt_alphas_bar, t, x), _at(self.sqrt_one_minus_alphas_bar, t, x)
        return Level(alpha, sigma, -sigma, alpha)

    def vb_terms(self, x0: Tensor, xt: Tensor, t: Tensor, noise: Tensor, v: Tensor) -> Tensor:
        """One term of the variational bound, (N,) bits per dimension: KL for t > 0, decoder NLL at t = 0.

        `noise` and `v` are the network's predictions (N, C, *spatial).
        """
        mean = self.posterior_mean(self.predict_x0(xt, t, noise), xt, t)
        log_variance = self.log_variance(v, t)
        kl = gaussian_kl(
            self.posterior_mean(x0, xt, t), _at(self.posterior_log_variance, t, xt), mean, log_variance
        ).flatten(1)
        nll = -discretized_gaussian_log_likelihood(x0, mean, log_variance).flatten(1)
        return torch.where(t == 0, nll.mean(1), kl.mean(1)) / LOG_2


def _at(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """Values of a (T,) table at steps t (N,), to broadcast against x."""
    return rows(table[t], x)


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) elementwise, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1
        + (log_variance1 - log_variance2).exp()
        + (mean1 - mean2).square() * (-log_variance2).exp()
    )


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the mass of N(mean, variance) in x's bin, elementwise, in nats.

    Bins are those of 8-bit images scaled to [-1, 1]: x +- 1/255, the outermost open (DDPM Eq. 13).
    """
    inverse_std = (-0.5 * log_variance).exp()
    centred, half_bin = x - mean, 1 / 255
    # Both sides by the lower tail, where float32 keeps the difference of two small numbers.
    near, far = half_bin - centred.abs(), -half_bin - centred.abs()
    inside = torch.special.ndtr(near * inverse_std) - torch.special.ndtr(far * inverse_std)
    above = torch.special.ndtr((half_bin - centred) * inverse_std)
    below = torch.special.ndtr((half_bin + centred) * inverse_std)
    mass = torch.where(x > 0.999, above, torch.where(x < -0.999, below, inside))
    return mass.clamp(min=1e-12).log()
