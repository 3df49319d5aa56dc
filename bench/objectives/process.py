"""Processes: how x is made of data and noise at a time, and how it changes between two times. Imports no torch.

x(t) = alpha(t) x0 + sigma(t) noise. Times run from noise down to data; numbers are Python floats (float64), so that
plans, which have no torch, know the times at which a sampler calls the network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from bench.objectives.conversions import Level

# discrete: the network knows whole steps 0 .. T - 1 only; continuous: any time between two bounds.
Kind = Literal["discrete", "continuous"]


class Motion(NamedTuple):
    """The probability-flow ODE at a time, in coordinates in which it is simple: state = scale x.

    d state / d clock = of_x0 x0 + of_noise noise; state = scale (alpha x0 + sigma noise).
    """

    clock: float
    scale: float
    of_x0: float
    of_noise: float


class Process(Protocol):
    """What samplers, guidance intervals and plans ask of a process.

    Attributes:
        kind: which samplers serve it.
        bounds: the least and the largest time at which the network can be called.
        called_at_data: whether that includes the end of `grid`: x there is data.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def bounds(self) -> tuple[float, float]: ...
    @property
    def called_at_data(self) -> bool: ...

    def grid(self, num_steps: int, shift: float = 1.0) -> list[float]:
        """The `num_steps + 1` times of a sampler's steps, from noise to data.

        shift: multiplies sigma / alpha, the noise-to-signal ratio, between the ends (SD3, arXiv 2403.03206 Sec. 5.3.2).

        Raises:
            ValueError: `key: what is wrong`, of a recipe's `evaluation`.
        """
        ...

    def alpha(self, t: float) -> float: ...
    def sigma(self, t: float) -> float: ...
    def motion(self, t: float) -> Motion: ...


@dataclass(frozen=True)
class DiscreteProcess:
    """Steps 0 .. T - 1 with alpha_bar_t; the time of data is -1.

    Its ODE is DDIM's, state x / alpha and clock sigma / alpha (arXiv 2010.02502 Eq. 14): an Euler step is a DDIM step.
    """

    alphas_bar: tuple[float, ...]
    kind: Kind = "discrete"
    called_at_data: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, len(self.alphas_bar) - 1.0

    def grid(self, num_steps: int, shift: float = 1.0) -> list[float]:
        """Evenly spread steps, both ends included (IDDPM Sec. 4), and then data."""
        total = len(self.alphas_bar)
        if shift != 1:
            raise ValueError(
                f"sampler_options.shift: {shift:g}, but the steps of this process are spread evenly; accepted: 1"
            )
        if not 2 <= num_steps <= total:
            raise ValueError(
                f"sampling_steps: {num_steps} is not in 2 .. {total}, the steps of the process (diffusion.timesteps)"
            )
        return [*(float(step) for step in reversed(respaced(total, num_steps))), -1.0]

    def alpha(self, t: float) -> float:
        return 1.0 if t < 0 else math.sqrt(self.alphas_bar[round(t)])

    def sigma(self, t: float) -> float:
        return 0.0 if t < 0 else math.sqrt(1 - self.alphas_bar[round(t)])

    def level(self, t: float) -> Level:
        """With the derivatives by the angle, for the velocity of arXiv 2202.00512."""
        return Level(self.alpha(t), self.sigma(t), -self.sigma(t), self.alpha(t))

    def motion(self, t: float) -> Motion:
        return Motion(self.sigma(t) / self.alpha(t), 1 / self.alpha(t), 0.0, 1.0)


