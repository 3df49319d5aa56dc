"""What a Fréchet distance costs: ours, torch-fidelity's and by scipy's matrix root, on the same statistics."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from bench.score.frechet import CHUNK_ROWS, Gaussian, RunningGaussian, frechet_distance

# The two spectra fall with these powers of their index: Inception's covariances have a few large eigenvalues and a
# long tail of small ones.
POWERS = (1.0, 1.1)


@dataclass(frozen=True)
class FrechetCost:
    """Median seconds of one distance, of one run, interleaved.

    Attributes:
        dim: size of a feature.
        num_samples: features of either side; below `dim`, the covariances are singular.
        value: the distance, by ours.
        sqrtm_s: the trace of `scipy.linalg.sqrtm` of the product of the covariances.
        *_times_ours: their median / ours.
        *_difference: their value / ours - 1.
    """

    dim: int
    num_samples: int
    value: float
    ours_s: float
    torch_fidelity_s: float
    sqrtm_s: float
    torch_fidelity_times_ours: float
    sqrtm_times_ours: float
    torch_fidelity_difference: float
    sqrtm_difference: float


def frechet_cost(
    dim: int = 2048, num_samples: int = 10_000, rounds: int = 5, torch_fidelity_rounds: int = 3, sqrtm_rounds: int = 1
) -> FrechetCost:
    """Measure the three in turns, each in as many rounds as given: at 2048 dimensions sqrtm takes minutes."""
    a, b = _gaussians(dim, num_samples)
    ways: dict[Callable[[Gaussian, Gaussian], float], int] = {
        frechet_distance: rounds,
        _by_torch_fidelity: torch_fidelity_rounds,
        _by_sqrtm: sqrtm_rounds,
    }
    seconds: dict[Callable[[Gaussian, Gaussian], float], list[float]] = {way: [] for way in ways}
    values = {}
    for turn in range(max(ways.values())):
        for way, turns in ways.items():
            if turn < turns:
                started = time.perf_counter()
                values[way] = way(a, b)
                seconds[way].append(time.perf_counter() - started)
    ours, theirs, root = (statistics.median(seconds[way]) for way in ways)
    value = values[frechet_distance]
    return FrechetCost(
        dim=dim,
        num_samples=num_samples,
        value=value,
        ours_s=ours,
        torch_fidelity_s=theirs,
        sqrtm_s=root,
        torch_fidelity_times_ours=theirs / ours,
        sqrtm_times_ours=root / ours,
        torch_fidelity_difference=values[_by_torch_fidelity] / value - 1,
        sqrtm_difference=values[_by_sqrtm] / value - 1,
    )


def _gaussians(dim: int, num_samples: int) -> list[Gaussian]:
    """Two seeded Gaussians that were estimated from samples, with different spectra and axes close to each other."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.standard_normal((dim, dim)))[0]
    turned = np.linalg.qr(axes + random.standard_normal((dim, dim)) / dim)[0]
    gaussians = []
    for power, directions in zip(POWERS, (axes, turned), strict=True):
        scales = np.arange(1, dim + 1) ** (-power / 2)
        running = RunningGaussian(dim)
        for start in range(0, num_samples, CHUNK_ROWS):
            rows = min(CHUNK_ROWS, num_samples - start)
            running.update((random.standard_normal((rows, dim)) + power) * scales @ directions.T)
        gaussians.append(running.result())
    return gaussians


def _by_torch_fidelity(a: Gaussian, b: Gaussian) -> float:
    one, other = ({"mu": gaussian.mean, "sigma": gaussian.covariance} for gaussian in (a, b))
    return fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID]


def _by_sqrtm(a: Gaussian, b: Gaussian) -> float:
    """As the first implementations of FID do it."""
    root = np.asarray(scipy.linalg.sqrtm(a.covariance @ b.covariance))
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root).real)
