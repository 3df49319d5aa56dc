"""The paper's diffusion process, ours and in plain Python floats, for the tests of `bench.objectives.diffusion`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.integrate import quad
from torch import Tensor

from bench.objectives.diffusion import GaussianDiffusion
from bench.objectives.process import linear_betas

STEPS = 1000


def scalar_schedule() -> tuple[list[float], list[float]]:
    """beta_t and alpha_bar_t of the paper in plain Python floats."""
    betas, alphas_bar, product = [], [], 1.0
    for t in range(STEPS):
        beta = 1e-4 + (0.02 - 1e-4) * t / (STEPS - 1)
        product *= 1 - beta
        betas.append(beta)
        alphas_bar.append(product)
    return betas, alphas_bar


BETAS, ALPHAS_BAR = scalar_schedule()
PROCESS = GaussianDiffusion(linear_betas(STEPS))


def normal(x: float, mean: float, variance: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def integral(f: Callable[[float], float], centre: float, std: float) -> float:
    """Integral of a bell of that centre and width, times something smooth."""
    return quad(f, centre - 12 * std, centre + 12 * std, points=[centre], epsabs=1e-13, epsrel=1e-11, limit=400)[0]


def posterior(t: int, x0: float, xt: float) -> tuple[float, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0) by precision-weighting the two Gaussians that define it."""
    beta, previous = BETAS[t], ALPHAS_BAR[t - 1]
    # q(x_{t-1} | x_0) = N(sqrt(previous) x0, 1 - previous); q(x_t | x_{t-1}) as a function of x_{t-1} is a bell too.
    precision = 1 / (1 - previous) + (1 - beta) / beta
    mean = (math.sqrt(previous) * x0 / (1 - previous) + math.sqrt(1 - beta) * xt / beta) / precision
    return mean, 1 / precision


def at(values: float, t: int) -> tuple[Tensor, Tensor]:
    return torch.full((1, 1, 1, 1), values), torch.tensor([t])
