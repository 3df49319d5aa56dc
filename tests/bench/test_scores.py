"""Scores from features, against the definitions of their papers in plain loops, and torch-fidelity called directly."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from bench.score import metrics
from bench.score.frechet import Gaussian, frechet_distance
from bench.score.metrics import extrapolate, fid_infinity, inception_score, kid, precision_recall


def normal(num: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(seed))


# Inception Score


def one_split(logits: NDArray[np.float32]) -> float:
    """exp of the mean of KL(p(y|x) || p(y)), p(y) of the split."""
    exponentials = np.exp(logits.astype(np.float64))
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    return math.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1).mean())


@pytest.mark.parametrize("num", [40, 47])  # 47: the last split has 7
def test_inception_score_of_splits_in_order(num: int) -> None:
    logits = 3 * normal(num, 5)
    by_hand = [one_split(logits[start : start + 10].numpy()) for start in range(0, num, 10)]
    assert inception_score(logits, 10) == pytest.approx((np.mean(by_hand), np.std(by_hand)), rel=1e-12)


def test_inception_score_of_sorted_samples() -> None:
    """Ten classes, known for sure, sorted: a split in order has one class (1), a shuffled one nearly all (10)."""
    logits = 50 * torch.eye(10).repeat_interleave(100, dim=0)
    assert inception_score(logits, 100) == pytest.approx((1, 0), abs=1e-9)
    assert inception_score(logits, 1000) == pytest.approx((10, 0), rel=1e-9)
    mean, std = inception_score(logits, None)
    assert 9 < mean < 10
    assert std > 0


def test_inception_score_shuffles_as_torch_fidelity_does() -> None:
    logits = 3 * normal(203, 5)
    order = np.random.RandomState(2020).permutation(203)
    edges = [i * 203 // 10 for i in range(11)]
    by_hand = [one_split(logits[order[a:b]].numpy()) for a, b in pairwise(edges)]
    assert inception_score(logits, None) == pytest.approx((np.mean(by_hand), np.std(by_hand)), rel=1e-12)
    assert tuple(isc_features_to_metric(logits).values()) == inception_score(logits, None)


# KID


def unbiased_mmd(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n = len(x)
    within = sum(kernel(a[i], a[j]) for a in (x, y) for i in range(n) for j in range(n) if i != j)
    across = sum(kernel(a, b) for a in x for b in y)
    return within / (n * (n - 1)) - 2 * across / n**2


def test_kid_by_its_definition() -> None:
    """With subsets of all samples the hundred subsets are the same."""
    x, y = normal(30, 6), 1.2 * normal(30, 6, seed=1) + 0.3
    mean, std = kid(x, y, 30)
    assert mean == pytest.approx(unbiased_mmd(x.double().numpy(), y.double().numpy()), rel=1e-4)
    assert std == pytest.approx(0, abs=1e-6)


def test_kid_of_subsets_is_torch_fidelitys() -> None:
    x, y = normal(80, 6), normal(60, 6, seed=1)
    theirs = kid_features_to_metric(x, y, kid_subset_size=20, verbose=False)
    assert kid(x, y, 20) == tuple(theirs.values())
    assert kid(x, y, 20)[1] > 0


def test_kid_of_too_few_samples() -> None:
    with pytest.raises(ValueError, match="subset size 20"):
        kid(normal(19, 6), normal(60, 6), 20)


# Precision and recall


def within_reach(of: NDArray[np.float64], points: NDArray[np.float64]) -> float:
    """Share of `points` that are no farther from one of `of` than its third nearest other one is."""
    radii = [sorted(math.dist(a, b) for j, b in enumerate(of) if j != i)[2] for i, a in enumerate(of)]
    return float(np.mean([any(math.dist(p, a) <= r for a, r in zip(of, radii, strict=True)) for p in points]))


def test_precision_and_recall_by_their_definition() -> None:
    x, y = normal(70, 3) * torch.tensor([1.0, 0.5, 2.0]), normal(50, 3, seed=1) + 0.7
    a, b = x.double().numpy(), y.double().numpy()
    precision, recall = within_reach(b, a), within_reach(a, b)
    assert 0.1 < precision < 0.9
    assert 0.1 < recall < 0.9
    assert precision != recall
    assert precision_recall(x, y) == pytest.approx((precision, recall), abs=1e-6)


@pytest.mark.parametrize("dim", [2, 64])
def test_precision_and_recall_in_blocks_are_those_of_all_distances_at_once(
    dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = normal(700, dim), 1.1 * normal(450, dim, seed=1)
    x[:50] = y[:50]  # ties
    whole = prc_features_to_metric(x, y, save_cpu_ram=False, verbose=False)
    assert precision_recall(x, y) == (whole["precision"], whole["recall"])
    monkeypatch.setattr(metrics, "DISTANCE_ROWS", 99)
    assert precision_recall(x, y) == (whole["precision"], whole["recall"])


def test_a_collapsed_generator_has_precision_and_no_recall() -> None:
    real = normal(200, 2)
    assert precision_recall(real[:1] + 1e-3 * normal(200, 2, seed=1), real) == (1, pytest.approx(0, abs=0.01))


def test_too_few_samples_for_three_neighbours() -> None:
    assert precision_recall(normal(4, 2), normal(4, 2)) == (1, 1)
    for x, y in ((normal(3, 2), normal(9, 2)), (normal(9, 2), normal(3, 2))):
        with pytest.raises(ValueError, match="3 features, k = 3 needs at least 4"):
            precision_recall(x, y)


# FID extrapolated


def test_extrapolation_is_exact_on_a_line_in_the_inverse_size() -> None:
    sizes = [5000, 7000, 12_000, 50_000]
    intercept, slope, r2 = extrapolate(sizes, [2.25 + 3e4 / n for n in sizes])
    assert (intercept, slope, r2) == pytest.approx((2.25, 3e4, 1), rel=1e-10)
    assert extrapolate(sizes, [7.0] * 4) == pytest.approx((7, 0, 1), abs=1e-9)


def test_extrapolation_is_numpys_least_squares() -> None:
    sizes = np.linspace(5000, 50_000, 15)
    fids = 3 + 2e4 / sizes + 0.2 * np.random.default_rng(0).standard_normal(15)
    intercept, slope, r2 = extrapolate(sizes, fids)
    expected_slope, expected = np.polyfit(1 / sizes, fids, 1)
    assert (intercept, slope) == pytest.approx((expected, expected_slope), rel=1e-9)
    assert r2 == pytest.approx(np.corrcoef(1 / sizes, fids)[0, 1] ** 2, rel=1e-9)


def test_fid_infinity_takes_away_the_known_bias() -> None:
    """Samples of N(0, I_d) against N(0, I_d): the mean adds d / N, the covariance E |S - I|^2 / 4 = d (d + 1) / 4N."""
    dim, num = 32, 12_000
    bias = dim + dim * (dim + 1) / 4
    result = fid_infinity(normal(num, dim), Gaussian(np.zeros(dim), np.eye(dim)), seed=0)
    assert result.fids[-1] == pytest.approx(bias / num, rel=0.2)
    assert result.slope == pytest.approx(bias, rel=0.2)
    assert abs(result.value) < 0.2 * result.fids[-1]
    assert 0.9 < result.r2 < 1


def test_fid_infinity_keeps_what_is_no_bias() -> None:
    dim = 16
    shifted = Gaussian(np.full(dim, 0.25), 4 * np.eye(dim))  # 16 * 0.25^2 + 16 * (2 - 1)^2
    assert fid_infinity(normal(10_000, dim), shifted, seed=0).value == pytest.approx(17, abs=0.15)


def test_fid_infinity_draws_subsets_of_all_samples() -> None:
    """Sizes as in the paper's code; the largest subset is everything, nothing twice; others are drawn by the seed."""
    features = torch.cat([normal(6000, 4), 5 + normal(6000, 4, seed=1)])  # in no random order
    reference = Gaussian(np.zeros(4), np.eye(4))
    one, again, other = (fid_infinity(features, reference, seed) for seed in (0, 0, 1))
    assert one.sizes == tuple(5000 + i * 500 for i in range(15))
    assert one == again
    whole = features.double().numpy()
    everything = frechet_distance(Gaussian(whole.mean(axis=0), np.cov(whole.T)), reference)
    assert one.fids[-1] == pytest.approx(everything, rel=1e-9)
    assert all(a != b for a, b in zip(one.fids[:-1], other.fids[:-1], strict=True))
    np.testing.assert_allclose(one.fids, everything, rtol=0.05)  # the first 5,000 in order would give far less


