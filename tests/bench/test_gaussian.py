"""Gaussians in batches against numpy, and the Fréchet distance against closed forms and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from bench.perf.document import OURS
from bench.perf.frechet import SQRTM, TORCH_FIDELITY, frechet_distances
from bench.score import frechet
from bench.score.frechet import Gaussian, RunningGaussian, frechet_distance


def running(features: NDArray[np.floating] | torch.Tensor) -> RunningGaussian:
    one = RunningGaussian(features.shape[1])
    one.update(features)
    return one


def normal(num: int, dim: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((num, dim))


def rotation(dim: int, seed: int = 0) -> NDArray[np.float64]:
    return np.linalg.qr(normal(dim, dim, seed))[0]


def centred(covariance: NDArray[np.float64]) -> Gaussian:
    return Gaussian(np.zeros(len(covariance)), covariance)


# Mean and covariance


@pytest.mark.parametrize("num", [2, 3, 7, 500])
def test_mean_and_unbiased_covariance_are_numpys(num: int) -> None:
    features = normal(num, 7) @ normal(7, 7, 1) + 3
    result = running(features).result()
    assert result.count == num
    assert result.mean.dtype == result.covariance.dtype == np.float64
    np.testing.assert_allclose(result.mean, features.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(result.covariance, np.cov(features, rowvar=False), rtol=1e-11, atol=1e-13)
    assert np.array_equal(result.covariance, result.covariance.T)


def test_a_covariance_by_hand() -> None:
    """Points (0, 0), (2, 0), (1, 3): mean (1, 1), sums of squared deviations 2 and 6, of products 0, divided by 2."""
    result = running(np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]])).result()
    assert result.mean.tolist() == [1, 1]
    np.testing.assert_allclose(result.covariance, [[1, 0], [0, 3]], atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num=st.integers(2, 60), offset=st.sampled_from([0.0, 1e6]))
def test_any_split_into_batches_and_parts_gives_the_whole(data: st.DataObject, num: int, offset: float) -> None:
    features = normal(num, 4, num) + offset
    cuts = sorted(data.draw(st.lists(st.integers(0, num), max_size=8)))
    batches = np.split(features, cuts)
    parts = [RunningGaussian(4) for _ in range(data.draw(st.integers(1, 4)))]
    for batch in batches:
        data.draw(st.sampled_from(parts)).update(batch)
    total = parts[0]
    for part in parts[1:]:
        before = part.count
        total.merge(part)
        assert part.count == before
    result, whole = total.result(), running(features).result()
    assert result.count == num
    np.testing.assert_allclose(result.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(result.covariance, whole.covariance, rtol=1e-7 if offset else 1e-11, atol=1e-9)


def test_chunks_inside_one_update_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = normal(101, 5) + 10
    whole = running(features).result()
    monkeypatch.setattr(frechet, "CHUNK_ROWS", 10)
    in_chunks = running(features).result()
    assert in_chunks.count == 101
    np.testing.assert_allclose(in_chunks.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(in_chunks.covariance, whole.covariance, rtol=1e-11, atol=1e-14)


def test_merging_leaves_the_other_one_alone() -> None:
    one, other = running(normal(20, 3)), running(normal(30, 3, 1) + 5)
    before = other.result()
    one.merge(other)
    one.update(normal(10, 3, 2))
    after = other.result()
    assert np.array_equal(before.mean, after.mean)
    assert np.array_equal(before.covariance, after.covariance)
    assert one.result().count == 60


def test_merging_into_and_with_an_empty_one_changes_nothing() -> None:
    full, empty = running(normal(20, 3)), RunningGaussian(3)
    expected = full.result()
    full.merge(empty)
    full.update(np.empty((0, 3)))
    empty.merge(full)
    for result in (full.result(), empty.result()):
        assert result.count == 20
        np.testing.assert_allclose(result.covariance, expected.covariance, rtol=1e-14)
        np.testing.assert_allclose(result.mean, expected.mean, rtol=1e-14)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_mean_far_above_the_deviation_costs_no_digits(batch: int) -> None:
    """Sums of squares would leave nothing of a variance of 1 beside a mean of 1e8, whose square has 16 digits."""
    steps = np.random.default_rng(0).integers(-3, 4, (1000, 2)).astype(np.float64)
    one = RunningGaussian(2)
    for start in range(0, 1000, batch):
        one.update(steps[start : start + batch] + 1e8)
    np.testing.assert_allclose(one.result().covariance, np.cov(steps, rowvar=False), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_features_of_any_type_are_summed_in_float64(dtype: torch.dtype) -> None:
    features = (torch.from_numpy(normal(300, 6)) + 20).to(dtype)
    result, expected = running(features.requires_grad_()).result(), features.detach().double().numpy()
    np.testing.assert_allclose(result.mean, expected.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(result.covariance, np.cov(expected, rowvar=False), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_numpy_features_of_less_precision_are_summed_in_float64(dtype: type) -> None:
    features = (normal(300, 6) + 20).astype(dtype)
    expected = np.cov(features.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(running(features).result().covariance, expected, rtol=1e-11, atol=1e-13)


def test_features_are_not_changed() -> None:
    features = normal(50, 3)
    before = features.copy()
    running(features).result()
    assert np.array_equal(features, before)


def test_features_that_do_not_fit_are_refused_and_not_added() -> None:
    one = running(normal(20, 3))
    before = one.result()
    bad = normal(10, 3)
    bad[2, 1], bad[5, 0], bad[5, 1] = np.nan, np.inf, -np.inf
    for features, message in (
        (normal(5, 4), r"shape \(5, 4\), expected \(N, 3\)"),
        (normal(5, 3)[0], r"shape \(3,\), expected \(N, 3\)"),
        (bad, "2 of 10 have values that are not finite"),
        (torch.full((4, 3), 1e6).half(), "4 of 4 have values that are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            one.update(features)
    with pytest.raises(ValueError, match="size 4, expected 3"):
        one.merge(running(normal(5, 4)))
    assert one.count == 20
    assert np.array_equal(one.result().covariance, before.covariance)


@pytest.mark.parametrize("num", [0, 1])
def test_a_covariance_needs_two_features(num: int) -> None:
    with pytest.raises(ValueError, match=f"{num}, a covariance needs at least 2"):
        running(normal(num, 3)).result()


# What a Gaussian can be


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (np.zeros((2, 1)), np.eye(2), r"mean: shape \(2, 1\), expected \(D,\)"),
        (np.zeros(0), np.zeros((0, 0)), r"mean: shape \(0,\)"),
        (np.zeros(2), np.eye(3), r"covariance: shape \(3, 3\), expected \(2, 2\)"),
        (np.zeros(4), np.ones(16), r"covariance: shape \(16,\), expected \(4, 4\)"),
        (np.array([0, np.nan]), np.eye(2), "mean: 1 values are not finite"),
        (np.zeros(2), np.diag([1, np.inf]), "covariance: 1 values are not finite"),
        (np.zeros(2), np.array([[1, 0.5], [0.4, 1]]), "not symmetric, entries differ by up to 0.1"),
        (np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalue -1, beyond rounding"),
        (np.zeros(2), np.diag([1, -1e-3]), "negative eigenvalue -0.001, beyond rounding"),
        (np.zeros(2), np.array([[0.0, 1e-3], [1e-3, 0.0]]), "negative eigenvalue -0.001, beyond rounding"),
        (np.zeros(2), -np.eye(2), "negative eigenvalue -1, beyond rounding"),
    ],
)
def test_what_is_no_gaussian_is_refused(
    mean: NDArray[np.float64], covariance: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Gaussian(mean, covariance)


@settings(max_examples=40, deadline=None)
@given(dim=st.integers(1, 40), rank=st.integers(1, 40), seed=st.integers(0, 2**31), scale=st.sampled_from([1e-12, 1e9]))
def test_singular_covariances_that_were_stored_as_float32_are_accepted(
    dim: int, rank: int, seed: int, scale: float
) -> None:
    factor = normal(dim, min(rank, dim), seed) * np.geomspace(1, 1e-3, min(rank, dim))
    stored = (scale * factor @ factor.T).astype(np.float32).astype(np.float64)
    assert np.array_equal(Gaussian(np.zeros(dim), stored).covariance, stored)


def test_a_gaussian_is_a_copy_that_cannot_be_written_to() -> None:
    mean, covariance = np.zeros(2), np.eye(2)
    one = Gaussian(mean, covariance)
    mean[0], covariance[0, 0] = 5, 5
    assert one.mean[0] == 0
    assert one.covariance[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        one.covariance[0, 0] = 5
    assert one.dim == 2


# Closed forms of the distance


@settings(max_examples=60, deadline=None)
@given(
    means=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    deviations=st.tuples(st.floats(0.01, 30), st.floats(0.01, 30)),
)
def test_in_one_dimension(means: tuple[float, float], deviations: tuple[float, float]) -> None:
    """(m_a - m_b)^2 + (s_a - s_b)^2."""
    one, other = (Gaussian(np.array([m]), np.array([[s**2]])) for m, s in zip(means, deviations, strict=True))
    expected = (means[0] - means[1]) ** 2 + (deviations[0] - deviations[1]) ** 2
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), dim=st.integers(1, 30))
def test_commuting_covariances(seed: int, dim: int) -> None:
    """On common axes: the sum of (s_a - s_b)^2 over them, whatever the axes."""
    random = np.random.default_rng(seed)
    a, b = random.uniform(0.1, 3, (2, dim))
    shift = random.standard_normal(dim)
    axes = rotation(dim, seed)
    one = Gaussian(np.zeros(dim), (axes * a**2) @ axes.T)
    other = Gaussian(shift, (axes * b**2) @ axes.T)
    expected = (shift**2).sum() + ((a - b) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-10)


def test_covariances_that_do_not_commute() -> None:
    """In two dimensions tr (AB)^(1/2) = (tr AB + 2 (det A det B)^(1/2))^(1/2), by Cayley and Hamilton."""
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4.0]])
    # tr AB = 2 - 0.5 - 0.5 + 12 = 13, det A = 5, det B = 3.75
    expected = 5 + 5 - 2 * np.sqrt(13 + 2 * np.sqrt(18.75))
    assert frechet_distance(centred(a), centred(b)) == pytest.approx(expected, rel=1e-13)


def test_scaling_the_features_scales_the_distance_by_the_square() -> None:
    dim, scale = 20, 2.5
    covariance = np.cov(normal(200, dim), rowvar=False)
    expected = (scale - 1) ** 2 * np.trace(covariance)
    assert frechet_distance(centred(covariance), centred(scale**2 * covariance)) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(centred(np.eye(dim)), centred(9 * np.eye(dim))) == pytest.approx(4 * dim, rel=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_turning_and_moving_both_changes_nothing(seed: int) -> None:
    dim = 12
    a, b = normal(40, dim, seed) @ normal(dim, dim, seed + 1), normal(30, dim, seed + 2) + 1
    turned = [features @ rotation(dim, seed + 3) + 7 for features in (a, b)]
    expected = frechet_distance(running(a).result(), running(b).result())
    ours = frechet_distance(running(turned[0]).result(), running(turned[1]).result())
    assert ours == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), num=st.integers(2, 60))
def test_both_orders_give_the_same_and_itself_gives_nothing(seed: int, num: int) -> None:
    a, b = running(normal(num, 25, seed)).result(), running(2 * normal(40, 25, seed + 1)).result()
    distance = frechet_distance(a, b)
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-6)
    assert 0 <= frechet_distance(a, a) <= 1e-6 * np.trace(a.covariance)


def test_subspaces_at_right_angles() -> None:
    """Nothing is shared: the distance is the sum of both traces. 10 and 15 of 100 dimensions."""
    axes = rotation(100)
    a, b = np.zeros(100), np.zeros(100)
    a[:10], b[-15:] = np.arange(1, 11), 0.5
    one, other = centred((axes * a) @ axes.T), centred((axes * b) @ axes.T)
    assert frechet_distance(one, other) == pytest.approx(55 + 7.5, rel=1e-6)
    assert frechet_distance(other, one) == pytest.approx(62.5, rel=1e-6)


def test_a_singular_covariance_against_the_identity() -> None:
    """tr A + D - 2 tr A^(1/2), with A of rank 5 in 120 dimensions."""
    axes = rotation(120)
    deviations = np.zeros(120)
    deviations[:5] = [1, 2, 3, 4, 5]
    one, other = centred((axes * deviations**2) @ axes.T), centred(np.eye(120))
    expected = 55 + 120 - 2 * 15
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-7)


def test_nearly_singular_covariances() -> None:
    """Variances from 1 down to 1e-14 on common axes."""
    axes = rotation(60)
    a, b = np.geomspace(1, 1e-7, 60), np.geomspace(1, 1e-6, 60)
    one, other = centred((axes * a**2) @ axes.T), centred((axes * b**2) @ axes.T)
    expected = ((a - b) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, abs=1e-7)
    assert frechet_distance(other, one) == pytest.approx(expected, abs=1e-7)


def test_points_without_spread() -> None:
    point = Gaussian(np.array([3.0, 4.0]), np.zeros((2, 2)))
    assert frechet_distance(point, centred(np.zeros((2, 2)))) == 25
    assert frechet_distance(point, centred(np.diag([4.0, 9.0]))) == 25 + 13
    assert frechet_distance(centred(np.diag([4.0, 9.0])), point) == 25 + 13


# The distance against other implementations


@pytest.mark.parametrize(("dim", "num"), [(8, 100), (64, 1000), (128, 400)])
def test_it_is_torch_fidelitys_on_the_same_features(dim: int, num: int) -> None:
    random = np.random.default_rng(dim)
    spectrum = np.arange(1, dim + 1) ** -0.5
    a = random.standard_normal((num, dim)) * spectrum @ rotation(dim)
    b = random.standard_normal((num, dim)) * 1.2 * spectrum**1.1 @ rotation(dim, 1) + 0.05
    theirs = [fid_features_to_statistics(torch.from_numpy(features)) for features in (a, b)]
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    ours = frechet_distance(running(a).result(), running(b).result())
    assert ours == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dim", [2, 5, 30])
def test_it_is_that_of_the_matrix_root(dim: int) -> None:
    a, b = np.cov(normal(10 * dim, dim), rowvar=False), 2 * np.cov(normal(12 * dim, dim, 1), rowvar=False)
    mean = normal(1, dim, 2)[0]
    root = np.asarray(scipy.linalg.sqrtm(a @ b))
    expected = mean @ mean + np.trace(a) + np.trace(b) - 2 * np.trace(root).real
    assert frechet_distance(Gaussian(mean, a), centred(b)) == pytest.approx(expected, rel=1e-9)


def test_gaussians_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="different sizes: 2 and 3"):
        frechet_distance(centred(np.eye(2)), centred(np.eye(3)))
    far, wide = Gaussian(np.full(3, 1e200), np.eye(3)), centred(1e200 * np.eye(3))
    for one, other in ((far, centred(np.eye(3))), (wide, wide)):
        with pytest.raises(ValueError, match="too large"):
            frechet_distance(one, other)


@pytest.mark.parametrize("num_samples", [400, 30])
def test_the_measurement_of_the_cost_compares_equal_values(num_samples: int) -> None:
    measure = frechet_distances(dim=40, num_samples=num_samples)
    assert {*measure.turn(0)} == {OURS, TORCH_FIDELITY, SQRTM}
    for other in (TORCH_FIDELITY, SQRTM):
        assert measure.facts[other]["difference"] == pytest.approx(0, abs=1e-6)
