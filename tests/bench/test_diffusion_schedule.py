"""The noise schedule against scalar loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear_process import ALPHAS_BAR, BETAS, PROCESS, STEPS

from bench.objectives.diffusion import GaussianDiffusion
from bench.objectives.process import linear_betas


def test_betas_run_from_1e_4_to_002() -> None:
    betas = linear_betas(STEPS)
    assert betas == pytest.approx(BETAS, rel=1e-12)
    assert (betas[0], betas[-1]) == (1e-4, 0.02)


@pytest.mark.parametrize("steps", [100, 250, 4000])
def test_other_lengths_keep_the_total_noise(steps: int) -> None:
    """The sum of betas, so about the same alpha_bar at the end."""
    betas = linear_betas(steps)
    assert len(betas) == steps
    assert sum(betas) == pytest.approx(sum(BETAS), rel=1e-9)
    assert betas[-1] == pytest.approx(0.02 * 1000 / steps)


def test_the_shortest_schedule_is_finite() -> None:
    process = GaussianDiffusion(linear_betas(21))
    for name in ("alphas_bar", "x0_from_xt", "x0_from_noise", "posterior_log_variance", "log_betas"):
        assert getattr(process, name).isfinite().all(), name


def test_tables_are_the_closed_forms() -> None:
    previous = [1.0, *ALPHAS_BAR[:-1]]
    rows = list(zip(BETAS, ALPHAS_BAR, previous, strict=True))
    variance = [b * (1 - p) / (1 - a) for b, a, p in rows]
    expected = {
        "alphas_bar": ALPHAS_BAR,
        "alphas_bar_previous": previous,
        "sqrt_alphas_bar": [math.sqrt(a) for a in ALPHAS_BAR],
        "sqrt_one_minus_alphas_bar": [math.sqrt(1 - a) for a in ALPHAS_BAR],
        "x0_from_xt": [1 / math.sqrt(a) for a in ALPHAS_BAR],
        "x0_from_noise": [math.sqrt((1 - a) / a) for a in ALPHAS_BAR],
        "posterior_mean_x0": [b * math.sqrt(p) / (1 - a) for b, a, p in rows],
        "posterior_mean_xt": [(1 - p) * math.sqrt(1 - b) / (1 - a) for b, a, p in rows],
        "posterior_log_variance": [math.log(v) for v in [variance[1], *variance[1:]]],
        "log_betas": [math.log(b) for b in BETAS],
    }
    for name, values in expected.items():
        table = getattr(PROCESS, name)
        assert table.dtype == torch.float32, name
        np.testing.assert_allclose(table.double().numpy(), values, rtol=2e-7, atol=1e-12, err_msg=name)
    assert PROCESS.timesteps.tolist() == list(range(STEPS))


def test_the_last_step_is_almost_pure_noise() -> None:
    assert PROCESS.alphas_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-3)
