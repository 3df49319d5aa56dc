"""What a Fréchet distance costs: ours, torch-fidelity's and by scipy's matrix root, on the same statistics."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.linalg
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from bench.perf.document import OURS
from bench.perf.turns import Measure, timed
from bench.score.frechet import CHUNK_ROWS, Gaussian, RunningGaussian, frechet_distance

# The two spectra fall with these powers of their index: Inception's covariances have a few large eigenvalues and a
# long tail of small ones.
POWERS = (1.0, 1.1)
TORCH_FIDELITY, SQRTM = "torch-fidelity", "scipy's matrix root"


def frechet_distances(dim: int = 2048, num_samples: int = 10_000) -> Measure:
    """A distance by each, of features of size `dim`, `num_samples` on either side: fewer make singular covariances.

    Rows of the others have `difference`: their value over ours, less 1.
    """
    a, b = _gaussians(dim, num_samples)
    functions = {OURS: frechet_distance, TORCH_FIDELITY: _by_torch_fidelity, SQRTM: _by_sqrtm}
    values = {name: function(a, b) for name, function in functions.items()}
    return Measure(
        f"Fréchet distance of {dim} features",
        timed({name: partial(function, a, b) for name, function in functions.items()}),
        facts={name: {"difference": values[name] / values[OURS] - 1} for name in (TORCH_FIDELITY, SQRTM)},
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
