"""Noise, x0, velocity and score of x = alpha x0 + sigma noise: each from another, and what their errors are worth.

The one place of these formulas. The velocity is dx/dt = alpha' x0 + sigma' noise; on discrete steps, which have no
derivative, alpha' = -sigma and sigma' = alpha (Salimans & Ho 2022, arXiv 2202.00512: by the angle). Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

# What a network can be trained to give.
Prediction = Literal["noise", "x0", "velocity"]


class Level(NamedTuple):
    """alpha, sigma and their derivatives by t: floats, or tensors that broadcast against x."""

    alpha: Any
    sigma: Any
    d_alpha: Any
    d_sigma: Any

    @property
    def turn(self) -> Any:
        """alpha sigma' - sigma alpha': 1 on discrete steps and the linear path, pi / 2 on the trigonometric one."""
        return self.alpha * self.d_sigma - self.sigma * self.d_alpha


def rows(values: Tensor, x: Tensor) -> Tensor:
    """(N,) as (N, 1, ...), which broadcasts against x (N, C, *spatial)."""
    return values.view(-1, *[1] * (x.ndim - 1))


def noised(x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    """x."""
    return level.alpha * x0 + level.sigma * noise


def target(prediction: Prediction, x0: Tensor, noise: Tensor, level: Level) -> Tensor:
    """What the network should have given."""
    if prediction == "velocity":
        return level.d_alpha * x0 + level.d_sigma * noise
    return x0 if prediction == "x0" else noise


def x0_and_noise(prediction: Prediction, predicted: Tensor, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """What x is made of, by a prediction. One of noise needs an alpha that is not 0, one of x0 such a sigma."""
    alpha, sigma, d_alpha, d_sigma = level
    if prediction == "velocity":
        turn = level.turn
        x0 = (d_sigma / turn) * x - (sigma / turn) * predicted
        return x0, (alpha / turn) * predicted - (d_alpha / turn) * x
    if prediction == "x0":
        return predicted, (x - alpha * predicted) / sigma
    return (1 / alpha) * x - (sigma / alpha) * predicted, predicted


def score(noise: Tensor, sigma: Any) -> Tensor:
    """grad log p(x), by the mean noise of x: Tweedie's formula. sigma is not 0."""
    return -noise / sigma


def error_factor(prediction: Prediction, space: Prediction, level: Level, least: float = 0.0) -> Any:
    """How large an error of 1 in a prediction is in another space, at the same x; `level` holds tensors.

    least: bound from below of what is divided by, sigma for x0 and alpha for noise (JiT, arXiv 2511.13720: 0.05).
    """
    # x is given, so alpha (error of x0) + sigma (error of noise) = 0.
    errors = {"x0": level.sigma, "noise": level.alpha, "velocity": level.turn}
    return errors[space] / errors[prediction].clamp(min=least)
