"""Score against compute: the straight line of the paper's Fig. 8 and a power law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


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
    line: Any = stats.linregress(np.log10(x), y)
    return LogLinearFit(
        # A constant has no correlation.
        r=float(line.rvalue) if np.ptp(y) > 0 else float("nan"),
        slope=float(line.slope),
        intercept=float(line.intercept),
        num_points=len(x),
    )


def power_law(gmacs: ArrayLike, score: ArrayLike) -> PowerLawFit:
    """Least squares of log(score) on log(GMACs), without an irreducible term: the law falls to zero.

    Raises:
        ValueError: fewer than two different `gmacs`, or values that are not positive or not finite.
    """
    x, y = _checked(gmacs, score)
    if np.any(y <= 0):
        raise ValueError("score: every value has to be positive")
    line: Any = stats.linregress(np.log(x), np.log(y))
    return PowerLawFit(
        coefficient=float(np.exp(line.intercept)),
        exponent=float(line.slope),
        r_squared_log=float(line.rvalue) ** 2 if np.ptp(y) > 0 else float("nan"),
        num_points=len(x),
    )


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
