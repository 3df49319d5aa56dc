"""Scores of samples from their features: Inception Score, KID, precision and recall, FID extrapolated.

Pure functions of feature tensors (N, D), float32 on the CPU; torch-fidelity computes all but the extrapolation.
ADM's conventions (Dhariwal & Nichol 2021, arXiv 2105.05233), which the DiT paper uses: 50,000 samples, the Inception
Score over splits of 5,000, precision and recall against the 10,000 images of the reference batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from bench.score.frechet import CHUNK_ROWS, Gaussian, RunningGaussian, frechet_distance

KID_SUBSETS = 100
NEIGHBOURS = 3
DISTANCE_ROWS = 2500

FID_INFINITY_SIZES = 15
FID_INFINITY_SMALLEST = 5000
FID_INFINITY_MIN_SAMPLES = 10_000


def inception_score(logits: Tensor, split_size: int | None) -> tuple[float, float]:
    """exp E[KL(p(y|x) || p(y))] of class logits (N, K), mean and deviation over splits (Salimans et al. 2016).

    `split_size` None: ten equal splits after torch-fidelity's seeded shuffle, its default. A number: splits of so many
    samples in the order that they come, the last one may be smaller, as ADM's evaluation with 5,000. Every split
    counts the same. ADM's order is the samples' own, so samples sorted by class score lower there.

    Raises:
        ValueError: the score is not finite, or a feature is not.
    """
    _check_features("inception_score", logits)
    if split_size is None:
        scores = isc_features_to_metric(logits)
        return _finite("inception_score", scores[KEY_METRIC_ISC_MEAN], scores[KEY_METRIC_ISC_STD])
    splits = [isc_features_to_metric(split, splits=1, shuffle=False) for split in logits.split(split_size)]
    of_splits = [score[KEY_METRIC_ISC_MEAN] for score in splits]
    return _finite("inception_score", float(np.mean(of_splits)), float(np.std(of_splits)))


def kid(samples: Tensor, reference: Tensor, subset_size: int) -> tuple[float, float]:
    """Kernel distance (Bińkowski et al. 2018, arXiv 1801.01401), mean and deviation over 100 seeded subsets.

    The unbiased squared MMD with the kernel (x . y / D + 1)^3 between features (N, D) and (M, D), on subsets of
    `subset_size` of each, drawn without replacement. Slightly negative values are no error.

    Raises:
        ValueError: a subset is larger than one of the two sets, or the score or a feature is not finite.
    """
    _check_features("kid", samples, reference)
    scores = kid_features_to_metric(
        samples, reference, kid_subsets=KID_SUBSETS, kid_subset_size=subset_size, verbose=False
    )
    return _finite("kid", scores[KEY_METRIC_KID_MEAN], scores[KEY_METRIC_KID_STD])


def precision_recall(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """Improved precision and recall, k = 3 (Kynkäänniemi et al. 2019, arXiv 1904.06991), of features (N, D), (M, D).

    Precision: the share of samples within the distance of some reference feature to its third nearest neighbour;
    recall the other way round. ADM rounds distances to float16 where these do not overflow, which is not done here.

    Raises:
        ValueError: too few features for three neighbours, or one is not finite.
    """
    _check_features("precision and recall", samples, reference)
    fewest = min(len(samples), len(reference))
    if fewest <= NEIGHBOURS:
        raise ValueError(f"precision and recall: {fewest} features, k = {NEIGHBOURS} needs at least {NEIGHBOURS + 1}")
    # All distances of 50,000 samples are 10 GB, and selecting the k-th copies them and adds an index of 8 bytes each:
    # 40 GB. In blocks of rows (`save_cpu_ram`) it is the same for 2500 x 50,000 of them: 2 GB.
    scores = prc_features_to_metric(
        samples,
        reference,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=DISTANCE_ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return _finite("precision and recall", scores[KEY_METRIC_PRECISION], scores[KEY_METRIC_RECALL])


@dataclass(frozen=True)
class FIDInfinity:
    """A line in 1/N through the FIDs of subsets.

    Attributes:
        value: FID at infinitely many samples, the line's intercept; noise can take it below zero.
        slope: of the line, d FID / d (1/N).
        r2: share of the variance of `fids` that the line explains.
        sizes: of the subsets, ascending.
        fids: their FIDs.
    """

    value: float
    slope: float
    r2: float
    sizes: tuple[int, ...]
    fids: tuple[float, ...]


def fid_infinity(features: Tensor, reference: Gaussian, seed: int) -> FIDInfinity:
    """FID without the bias of the number of samples (Chong & Forsyth 2020, arXiv 1911.07023).

    FIDs of 15 subsets of features (N, D), of sizes evenly spaced from 5,000 to N as theirs, each drawn anew from all
    samples without replacement; a least-squares line in 1/size, unweighted. They recommend to generate the samples
    from Sobol sequences, which lowers the variance; samples here come from pseudo-random noise, as the other scores'.
    Only the samples' bias goes: the reference's own, of finitely many real images, stays.

    Raises:
        ValueError: fewer than 10,000 samples, a line from 5,000 on would rest on nearly equal sizes; or a feature is
            not finite.
    """
    if len(features) < FID_INFINITY_MIN_SAMPLES:
        raise ValueError(f"fid_infinity: {len(features)} samples, at least {FID_INFINITY_MIN_SAMPLES} are needed")
    _check_features("fid_infinity", features)
    random = torch.Generator().manual_seed(seed)
    sizes = np.linspace(FID_INFINITY_SMALLEST, len(features), FID_INFINITY_SIZES).astype(int).tolist()
    fids = []
    for size in sizes:
        subset = torch.randperm(len(features), generator=random)[:size]
        running = RunningGaussian(features.shape[1])
        for rows in subset.split(CHUNK_ROWS):  # so that the subset is never copied as a whole
            running.update(features[rows])
        fids.append(frechet_distance(running.result(), reference))
    value, slope, r2 = extrapolate(sizes, fids)
    _finite("fid_infinity", value, slope)
    return FIDInfinity(value, slope, r2, tuple(sizes), tuple(fids))


def extrapolate(sizes: ArrayLike, scores: ArrayLike) -> tuple[float, float, float]:
    """Intercept, slope and R^2 of the least-squares line of scores (n,) in 1/size, n >= 2 different sizes."""
    x, y = 1 / np.asarray(sizes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx @ dy) / (dx @ dx)
    unexplained, total = float(((dy - slope * dx) ** 2).sum()), float(dy @ dy)
    return float(y.mean() - slope * x.mean()), float(slope), 1 - unexplained / total if total else 1.0


def _check_features(score: str, *features: Tensor) -> None:
    for tensor in features:
        bad = int((~tensor.isfinite().all(dim=1)).sum())
        if bad:
            raise ValueError(f"{score}: {bad} of {len(tensor)} features are not finite")


def _finite(score: str, first: float, second: float) -> tuple[float, float]:
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{score}: not finite ({first}, {second})")
    return first, second
