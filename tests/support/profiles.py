"""Profiles of averages, step by step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.averages.power import share


def profile(std: float, step: int) -> NDArray[np.float64]:
    """The weight of every step 1 ... `step`, by the recursion alone: average = share x average + (1 - share) x new."""
    weights = np.zeros(step)
    for k in range(1, step + 1):
        weights *= share(std, k)
        weights[k - 1] += 1 - share(std, k)
    return weights
