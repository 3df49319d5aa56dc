"""The forward process against the Markov chain, its posterior against Bayes' rule on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_process import ALPHAS_BAR, BETAS, PROCESS, at, posterior

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize("t", [0, 1, 37, 999])
def test_q_sample_is_the_markov_chain(t: int) -> None:
    """Noise added step by step (DDPM Eq. 2) has the mean and variance of the shortcut (Eq. 4)."""
    mean, variance = 1.0, 0.0
    for beta in BETAS[: t + 1]:
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    zero, steps = at(0.0, t)
    one = torch.ones_like(zero)
    assert PROCESS.q_sample(one, steps, zero).item() == pytest.approx(mean, rel=1e-6)
    assert PROCESS.q_sample(zero, steps, one).item() ** 2 == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize("t", [0, 200, 999])
def test_q_sample_statistics(t: int) -> None:
    count = 200_000
    noise = torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(t))
    x0 = torch.full_like(noise, 0.7)
    xt = PROCESS.q_sample(x0, torch.full((count,), t), noise).double()
    variance = 1 - ALPHAS_BAR[t]
    assert xt.mean().item() == pytest.approx(0.7 * math.sqrt(ALPHAS_BAR[t]), abs=5 * math.sqrt(variance / count))
    assert xt.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))


def test_every_sample_has_its_own_step() -> None:
    x0, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    t = torch.tensor([999, 0, 500])
    together = PROCESS.q_sample(x0, t, noise)
    for i in range(3):
        expected = math.sqrt(ALPHAS_BAR[t[i]]) * x0[i] + math.sqrt(1 - ALPHAS_BAR[t[i]]) * noise[i]
        assert torch.allclose(together[i], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(t=st.integers(0, 999), x0=st.floats(-3, 3, width=32), noise=st.floats(-4, 4, width=32))
def test_predict_x0_inverts_q_sample(t: int, x0: float, noise: float) -> None:
    image, steps = at(x0, t)
    drawn = torch.full_like(image, noise)
    back = PROCESS.predict_x0(PROCESS.q_sample(image, steps, drawn), steps, drawn)
    # float32 rounding of x_t, magnified by 1 / sqrt(alpha_bar).
    assert back.item() == pytest.approx(x0, abs=1e-6 * (1 + abs(x0) + abs(noise)) / math.sqrt(ALPHAS_BAR[t]))


@pytest.mark.parametrize("t", [1, 2, 40, 500, 999])
@pytest.mark.parametrize(("x0", "xt"), [(0.5, -0.3), (-1.0, 2.0)])
def test_posterior_is_bayes_rule(t: int, x0: float, xt: float) -> None:
    """The product q(x_t | x_{t-1}) q(x_{t-1} | x_0) integrated on a grid."""
    previous = np.linspace(-9, 9, 400_001)
    log_density = -((xt - math.sqrt(1 - BETAS[t]) * previous) ** 2) / (2 * BETAS[t])
    log_density -= (previous - math.sqrt(ALPHAS_BAR[t - 1]) * x0) ** 2 / (2 * (1 - ALPHAS_BAR[t - 1]))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = float((weights * previous).sum())
    variance = float((weights * (previous - mean) ** 2).sum())
    image, steps = at(x0, t)
    assert PROCESS.posterior_mean(image, torch.full_like(image, xt), steps).item() == pytest.approx(mean, abs=2e-6)
    assert PROCESS.posterior_log_variance[t].exp().item() == pytest.approx(variance, rel=1e-5)
    assert posterior(t, x0, xt) == pytest.approx((mean, variance), rel=1e-6)


def test_posterior_at_step_zero_is_x0() -> None:
    image, steps = at(0.37, 0)
    assert PROCESS.posterior_mean(image, torch.full_like(image, -5.0), steps).item() == pytest.approx(0.37, rel=1e-6)


@pytest.mark.parametrize("t", [0, 1, 300, 999])
def test_learned_variance_runs_from_posterior_variance_to_beta(t: int) -> None:
    step = max(t, 1)  # the variance of step 0, which is 0, is replaced by that of step 1
    low = math.log(BETAS[step] * (1 - ALPHAS_BAR[step - 1]) / (1 - ALPHAS_BAR[step]))
    high = math.log(BETAS[t])
    for v, expected in [(-1.0, low), (1.0, high), (0.0, (low + high) / 2), (0.5, 0.25 * low + 0.75 * high)]:
        assert PROCESS.log_variance(*at(v, t)).item() == pytest.approx(expected, rel=1e-5)
