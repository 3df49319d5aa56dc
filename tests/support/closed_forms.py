"""Mixtures of Gaussians, for which everything that a diffusion model should predict has a closed form. In numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import quad


@dataclass(frozen=True)
class Mixture:
    """Of one number: weights, means and standard deviations of its Gaussians."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def density(self, x: Any, alpha: float, sigma: float) -> Any:
        """Of alpha x0 + sigma noise."""
        total = 0.0
        for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True):
            variance = (alpha * std) ** 2 + sigma**2
            total = total + weight * np.exp(-((x - alpha * mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        return total

    def expected(self, of: Callable[[float, float], float], x: float, alpha: float, sigma: float) -> float:
        """E[of(x0, noise) | x = alpha x0 + sigma noise] by Bayes' rule and numerical integration over x0."""

        def joint(x0: float) -> float:
            return self.density(x0, 1.0, 0.0) * np.exp(-0.5 * ((x - alpha * x0) / sigma) ** 2)

        low = min(m - 8 * s for m, s in zip(self.means, self.stds, strict=True))
        high = max(m + 8 * s for m, s in zip(self.means, self.stds, strict=True))
        if alpha > 0:  # where x comes from at all
            low, high = max(low, (x - 9 * sigma) / alpha), min(high, (x + 9 * sigma) / alpha)
        exact = {"epsabs": 1e-14, "epsrel": 1e-10, "limit": 500}
        mass = quad(joint, low, high, **exact)[0]
        return quad(lambda x0: joint(x0) * of(x0, (x - alpha * x0) / sigma), low, high, **exact)[0] / mass


ONE = Mixture((1.0,), (0.4,), (0.3,))
TWO = Mixture((0.3, 0.7), (-0.8, 0.5), (0.2, 0.4))
