"""Averages by a power function of time: the profile, its width, and others made of snapshots, by sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from profiles import profile

from bench.averages.power import WIDEST, check_std, coefficients, exponent

STDS = st.floats(0.003, 0.288)


@settings(max_examples=50, deadline=None)
@given(STDS)
def test_the_width_of_the_profile_is_the_std(std: float) -> None:
    """By quadrature of t^gamma on 0 ... 1."""
    t = (np.arange(20_000) + 0.5) / 20_000
    density = t ** exponent(std)
    mean = (density * t).sum() / density.sum()
    assert math.sqrt((density * (t - mean) ** 2).sum() / density.sum()) == pytest.approx(std, rel=1e-4)


def test_the_exponents_of_the_paper() -> None:
    """gamma 6.94 and 16.97 are the widths 0.10 and 0.05 (EDM2, Sec. 3.1); the widest is gamma 0."""
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(WIDEST) == pytest.approx(0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(STDS, st.integers(1, 300))
def test_the_recursion_sums_to_the_power_function(std: float, step: int) -> None:
    weights, gamma = profile(std, step), exponent(std)
    exact = [(k / step) ** (gamma + 1) - ((k - 1) / step) ** (gamma + 1) for k in range(1, step + 1)]
    np.testing.assert_allclose(weights, exact, rtol=1e-6, atol=1e-12)
    assert weights.sum() == pytest.approx(1)


def made(snapshots: list[tuple[float, int]], std: float, step: int) -> NDArray[np.float64]:
    """The profile that is made of snapshots, by the weight of every step."""
    numbers = coefficients(tuple(snapshots), std, step)
    return np.sum(
        [n * np.pad(profile(s, at), (0, step - at)) for n, (s, at) in zip(numbers, snapshots, strict=True)], 0
    )


def every(count: int, step: int, stds: tuple[float, ...] = (0.05, 0.1)) -> list[tuple[float, int]]:
    return [(std, at) for at in range(step // count, step + 1, step // count) for std in stds]


@pytest.mark.parametrize("std", [0.05, 0.1])
def test_a_kept_width_is_made_of_itself(std: float) -> None:
    np.testing.assert_allclose(made(every(32, 640), std, 640), profile(std, 640), atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(STDS)
def test_with_a_snapshot_at_every_step_any_width_is_exact(std: float) -> None:
    np.testing.assert_allclose(made(every(12, 12), std, 12), profile(std, 12), atol=1e-12)


@pytest.mark.parametrize(
    ("count", "std", "error"), [(32, 0.07, 1e-3), (32, 0.15, 3e-3), (32, 0.2, 8e-3), (64, 0.2, 2e-3)]
)
def test_few_snapshots_make_other_widths_nearly(count: int, std: float, error: float) -> None:
    wanted, found = profile(std, 640), made(every(count, 640), std, 640)
    assert error / 4 < np.abs(found - wanted).sum() < error
    assert found.sum() == pytest.approx(1, abs=1e-12)  # weights that do not change stay as they are


def test_more_steps_than_cells_of_time_change_little() -> None:
    """The fit of long trainings merges steps: the numbers are those of the exact fit, step by step, but for 1e-4."""
    snapshots, std, step = every(8, 20_000), 0.12, 20_000
    columns = np.stack([np.pad(profile(s, at), (0, step - at)) for s, at in snapshots], 1)
    last = columns[:, -1:]
    exact = np.linalg.lstsq(columns[:, :-1] - last, profile(std, step) - last[:, 0], rcond=None)[0]
    np.testing.assert_allclose(coefficients(tuple(snapshots), std, step)[:-1], exact, atol=1e-4)


@pytest.mark.parametrize("std", [0.0001, 0.01, 0.27])
def test_widths_that_cannot_be_made_are_refused_with_those_that_can(std: float) -> None:
    snapshots = tuple(every(16, 1600))
    with pytest.raises(ValueError, match=rf"std={std}: made of the 32 snapshots") as refused:
        check_std(snapshots, std, 1600)
    low, high = map(float, str(refused.value).split("accepted there: ")[1].split(";")[0].split(" to "))
    assert std < low < 0.05 or high < std
    check_std(snapshots, low, 1600)
    check_std(snapshots, high, 1600)
    for outside in (low / 1.3, min(high * 1.2, 0.288)):
        with pytest.raises(ValueError, match=f"{low:g} to {high:g}"):
            check_std(snapshots, outside, 1600)
    wanted = profile(low, 1600)
    assert np.linalg.norm(made(list(snapshots), low, 1600) - wanted) < 0.05 * np.linalg.norm(wanted)


def test_kept_widths_are_accepted_wherever_they_are() -> None:
    for stds in ((0.001, 0.28), (0.1, 0.1001)):
        snapshots = tuple(every(4, 4000, stds))
        for std in stds:
            check_std(snapshots, std, 4000)
