"""Kullback-Leibler divergence and the likelihood of 8-bit values against numerical integration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_process import integral, normal
from scipy.integrate import quad

from bench.objectives.diffusion import discretized_gaussian_log_likelihood, gaussian_kl


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    mean1=st.floats(-2, 2), mean2=st.floats(-2, 2), log_variance1=st.floats(-4, 2), log_variance2=st.floats(-4, 2)
)  # fmt: skip
def test_kl_is_the_integral(mean1: float, mean2: float, log_variance1: float, log_variance2: float) -> None:
    variance1, variance2 = math.exp(log_variance1), math.exp(log_variance2)

    def integrand(x: float) -> float:
        log_ratio = (
            (log_variance2 - log_variance1) / 2
            + (x - mean2) ** 2 / (2 * variance2)
            - (x - mean1) ** 2 / (2 * variance1)
        )
        return normal(x, mean1, variance1) * log_ratio

    expected = integral(integrand, mean1, math.sqrt(variance1))
    values = [torch.tensor(v, dtype=torch.float64) for v in (mean1, log_variance1, mean2, log_variance2)]
    assert gaussian_kl(*values).item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


BINS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("mean", [-1.5, -1.0, -0.3, 0.0, 0.501, 1.0, 3.0])
@pytest.mark.parametrize("std", [0.003, 0.02, 0.4, 5.0])
def test_bins_hold_all_of_the_mass(mean: float, std: float) -> None:
    log_variance = torch.full_like(BINS, 2 * math.log(std))
    mass = discretized_gaussian_log_likelihood(BINS, torch.full_like(BINS, mean), log_variance).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
@pytest.mark.parametrize(("mean", "std"), [(-0.95, 0.05), (0.0, 0.3), (0.97, 0.01), (-0.22, 0.02), (2.0, 1.0)])
def test_a_bins_likelihood_is_its_integral(value: int, mean: float, std: float) -> None:
    """8-bit value v covers (v +- 0.5) / 127.5 - 1; 0 and 255 reach to infinity."""
    low = mean - 12 * std if value == 0 else (value - 0.5) / 127.5 - 1
    high = mean + 12 * std if value == 255 else (value + 0.5) / 127.5 - 1
    mass = quad(lambda x: normal(x, mean, std**2), low, high, epsabs=1e-16, limit=400)[0] if low < high else 0.0
    got = discretized_gaussian_log_likelihood(
        BINS[value], torch.tensor(mean, dtype=torch.float64), torch.tensor(2 * math.log(std), dtype=torch.float64)
    )
    assert got.exp().item() == pytest.approx(mass, rel=1e-6, abs=2e-12)


def test_a_value_far_out_of_reach_has_a_finite_likelihood() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    log_likelihood = discretized_gaussian_log_likelihood(x, torch.tensor([9.0, 9.0, -9.0]), torch.full((3,), -9.0))
    log_likelihood.sum().backward()
    assert log_likelihood.tolist() == pytest.approx([math.log(1e-12)] * 3)
    assert x.grad is not None
    assert x.grad.isfinite().all()
