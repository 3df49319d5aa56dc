"""Gaussians fitted to features, and the Fréchet distance between two: numpy float64 throughout.

`RunningGaussian` sees features in batches of any size, several of them can be merged, and the covariance does not
suffer where the mean is large: sums are of deviations, never of squares (Chan, Golub & LeVeque 1983, pairwise update).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ROWS = 4096  # of features, converted to float64 at a time

# Covariances may have been stored as float32. Rounding each entry changes no eigenvalue by more than half of this
# times the trace, since |c_ij| <= sqrt(c_ii c_jj).
ROUNDING = float(np.finfo(np.float32).eps)

(_add_product,) = scipy.linalg.get_blas_funcs(("syrk",), dtype=np.float64)  # c += a a^T, one triangle of it


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features; float64 copies that cannot be written to.

    Attributes:
        count: features that it was computed from; None where a file does not say.

    Raises:
        ValueError: shapes that do not fit together, values that are not finite, or a covariance that is not symmetric
            positive semidefinite up to what float32 can tell.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    count: int | None = None

    def __post_init__(self) -> None:
        # In C order, whatever order a file has: hashes and sums are of values, not of how they lie in memory.
        mean, covariance = (np.array(a, dtype=np.float64, order="C") for a in (self.mean, self.covariance))
        if mean.ndim != 1 or mean.size == 0:
            raise ValueError(f"mean: shape {mean.shape}, expected (D,)")
        if covariance.shape != 2 * mean.shape:
            raise ValueError(f"covariance: shape {covariance.shape}, expected {2 * mean.shape} as the mean")
        for name, values in (("mean", mean), ("covariance", covariance)):
            if not np.isfinite(values).all():
                raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(values))} values are not finite")
        _check_semidefinite(covariance)
        mean.setflags(write=False)
        covariance.setflags(write=False)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @property
    def dim(self) -> int:
        """D, the size of a feature."""
        return len(self.mean)

    @property
    def has_spread(self) -> bool:
        """Whether the features differ by more than the rounding of float32: not those of copies of one image."""
        return bool(np.trace(self.covariance) > ROUNDING**2 * (self.mean @ self.mean))


def _check_semidefinite(covariance: NDArray[np.float64]) -> None:
    with np.errstate(over="ignore"):
        asymmetry = np.abs(covariance - covariance.T).max()
    if asymmetry > ROUNDING * np.abs(covariance).max():
        raise ValueError(f"covariance: not symmetric, entries differ by up to {asymmetry:.3g}")
    # A Cholesky factor of C + tolerance I exists exactly where no eigenvalue is below -tolerance; it takes a small
    # part of the time of the eigenvalues.
    with np.errstate(over="ignore"):
        trace = np.trace(covariance)
    if not np.isfinite(trace):
        raise ValueError("covariance: its trace is too large for float64")
    tolerance = max(ROUNDING * trace, np.finfo(np.float64).tiny)
    try:
        scipy.linalg.cholesky(covariance + tolerance * np.eye(len(covariance)), overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        smallest = scipy.linalg.eigvalsh(covariance, subset_by_index=(0, 0), check_finite=False)[0]
        raise ValueError(f"covariance: has the negative eigenvalue {smallest:.3g}, beyond rounding") from None


class RunningGaussian:
    """Mean and covariance of features that come in batches."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._mean = np.zeros(dim)
        # Lower triangle of the sum of (x - mean)(x - mean)^T, in the order of columns that BLAS updates in place.
        self._scatter = np.zeros((dim, dim), order="F")

    def update(self, features: NDArray[np.floating] | Tensor) -> None:
        """Add features (N, D), numpy or torch (on any device), of any floating-point type.

        Raises:
            ValueError: another shape, or values that are not finite; nothing of them is added.
        """
        if features.ndim != 2 or features.shape[1] != len(self._mean):
            raise ValueError(f"features: shape {tuple(features.shape)}, expected (N, {len(self._mean)})")
        chunks = [_float64(features[start : start + CHUNK_ROWS]) for start in range(0, len(features), CHUNK_ROWS)]
        bad = sum(int((~np.isfinite(chunk).all(axis=1)).sum()) for chunk in chunks)
        if bad:
            raise ValueError(f"features: {bad} of {len(features)} have values that are not finite")
        for chunk in chunks:
            mean = chunk.mean(axis=0)
            self._add(len(chunk), mean, chunk - mean)

    def merge(self, other: RunningGaussian) -> None:
        """Add all that `other` has seen; `other` stays as it is.

        Raises:
            ValueError: its features have another size.
        """
        if other._mean.shape != self._mean.shape:
            raise ValueError(f"features of size {len(other._mean)}, expected {len(self._mean)}")
        if other.count:
            self._scatter += other._scatter
            self._add(other.count, other._mean, np.empty((0, len(self._mean))))

    def result(self) -> Gaussian:
        """The Gaussian, with the unbiased covariance (N - 1), as `numpy.cov`.

        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"features: {self.count}, a covariance needs at least 2")
        covariance = (np.tril(self._scatter) + np.tril(self._scatter, -1).T) / (self.count - 1)
        return Gaussian(self._mean, covariance, self.count)

    def _add(self, count: int, mean: NDArray[np.float64], deviations: NDArray[np.float64]) -> None:
        """Add `count` features by their mean (D,) and their deviations from it (n, D)."""
        total = self.count + count
        shift = mean - self._mean
        # The distance of the two means counts as one more deviation.
        between = np.sqrt(self.count * count / total) * shift
        rows = np.vstack([deviations, between])
        self._scatter = _add_product(1.0, rows.T, beta=1.0, c=self._scatter, lower=1, overwrite_c=1)
        self._mean = self._mean + shift * (count / total)
        self.count = total


def _float64(features: NDArray[np.floating] | Tensor) -> NDArray[np.float64]:
    if isinstance(features, np.ndarray):
        return features.astype(np.float64)
    return features.detach().double().cpu().numpy()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Fréchet 1957; Dowson & Landau 1982; FID: Heusel et al. 2017, eq. 6).

    With A = F F^T, A B has the eigenvalues of the symmetric F^T B F: no root of an unsymmetric matrix is taken, and
    covariances without full rank need no offset. F is the Cholesky factor of whichever has full rank; where neither
    has, it is made of A's eigenvectors. What rounding takes below zero is returned as 0, since distances
    are not negative and roots and logarithms of them are taken; the covariances have been checked to be semidefinite,
    so that nothing but rounding does.

    Raises:
        ValueError: features of different sizes, or a distance that is too large for float64.
    """
    if a.dim != b.dim:
        raise ValueError(f"features of different sizes: {a.dim} and {b.dim}")
    shift = a.mean - b.mean
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(shift @ shift + traces - 2 * _trace_of_root(a.covariance, b.covariance))
    if not np.isfinite(distance):
        raise ValueError("the distance is too large for float64")
    return max(0.0, distance)


def _trace_of_root(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """tr (a b)^(1/2) of positive semidefinite a, b (D, D)."""
    factor, other = _cholesky_factor(a), b
    if factor is None:
        factor, other = _cholesky_factor(b), a
    if factor is None:
        factor, other = _eigenvector_factor(a), b
    if not factor.size:
        return 0.0
    product = factor.T @ other @ factor
    if not np.isfinite(product).all():
        return np.nan
    return float(np.sqrt(scipy.linalg.eigvalsh(product, check_finite=False).clip(0)).sum())


def _cholesky_factor(covariance: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """F (D, D) with F F^T = covariance, in a small part of the time of its eigenvectors; None without full rank."""
    try:
        return scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return None


def _eigenvector_factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """F (D, rank) with F F^T = covariance, whatever its rank."""
    variances, axes = scipy.linalg.eigh(covariance, driver="evd", check_finite=False)
    kept = variances > 0
    return axes[:, kept] * np.sqrt(variances[kept])
