"""Score against compute: the straight line of the paper's Fig. 8 and a power law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LogLinearFit:
    """score = intercept + slope * log10(gmacs); `r` is Pearson's correlation (NaN for constant scores)."""

    r: float
    slope: float
    intercept: float
    num_points: int

    def __call__(self, gmacs: ArrayLike) -> NDArray[np.float64]:
        """The line's score at `gmacs`."""
        return self.intercept + self.slope * np.log10(np.asarray(gmacs, dtype=float))


@dataclass(frozen=True)
class PowerLawFit:
    """score = coefficient * gmacs^exponent; `r_squared_log` is the explained variance of log(score)."""

    coefficient: float
    exponent: float
    r_squared_log: float
    num_points: int

    def __call__(self, gmacs: ArrayLike) -> NDArray[np.float64]:
        """The law's score at `gmacs`."""
        return self.coefficient * np.asarray(gmacs, dtype=float) ** self.exponent


def log_linear(gmacs: ArrayLike, score: ArrayLike) -> LogLinearFit:
    """Least squares of the score on log10(GMACs) (DiT paper, Fig. 8: r = -0.93 for FID over its 12 models).

    Raises:
        ValueError: fewer than two different `gmacs`, `gmacs` not positive, or values that are not finite.
    """
    x, y = _checked(gmacs, score)
    slope, intercept, r = _line(np.log10(x), y)
    # A constant has no correlation.
    return LogLinearFit(r if np.ptp(y) > 0 else float("nan"), slope, intercept, len(x))


def power_law(gmacs: ArrayLike, score: ArrayLike) -> PowerLawFit:
    """Least squares of log(score) on log(GMACs), without an irreducible term: the law falls to zero.

    Raises:
        ValueError: fewer than two different `gmacs`, or values that are not positive or not finite.
    """
    x, y = _checked(gmacs, score)
    if np.any(y <= 0):
        raise ValueError("score: every value has to be positive")
    slope, intercept, r = _line(np.log(x), np.log(y))
    return PowerLawFit(float(np.exp(intercept)), slope, r**2 if np.ptp(y) > 0 else float("nan"), len(x))


# scipy.stats.linregress has the same numbers, and its import takes longer than that of pandas.
def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope, intercept and Pearson's correlation of the least-squares line."""
    of_x, of_both, _, of_y = np.cov(x, y, bias=True).ravel().tolist()
    slope = of_both / of_x
    r = np.clip(of_both / np.sqrt(of_x * of_y), -1, 1) if of_y > 0 else 0.0
    return slope, float(np.mean(y) - slope * np.mean(x)), float(r)


def _checked(gmacs: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(gmacs, dtype=float), np.asarray(score, dtype=float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"gmacs {x.shape} and score {y.shape}: two lists of the same length are needed")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("gmacs and score: every value has to be finite")
    if np.any(x <= 0):
        raise ValueError("gmacs: every value has to be positive")
    if len(np.unique(x)) < 2:
        raise ValueError("gmacs: at least two different values are needed")
    return x, y
