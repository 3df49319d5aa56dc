"""What fitting laws costs."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from analysis.laws.bootstrap import bootstrap
from analysis.laws.choices import Method, Objective
from analysis.laws.fit import fit
from analysis.laws.observations import Observations, observations

# Hoffmann et al. 2022 (arXiv:2203.15556), eq. 10.
E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28
NOISE = 0.01  # standard deviation of log scores


@dataclass(frozen=True)
class FitsCost:
    """Median seconds of the fits of y = E + A N^-alpha + B D^-beta to simulated rows, on one thread.

    Attributes:
        objective, method: of the fit and of the bootstrap.
        rows: 24 model sizes, each with an equal number of data sizes; noise of 1 % on Hoffmann et al.'s law.
        replicates: refits.
        fit_s: one fit, from all starts.
        bootstrap_s: all refits, the check of some from all starts included.
        failed: share of refits that failed.
    """

    objective: str
    method: str
    rows: int
    replicates: int
    fit_s: float
    bootstrap_s: float
    failed: float


def fits_cost(
    objective: Objective = "logs",
    method: Method = "bootstrap",
    rows: int = 240,
    replicates: int = 4000,
    rounds: int = 1,
) -> FitsCost:
    """Measure one fit and its bootstrap, `rounds` times."""
    data = simulated_rows(rows)
    fit_seconds, bootstrap_seconds, failed = [], [], 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        law = fit(data, "chinchilla", objective)
        fitted = time.perf_counter()
        failed = bootstrap(law, method, replicates).failed
        bootstrap_seconds.append(time.perf_counter() - fitted)
        fit_seconds.append(fitted - started)
    medians = statistics.median(fit_seconds), statistics.median(bootstrap_seconds)
    return FitsCost(objective, method, len(data), replicates, *medians, failed)


def simulated_rows(rows: int, noise: float = NOISE, seed: int = 0) -> Observations:
    """Hoffmann et al.'s law with noise: 24 sizes from 10^7 to 10^9 params, rows / 24 data sizes from 10^9 to 10^11."""
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 24), np.geomspace(1e9, 1e11, rows // 24))
    params, images = (axis.ravel() for axis in grid)
    law = E + A * params**-ALPHA + B * images**-BETA
    return observations(
        law * np.exp(noise * np.random.default_rng(seed).standard_normal(len(law))), params=params, images=images
    )
