"""What fitting laws costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from analysis.laws.bootstrap import bootstrap
from analysis.laws.choices import Objective
from analysis.laws.fit import fit
from analysis.laws.observations import Observations, observations

# Hoffmann et al. 2022 (arXiv:2203.15556), eq. 10.
E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28
OBJECTIVES: tuple[Objective, ...] = ("logs", "log-huber")
NOISE = 0.01  # standard deviation of log scores


def fits(rows: int = 240, replicates: int = 4000) -> dict[str, Callable[[], object]]:
    """What is fitted -> doing so: y = E + A N^-alpha + B D^-beta to simulated rows, from all starts, and its bootstrap
    refits, the check of some from all starts included; by least squares of logs and by the log-Huber loss.
    """
    data = simulated_rows(rows)
    ways: dict[str, Callable[[], object]] = {}
    for objective in OBJECTIVES:
        law = fit(data, "chinchilla", objective)
        ways[f"fit of {rows} rows by {objective}"] = partial(fit, data, "chinchilla", objective)
        ways[f"{replicates:,} refits of them by {objective}"] = partial(bootstrap, law, "bootstrap", replicates)
    return ways


def simulated_rows(rows: int, noise: float = NOISE, seed: int = 0) -> Observations:
    """Hoffmann et al.'s law with noise: 24 sizes from 10^7 to 10^9 params, rows / 24 data sizes from 10^9 to 10^11."""
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 24), np.geomspace(1e9, 1e11, rows // 24))
    params, images = (axis.ravel() for axis in grid)
    law = E + A * params**-ALPHA + B * images**-BETA
    return observations(
        law * np.exp(noise * np.random.default_rng(seed).standard_normal(len(law))), params=params, images=images
    )
