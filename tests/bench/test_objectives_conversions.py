"""Conversions between noise, x0, velocity and score: identities at any level, derivatives by differences."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.objectives.conversions import (
    Level,
    Prediction,
    error_factor,
    noised,
    rows,
    score,
    target,
    x0_and_noise,
)
from bench.objectives.process import (
    DiscreteProcess,
    LinearPath,
    NoiseLevels,
    TrigonometricPath,
    alphas_bar,
    cosine_betas,
)

PREDICTIONS = get_args(Prediction)
# A time inside each process, from a fraction.
LEVELS = {
    "linear": lambda u: LinearPath().level(u),
    "gvp": lambda u: TrigonometricPath().level(u),
    "noise levels": lambda u: NoiseLevels(0.002, 80, 7).level(0.002 + 80 * u),
    "discrete": lambda u: DiscreteProcess(alphas_bar(cosine_betas(50))).level(float(round(49 * u))),
}
fractions = st.floats(0.02, 0.98)
values = st.floats(-3, 3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", LEVELS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(u=fractions, x0=values, noise=values)
def test_what_a_network_should_give_leads_back(
    kind: str, prediction: Prediction, u: float, x0: float, noise: float
) -> None:
    level = LEVELS[kind](u)
    data, drawn = torch.tensor([x0], dtype=torch.float64), torch.tensor([noise], dtype=torch.float64)
    x = noised(data, drawn, level)
    found = x0_and_noise(prediction, target(prediction, data, drawn, level), x, level)
    size = max(1.0, 1 / level.alpha, 1 / level.sigma) * (1 + abs(x.item()))
    assert found[0].item() == pytest.approx(x0, abs=1e-13 * size**2)
    assert found[1].item() == pytest.approx(noise, abs=1e-13 * size**2)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("space", PREDICTIONS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(u=fractions, x0=values, noise=values, wrong=st.floats(-2, 2))
def test_an_error_in_one_space_is_that_many_in_another(
    kind: str, prediction: Prediction, space: Prediction, u: float, x0: float, noise: float, wrong: float
) -> None:
    """By converting a wrong prediction, which `error_factor` does not do."""
    level = LEVELS[kind](u)
    data, drawn = torch.tensor([x0], dtype=torch.float64), torch.tensor([noise], dtype=torch.float64)
    x = noised(data, drawn, level)
    predicted = target(prediction, data, drawn, level) + wrong
    as_space = target(space, *x0_and_noise(prediction, predicted, x, level), level)
    error = (as_space - target(space, data, drawn, level)).abs()
    tensors = Level(*(torch.tensor([value], dtype=torch.float64) for value in level))
    factor = error_factor(prediction, space, tensors)
    assert error.item() == pytest.approx(abs(factor.item() * wrong), rel=1e-6, abs=1e-8 * max(1, factor.item()))


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_derivatives_of_paths(path: LinearPath, t: float) -> None:
    step, level = 1e-6, path.level(t)
    assert level.d_alpha == pytest.approx((path.alpha(t + step) - path.alpha(t - step)) / (2 * step), rel=1e-8)
    assert level.d_sigma == pytest.approx((path.sigma(t + step) - path.sigma(t - step)) / (2 * step), rel=1e-8)
    motion = path.motion(t)
    assert (motion.of_x0, motion.of_noise) == (level.d_alpha, level.d_sigma)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()])
def test_paths_take_tensors_as_they_take_floats(path: LinearPath) -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    level, shifted = path.level(t, torch), path.shifted(t, 3.0, torch)
    for k, time in enumerate(t.tolist()):
        one = path.level(time)
        assert (level.alpha[k].item(), level.sigma[k].item()) == pytest.approx((one.alpha, one.sigma), abs=1e-15)
        assert shifted[k].item() == pytest.approx(path.shifted(time, 3.0), abs=1e-15)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("u", [0.1, 0.6])
def test_the_score_is_the_gradient_of_the_log_density(kind: str, u: float) -> None:
    """Of data N(0.4, 0.3^2), at several x, by differences of the log of N(alpha 0.4, alpha^2 0.3^2 + sigma^2)."""
    level = LEVELS[kind](u)
    mean, variance = level.alpha * 0.4, (level.alpha * 0.3) ** 2 + level.sigma**2
    for x in (mean - 1.5 * math.sqrt(variance), mean, mean + math.sqrt(variance)):
        step = 1e-4 * math.sqrt(variance)
        log_density = [-((x + side * step - mean) ** 2) / (2 * variance) for side in (1, -1)]
        expected_noise = torch.tensor(level.sigma * (x - mean) / variance)
        found = score(expected_noise, level.sigma).item()
        assert found == pytest.approx((log_density[0] - log_density[1]) / (2 * step), rel=1e-6, abs=1e-7)


def test_rows_broadcast_against_any_number_of_spatial_axes() -> None:
    for shape in ((2, 3, 5), (2, 3, 5, 5), (2, 3, 4, 5, 5)):
        x = torch.ones(shape)
        assert (rows(torch.tensor([2.0, 3.0]), x) * x).flatten(1).mean(1).tolist() == [2.0, 3.0]
