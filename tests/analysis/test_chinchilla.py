from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from analysis.errors import ResultsError
from analysis.laws.chinchilla import envelope, isoflop, optimum
from analysis.laws.fit import fit
from analysis.laws.observations import observations

# Hoffmann et al. 2022 (arXiv:2203.15556), eq. 10.
E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28


def loss_of(params, tokens, alpha=ALPHA, beta=BETA):
    return E + A * params**-alpha + B * tokens**-beta


def fitted():
    params, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    return fit(observations(loss_of(params, tokens), params=params, images=tokens), "chinchilla")


def isoflops(alpha=ALPHA, beta=BETA, shift=1.0, width=4.0):
    """Rows around the best size of each budget, off by `shift`, from 1 / width to width times it."""
    ratio = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    budgets = np.geomspace(1e18, 1e22, 5)
    best = ratio * (budgets / 6) ** (beta / (alpha + beta))
    params = best[:, None] * shift * np.geomspace(1 / width, width, 7)
    compute = np.broadcast_to(budgets[:, None], params.shape)
    return params.ravel(), compute.ravel(), loss_of(params, compute / 6 / params, alpha, beta).ravel(), budgets, best


def test_the_best_size_is_the_lowest_of_its_budget():
    law = fitted()
    for budget in (1e19, 5.76e23):

        def loss(log_params, budget=budget):
            return loss_of(np.exp(log_params), budget / 6 / np.exp(log_params))

        lowest: Any = minimize_scalar(
            loss, bounds=(np.log(1e6), np.log(1e14)), method="bounded", options={"xatol": 1e-10}
        )
        params, tokens, score = optimum(law, budget)
        assert np.log(params) == pytest.approx(lowest.x, abs=1e-4)
        assert 6 * params * tokens == pytest.approx(budget)
        assert score == pytest.approx(lowest.fun, rel=1e-9)


def test_published_parameters_give_the_published_exponents():
    """a = 0.46 and b = 0.54 of approach 3 in the paper's Table 2 come of exponents it prints rounded: 0.45 and 0.55."""
    law = fitted()
    small, large = (np.array(optimum(law, budget)[:2]) for budget in (1e20, 1e21))
    assert np.log10(large / small) == pytest.approx((BETA / (ALPHA + BETA), ALPHA / (ALPHA + BETA)))
    assert np.log10(large / small) == pytest.approx((0.46, 0.54), abs=0.015)


def test_compute_of_images_counts_tokens():
    params, images, score = optimum(fitted(), 1e21, 6 * 256)
    again, tokens, _ = optimum(fitted(), 1e21 / 256)
    assert (params, images) == pytest.approx((again, tokens))
    assert score == pytest.approx(loss_of(params, images))


def test_isoflop_is_right_where_the_surface_is_symmetric():
    params, compute, score, _, best = isoflops(0.3, 0.3)
    found = isoflop(params, compute, score)
    assert found.params == pytest.approx(best, rel=1e-9)
    assert found.exponent == pytest.approx(0.5)
    assert found(1e20) == pytest.approx(best[2])


def test_isoflop_is_biased_where_it_is_not():
    """As its docstring warns: noiseless, and wrong; the more so for wider windows."""
    narrow, wide = (isoflop(*isoflops(width=width)[:3]).params for width in (1.2, 16))
    best = isoflops()[4]
    assert narrow == pytest.approx(best, rel=0.01)
    assert np.all(np.abs(wide / best - 1) > 0.05)


def test_budgets_without_a_lowest_point_are_left_out():
    params, compute, score, budgets, _ = isoflops()
    one_sided = np.concatenate([np.ones(28, dtype=bool), params[28:] > params[31] * 1.5])
    found = isoflop(params[one_sided], compute[one_sided], score[one_sided])
    assert found.compute == pytest.approx(budgets[:4])
    assert found.left_out == ("budget 1e+22: no lowest point within its sizes",)
    with pytest.raises(ResultsError, match="approach 2: 2 budgets with a best size; needed: 3"):
        isoflop(params[:14], compute[:14], score[:14])


def test_envelope_follows_curves_that_cross():
    """Curves y = size^-1/2 + size / compute: the best size is compute^2/3 up to the spacing of sizes."""
    sizes = np.geomspace(1, 1000, 61)
    compute = np.geomspace(1, 1e5, 400)
    params = np.repeat(sizes, len(compute))
    spent = np.tile(compute, len(sizes))
    found = envelope(params, spent, params**-0.5 + params / spent)
    assert found.exponent == pytest.approx(2 / 3, abs=0.01)
    # d/ds (s^-1/2 + s / C) = 0 at s = (C / 2)^(2/3).
    assert found(1000) == pytest.approx(500 ** (2 / 3), rel=0.05)
    assert set(found.params) <= set(sizes[1:-1])
    assert any("the best size is at the edge" in why for why in found.left_out)


@pytest.mark.parametrize(
    ("approach", "params", "compute", "score", "message"),
    [
        (envelope, [1, 2, 3], [1, 1, 1], [3, 2, 1], "approach 1: 3 model sizes; needed: at least 4"),
        (envelope, [1, 2, 3, 4, 4], [1, 1, 1, 1, 1], [3, 2, 1, 1, 1], "the size 4 has two scores at one compute"),
        (isoflop, [1, 2], [1, 1], [np.nan, 1], "row 0: score is nan"),
        (isoflop, [1, 2], [1, 1], [1], "2 params, 2 compute and 1 scores"),
        (isoflop, [1, 2, 1, 2], [1, 1, 2, 2], [4, 3, 2, 1], "budget 1: 2 sizes; needed: at least 3"),
    ],
)
def test_what_says_nothing_is_refused(approach, params, compute, score, message):
    with pytest.raises(ResultsError, match=message):
        approach(params, compute, score)


def test_approach_3_needs_its_form():
    law = fit(observations([5, 3, 2, 1.5], compute=[1, 2, 3, 4]), "power")
    with pytest.raises(ResultsError, match="needs a fit of the form chinchilla; this one is power"):
        optimum(law, 1e20)