def respaced(timesteps: int, num_steps: int) -> list[int]:
    """`num_steps` whole numbers spread evenly over 0 .. timesteps - 1, both ends included."""
    last = num_steps - 1
    gap = (timesteps - 1) / last
    # From the nearer end: halves fall as in torch.linspace, with which the first results were made.
    return [
        round(step * gap if step < num_steps // 2 else timesteps - 1 - (last - step) * gap) for step in range(num_steps)
    ]


def linear_betas(timesteps: int) -> list[float]:
    """From 1e-4 to 0.02 at T = 1000, scaled by 1000 / T otherwise (DDPM Sec. 4); T from 21, where beta is below 1."""
    first, last = 0.1 / timesteps, 20 / timesteps
    return [first + (last - first) * step / (timesteps - 1) for step in range(timesteps)]


def cosine_betas(timesteps: int) -> list[float]:
    """alpha_bar = cos^2(pi / 2 (t / T + s) / (1 + s)) with s = 0.008, beta at most 0.999 (IDDPM Eq. 17)."""
    levels = [math.cos(math.pi / 2 * (step / timesteps + 0.008) / 1.008) ** 2 for step in range(timesteps + 1)]
    return [min(1 - after / before, 0.999) for before, after in itertools.pairwise(levels)]


def alphas_bar(betas: Sequence[float]) -> tuple[float, ...]:
    """prod (1 - beta_s) up to every step."""
    products, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    return tuple(products)


@dataclass(frozen=True)
class Path:
    """x = alpha(t) x0 + sigma(t) noise, t in 0 .. 1, evenly spread steps.

    Functions of t take a float, or a tensor with `m` = torch, so that the formulas stand once.
    """

    called_at_data: bool = True
    kind: Kind = "continuous"
    bounds: tuple[float, float] = (0.0, 1.0)

    def level(self, t: Any, m: Any = math) -> Level:
        raise NotImplementedError

    def shifted(self, t: Any, shift: float, m: Any = math) -> Any:
        """The time at which sigma / alpha is `shift` times that of t."""
        raise NotImplementedError

    def grid(self, num_steps: int, shift: float = 1.0) -> list[float]:
        least, most = self.bounds
        start = self.shifted(most, 1 / shift)
        between = [self.shifted(start * (1 - step / num_steps), shift) for step in range(1, num_steps)]
        if between and between[-1] < least:
            raise ValueError(
                f"sampling_steps: {num_steps}: the last begins at {between[-1]:.2g}, but this network is called at "
                f"{least:g} or more; accepted: fewer, or a larger sampler_options.shift"
            )
        return [most, *between, 0.0]

    def alpha(self, t: float) -> float:
        return self.level(t).alpha

    def sigma(self, t: float) -> float:
        return self.level(t).sigma

    def motion(self, t: float) -> Motion:
        level = self.level(t)
        return Motion(t, 1.0, level.d_alpha, level.d_sigma)


class LinearPath(Path):
    """x = (1 - t) x0 + t noise (SiT, arXiv 2401.08740 Sec. 2.1; rectified flow)."""

    def level(self, t: Any, m: Any = math) -> Level:
        return Level(1 - t, t, -1.0, 1.0)

    def shifted(self, t: Any, shift: float, m: Any = math) -> Any:
        return shift * t / (1 + (shift - 1) * t)


class TrigonometricPath(Path):
    """x = cos(pi t / 2) x0 + sin(pi t / 2) noise: SiT's variance-preserving path (GVP)."""

    def level(self, t: Any, m: Any = math) -> Level:
        half_pi = math.pi / 2
        alpha, sigma = m.cos(half_pi * t), m.sin(half_pi * t)
        return Level(alpha, sigma, -half_pi * sigma, half_pi * alpha)

    def shifted(self, t: Any, shift: float, m: Any = math) -> Any:
        level = self.level(t, m)
        return 2 / math.pi * m.atan2(shift * level.sigma, level.alpha)


@dataclass(frozen=True)
class NoiseLevels:
    """x = x0 + sigma noise, the time is sigma (EDM, Karras et al. 2022, arXiv 2206.00364; grid: Eq. 5)."""

    sigma_min: float
    sigma_max: float
    rho: float
    kind: Kind = "continuous"
    called_at_data: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def grid(self, num_steps: int, shift: float = 1.0) -> list[float]:
        if shift != 1:
            raise ValueError(
                f"sampler_options.shift: {shift:g}, but this process has rho, sigma_min and sigma_max; accepted: 1"
            )
        low, high, last = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho), num_steps - 1
        if num_steps < 2:
            raise ValueError(f"sampling_steps: {num_steps}; accepted: at least 2")
        between = [(high + step / last * (low - high)) ** self.rho for step in range(1, last)]
        return [self.sigma_max, *between, self.sigma_min, 0.0]

    def alpha(self, t: float) -> float:
        return 1.0

    def sigma(self, t: float) -> float:
        return t

    def level(self, t: Any) -> Level:
        return Level(1.0, t, 0.0, 1.0)

    def motion(self, t: float) -> Motion:
        return Motion(t, 1.0, 0.0, 1.0)