def test_fid_infinity_of_too_few_samples() -> None:
    with pytest.raises(ValueError, match="9999 samples, at least 10000"):
        fid_infinity(normal(9999, 2), Gaussian(np.zeros(2), np.eye(2)), seed=0)


# Values that are not finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    good, bad = normal(50, 3), normal(50, 3)
    bad[7, 1] = value
    message = "1 of 50 features are not finite"
    for split_size in (None, 10):
        with pytest.raises(ValueError, match=f"inception_score: {message}"):
            inception_score(bad, split_size)
    for x, y in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match=f"kid: {message}"):
            kid(x, y, 10)
        with pytest.raises(ValueError, match=f"precision and recall: {message}"):
            precision_recall(x, y)
    many = normal(10_000, 2)
    many[0] = value
    with pytest.raises(ValueError, match="fid_infinity: 1 of 10000 features"):
        fid_infinity(many, Gaussian(np.zeros(2), np.eye(2)), seed=0)


def test_scores_that_are_not_finite_are_refused() -> None:
    """Finite features whose kernel overflows, and logits whose smallest probabilities are zero in float64."""
    with pytest.raises(ValueError, match="kid: not finite"), np.errstate(all="ignore"):
        kid(1e18 * normal(20, 3), normal(20, 3), 10)
    with pytest.raises(ValueError, match="inception_score: not finite"):
        inception_score(torch.tensor([[2000.0, 0.0], [2000.0, 0.0]]), 2)
