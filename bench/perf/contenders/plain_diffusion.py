"""Gaussian diffusion with a learned variance, step by step in eager PyTorch, for comparison.

Written from DDPM (arXiv 2006.11239), IDDPM (arXiv 2102.09672) and DDIM (arXiv 2010.02502). Shapes: x (N, C, H, W),
steps t (N,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.objectives.process import respaced


class Gaussian(NamedTuple):
    """p(x_{t-1} | x_t), and the x0 that its mean is made of."""

    mean: Tensor
    log_variance: Tensor
    x0: Tensor


class PlainDiffusion:
    """A process of steps 0, 1, ..., whose cumulative products of 1 - beta are `alphas_bar`, on tables of float32.

    `told`: the steps of which a network is told, if they are others (IDDPM Sec. 4).
    """

    def __init__(self, alphas_bar: Sequence[float], device: torch.device, told: Sequence[int] | None = None) -> None:
        bar = torch.tensor(alphas_bar, dtype=torch.float64)
        before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
        beta = 1 - bar / before
        variance = beta * (1 - before) / (1 - bar)
        tables = {
            "signal": bar.sqrt(),
            "noise": (1 - bar).sqrt(),
            "mean_of_x0": beta * before.sqrt() / (1 - bar),
            "mean_of_xt": (1 - before) * (1 - beta).sqrt() / (1 - bar),
            "log_beta": beta.log(),
            "log_variance": torch.cat([variance[1:2], variance[1:]]).log(),  # that of step 0 would be -inf
            "signal_before": before.sqrt(),
            "noise_before": (1 - before).sqrt(),
        }
        self.alphas_bar = alphas_bar
        self.device = device
        self.num_steps = len(bar)
        self._tables = {name: table.float().to(device) for name, table in tables.items()}
        self._told = torch.tensor(range(len(bar)) if told is None else told, device=device)

    def respaced(self, num_steps: int) -> PlainDiffusion:
        """The process that visits `num_steps` of these steps."""
        kept = respaced(self.num_steps, num_steps)
        return PlainDiffusion([self.alphas_bar[step] for step in kept], self.device, kept)

    def losses(self, network: Callable[..., Tensor], x0: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """(N,): the mean square error of the noise, and the bound's term in bits, which trains the variance alone."""
        xt = self._at("signal", t) * x0 + self._at("noise", t) * noise
        output = network(xt, self._told[t], y)
        predicted, v = output.chunk(2, dim=1)
        mean_square = ((noise - predicted) ** 2).mean(dim=(1, 2, 3))
        return mean_square + self._bound(x0, xt, t, torch.cat([predicted.detach(), v], dim=1))

    def p_sample(self, network: Callable[..., Tensor], x: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """x one step before t (DDPM Alg. 2)."""
        p = self._p(network(x, self._told[t], y), x, t)
        not_last = (t != 0).float().view(-1, 1, 1, 1)
        return p.mean + not_last * torch.exp(0.5 * p.log_variance) * noise

    def ddim_sample(self, network: Callable[..., Tensor], x: Tensor, t: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """The same by DDIM with eta = 0 (their Eq. 12), which takes no noise."""
        p = self._p(network(x, self._told[t], y), x, t)
        predicted = (x - self._at("signal", t) * p.x0) / self._at("noise", t)
        return self._at("signal_before", t) * p.x0 + self._at("noise_before", t) * predicted

    def _at(self, table: str, t: Tensor) -> Tensor:
        return self._tables[table][t].view(-1, 1, 1, 1)

    def _posterior_mean(self, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return self._at("mean_of_x0", t) * x0 + self._at("mean_of_xt", t) * xt

    def _p(self, output: Tensor, xt: Tensor, t: Tensor) -> Gaussian:
        """Of a network's output, noise and v: where between the two fixed variances its own is (IDDPM Eq. 15)."""
        predicted, v = output.chunk(2, dim=1)
        share = (v + 1) / 2
        log_variance = share * self._at("log_beta", t) + (1 - share) * self._at("log_variance", t)
        x0 = (xt - self._at("noise", t) * predicted) / self._at("signal", t)
        return Gaussian(self._posterior_mean(x0, xt, t), log_variance, x0)

    def _bound(self, x0: Tensor, xt: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """One term of the variational bound, (N,) bits a dimension."""
        p = self._p(output, xt, t)
        true_mean, true_log = self._posterior_mean(x0, xt, t), self._at("log_variance", t)
        squared = (true_mean - p.mean) ** 2 * torch.exp(-p.log_variance)
        divergence = 0.5 * (p.log_variance - true_log - 1 + torch.exp(true_log - p.log_variance) + squared)
        nats = torch.where(t == 0, -_log_likelihood(x0, p).mean(dim=(1, 2, 3)), divergence.mean(dim=(1, 2, 3)))
        return nats / math.log(2)


def _log_likelihood(x0: Tensor, p: Gaussian) -> Tensor:
    """Of x0's bin among 256 between -1 and 1, the outermost open (DDPM Eq. 13), elementwise."""
    inverse = torch.exp(-0.5 * p.log_variance)
    upper, lower = (_cumulative(inverse * (x0 - p.mean + half_bin)) for half_bin in (1 / 255, -1 / 255))
    mass = torch.where(x0 > 0.999, 1 - lower, torch.where(x0 < -0.999, upper, upper - lower))
    return mass.clamp(min=1e-12).log()


def _cumulative(z: Tensor) -> Tensor:
    """Of the standard normal distribution."""
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))


@torch.no_grad()
def sample(
    diffusion: PlainDiffusion,
    network: Any,
    x: Tensor,
    labels: Tensor,
    null_label: int,
    scale: float,
    sampler: str,
    draw: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """Samples (N, C, H, W) from noise x: both halves of guidance are one batch of 2N throughout.

    draw: noise like its argument, of 2N.
    """
    step = diffusion.p_sample if sampler == "ddpm" else diffusion.ddim_sample
    both = torch.cat([x, x])
    y = torch.cat([labels, torch.full_like(labels, null_label)])

    def guided(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return network.guided(x, t, y, scale).float()

    for index in reversed(range(diffusion.num_steps)):
        t = torch.full((len(both),), index, device=x.device)
        both = step(guided, both, t, y, draw(both) if sampler == "ddpm" else both)
    return both.chunk(2)[0]
