import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from analysis.errors import ResultsError
from analysis.laws.fit import fit, problem_of
from analysis.laws.forms import FORMS
from analysis.laws.observations import observations
from analysis.laws.observed import collected_observations, published_observations
from analysis.laws.patches import laws_by_patch
from analysis.laws.solver import OBJECTIVES
from analysis.results.tables import load

COMPUTE = np.geomspace(0.1, 1e3, 12)
PARAMS, IMAGES = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
TOKENS = np.tile([16.0, 64.0, 256.0], 4)
VARIABLES = {"compute": COMPUTE, "tokens": TOKENS}
TRAINING = {
    name: axis.ravel()
    for name, axis in zip(
        ("compute", "tokens", "images"),
        np.meshgrid(np.geomspace(0.1, 100, 4), [16.0, 64.0, 256.0], np.geomspace(1e6, 1e9, 4)),
        strict=True,
    )
}
ALL_VARIABLES = {
    "chinchilla": {"params": PARAMS, "images": IMAGES},
    "steps": TRAINING,
    "product": TRAINING,
    "sum": TRAINING,
}
DIGITS = Path(__file__).parents[2] / "results" / "digits"
NOISY = np.random.default_rng(3).normal(0, 0.05, 12)


def rows_of(form, *parameters, noise: ArrayLike = 0.0):
    """Noiseless rows of a law, times exp(noise)."""
    variables = ALL_VARIABLES.get(form, VARIABLES)
    score = FORMS[form](list(parameters), variables) * np.exp(np.asarray(noise))
    return observations(score, **variables)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("form", "truth"),
    [
        *(("power", grid) for grid in itertools.product((0.3, 140), (0.05, 0.4, 1.5))),
        *(("power-floor", grid) for grid in itertools.product((0.01, 3.0), (10.0, 140.0), (0.1, 0.5, 1.5))),
        *(("tokens", grid) for grid in itertools.product((250.0,), (0.1, 0.4), (0.05, 0.3))),
        *(("tokens-floor", grid) for grid in itertools.product((1.0,), (250.0,), (0.1, 0.4), (0.05, 0.3))),
        *(
            ("chinchilla", grid)
            for grid in itertools.product((0.5, 1.69), (406.4,), (410.7,), (0.2, 0.34), (0.28, 0.5))
        ),
        *(("steps", grid) for grid in itertools.product((9.0, 5e6), (0.1, 1.5))),
        *(("product", grid) for grid in itertools.product((400.0,), (0.1, 0.4), (0.05, 0.3), (0.2, 0.9))),
        *(
            ("sum", grid)
            for grid in itertools.product((0.5, 9.0), (100.0,), (500.0,), (0.2, 0.4), (0.05, 0.2), (0.3, 0.5))
        ),
    ],
)
def test_noiseless_laws_are_recovered(form, truth, objective):
    found = fit(rows_of(form, *truth), form, objective)
    assert list(found.parameters.values()) == pytest.approx(truth, rel=1e-6)
    assert found.converged
    assert found.agreeing > 0.5


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_agree_with_finite_differences(form, objective):
    truth = {
        "power": (9, 0.3),
        "power-floor": (1, 9, 0.3),
        "tokens": (9, 0.3, 0.1),
        "tokens-floor": (1, 9, 0.3, 0.1),
        "chinchilla": (1.7, 400, 400, 0.3, 0.3),
        "steps": (400, 0.3),
        "product": (400, 0.3, 0.1, 0.2),
        "sum": (1.7, 100, 500, 0.3, 0.1, 0.3),
    }
    rows = rows_of(form, *truth[form])
    design = problem_of(rows, FORMS[form], objective).design
    random = np.random.default_rng(0)
    scores = np.exp(random.normal(0, 0.3, (1, len(rows))))
    weights = random.uniform(0, 2, (1, len(rows)))
    at = np.array([[0.2, *random.normal(-0.5, 0.2, design.size - 1 - len(FORMS[form].exponents))]])
    at = np.append(at, random.uniform(0.1, 0.5, (1, len(FORMS[form].exponents))), axis=1)
    shifts = 1e-6 * np.eye(design.size)

    def total(parameters):
        return np.sum(weights * design.losses(design.residuals(parameters, scores)))

    by_differences = [(total(at + shift) - total(at - shift)) / 2e-6 for shift in shifts]
    # Huber's loss has kinks in its slope, 0.001 wide; no row is that close to one here.
    assert design.gradient(at, scores, weights)[0] == pytest.approx(by_differences, rel=1e-5, abs=1e-8)
    residuals = [(design.residuals(at + s, scores) - design.residuals(at - s, scores))[0] / 2e-6 for s in shifts]
    assert design.jacobian(at)[0] == pytest.approx(np.array(residuals), rel=1e-5, abs=1e-8)
    slopes = [(design.jacobian(at + s)[0] - design.jacobian(at - s)[0]) @ weights[0] / 2e-6 for s in shifts]
    assert design.residual_curvature(at, design.jacobian(at), weights)[0] == pytest.approx(
        np.array(slopes), rel=1e-5, abs=1e-7
    )


def test_a_law_far_from_its_rows_is_fitted_to_the_end():
    """On these rows, least-squares steps alone creep: after 300 of them, none of the starts has converged."""
    rows = collected_observations(load(DIGITS), all_steps=True)
    found = fit(rows, "sum")
    assert found.converged
    assert found.agreeing > 0.9
    assert found.spread < 1e-6


def test_log_huber_finds_what_an_independent_optimiser_finds():
    """Hoffmann et al.'s objective, written down again and minimised by L-BFGS from the law behind the rows."""
    noise = np.random.default_rng(0).normal(0, 0.01, len(PARAMS))
    rows = rows_of("chinchilla", 1.69, 406.4, 410.7, 0.34, 0.28, noise=noise)

    def loss(x):
        e, a, b, alpha, beta = x
        predicted = np.logaddexp.reduce(
            [np.full(len(PARAMS), e), a - alpha * np.log(PARAMS), b - beta * np.log(IMAGES)]
        )
        size = np.abs(predicted - np.log(rows.score))
        return 1e4 * np.sum(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)))

    start = [np.log(1.69), np.log(406.4), np.log(410.7), 0.34, 0.28]
    theirs = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 20_000, "maxfev": 20_000, "fatol": 1e-12})
    theirs = minimize(loss, theirs.x, method="L-BFGS-B", options={"ftol": 1e-15})
    ours = fit(rows, "chinchilla", "log-huber")
    assert ours.loss <= theirs.fun / 1e4 * (1 + 1e-9)
    assert ours.loss == pytest.approx(theirs.fun / 1e4, rel=1e-3)


def test_log_least_squares_is_the_regression_of_logs():
    rows = rows_of("power", 140, 0.37, noise=NOISY)
    slope, intercept = np.polyfit(np.log(COMPUTE), np.log(rows.score), 1)
    found = fit(rows, "power", "logs")
    assert found.parameters == pytest.approx({"A": np.exp(intercept), "alpha": -slope})
    residuals = intercept + slope * np.log(COMPUTE) - np.log(rows.score)
    assert found.residuals == pytest.approx(residuals)
    assert found.loss == pytest.approx(np.sum(residuals**2))
    # n = 12; k = 2 parameters and the variance.
    assert found.aic == pytest.approx(12 * np.log(np.sum(residuals**2) / 12) + 6)
    assert found.aicc == pytest.approx(found.aic + 24 / 8)


def test_no_point_nearby_has_a_lower_loss():
    rows = rows_of("power-floor", 3, 140, 0.4, noise=NOISY)
    found = fit(rows, "power-floor", "values")
    best = np.array([found.parameters[name] for name in ("E", "A", "alpha")])
    assert found.loss == pytest.approx(np.sum((FORMS["power-floor"](best, VARIABLES) - rows.score) ** 2))
    for sign, index, size in itertools.product((-1, 1), range(3), (1e-5, 1e-3, 1e-1)):
        moved = best.copy()
        moved[index] *= 1 + sign * size
        assert np.sum((FORMS["power-floor"](moved, VARIABLES) - rows.score) ** 2) > found.loss


units = st.floats(-12, 12).map(lambda power: 10.0**power)


@settings(max_examples=25, deadline=None)
@given(units, units, units, st.sampled_from(sorted(OBJECTIVES)))
def test_units_change_numbers_and_nothing_else(score_unit, params_unit, images_unit, objective):
    noise = np.random.default_rng(1).normal(0, 0.01, len(PARAMS))
    rows = rows_of("chinchilla", 1.69, 406.4, 410.7, 0.34, 0.28, noise=noise)
    other = observations(rows.score * score_unit, params=PARAMS * params_unit, images=IMAGES * images_unit)
    a, b = fit(rows, "chinchilla", objective), fit(other, "chinchilla", objective)
    law = a.parameters
    assert b.parameters == pytest.approx(
        {
            "E": law["E"] * score_unit,
            "A": law["A"] * score_unit * params_unit ** law["alpha"],
            "B": law["B"] * score_unit * images_unit ** law["beta"],
            "alpha": law["alpha"],
            "beta": law["beta"],
        },
        rel=1e-4,
    )
    assert b.condition == pytest.approx(a.condition, rel=1e-3)
    assert b.loss == pytest.approx(a.loss * (score_unit**2 if objective == "values" else 1), rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order):
    rows = rows_of("tokens-floor", 2, 140, 0.3, 0.2, noise=NOISY)
    assert fit(rows.at(order), "tokens-floor").parameters == pytest.approx(
        fit(rows, "tokens-floor").parameters, rel=1e-5, abs=1e-9
    )


def test_a_law_says_the_score_where_it_is_asked():
    found = fit(rows_of("power-floor", 3, 140, 0.5), "power-floor")
    assert found(compute=[1.0, 4.0, 100.0]) == pytest.approx([143, 73, 17])
    with pytest.raises(ResultsError, match="no value of compute; needed: compute"):
        found(tokens=[1.0])


def test_known_fits_of_the_published_models():
    rows = published_observations()
    assert (len(rows), len(rows.left_out)) == (12, 7)
    law = fit(rows, "power")
    assert round(law.parameters["A"], 1) == 137.8
    assert round(law.parameters["alpha"], 3) == 0.365
    fine = fit(rows.at(row for row, model in enumerate(rows.models) if not model.endswith("/8")), "power")
    assert round(fine.parameters["A"], 1) == 128.5
    assert round(fine.parameters["alpha"], 3) == 0.369
    by_patch = laws_by_patch(rows)
    assert list(by_patch.fits) == [8, 4, 2]
    assert round(by_patch.fits[8].parameters["alpha"], 3) == 0.108
    # One line does not hold for all patch sizes: laws of their own leave a fortieth of the squares.
    assert by_patch.loss < law.loss / 35


def test_what_is_not_determined_is_said():
    straight = fit(rows_of("power", 140, 0.4), "power-floor")
    assert straight.parameters["E"] == pytest.approx(0, abs=1e-9)
    assert straight.status == "ok" or straight.status == "E is 0, at its bound: the rows show no floor"
    rising = fit(observations(COMPUTE**0.1, compute=COMPUTE), "power-floor")
    assert "A vanishes: the score does not fall with compute" in rising.status
    # Over so narrow a range, E, A and alpha trade off.
    narrow = fit(observations(1 + np.linspace(1, 1.2, 12) ** -0.3, compute=np.linspace(1, 1.2, 12)), "power-floor")
    assert "poorly determined: condition number" in narrow.status


def test_an_optimum_that_is_not_unique_is_said():
    """Huber's loss is linear from 0.001 on: as a median between two values, a line between rows may be free to turn."""
    found = fit(published_observations(), "tokens", "log-huber")
    assert found.agreeing > 0.9
    assert found.spread > 0.05
    assert found.status.startswith("not unique: starts with the same loss differ by")


def test_a_local_minimum_is_said():
    noise = np.random.default_rng(9).normal(0, 0.5, 12)
    rows = rows_of("power-floor", 1, 10, 0.3, noise=noise)
    found = fit(rows, "power-floor", "log-huber")
    assert (found.starts, found.agreeing) == (9, 1 / 9)
    assert "only 1 of 9 starts reaches the best loss" in found.status


@pytest.mark.parametrize(
    ("form", "rows", "message"),
    [
        ("power", observations([3, 2], compute=[1, 2]), "2 parameters and there are 2 rows; needed: at least 3"),
        ("power", observations([3], compute=[1]), "there is 1 row; needed: at least 3"),
        ("power", observations([3, 2, 1], compute=[5, 5, 5]), "compute is 5 in every row; needed: at least 2"),
        ("power-floor", observations([3, 2, 1, 1], compute=[1, 1, 2, 2]), "compute: 2 values; needed: at least 3"),
        ("tokens", observations([4, 3, 2, 1], compute=[1, 2, 3, 4], tokens=[4] * 4), "tokens is 4 in every row"),
        ("tokens", observations([4, 3, 2, 1], compute=[1, 2, 3, 4]), "no value of tokens; needed: compute, tokens"),
        ("cubic", observations([4, 3, 2, 1], compute=[1, 2, 3, 4]), "form cubic: unknown; accepted: power"),
        (
            "chinchilla",
            observations([6, 5, 4, 3, 2, 1], params=[1, 2, 3, 1, 2, 3], images=[1, 1, 1, 2, 2, 2]),
            "images: 2 values; needed: at least 3 different values",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(form, rows, message):
    with pytest.raises(ResultsError, match=message):
        fit(rows, form)


@pytest.mark.parametrize(
    ("score", "compute", "message"),
    [
        ([3, np.nan], [1, 2], "row 1: score is nan; a law needs finite, positive values"),
        ([3, np.inf], [1, 2], "row 1: score is inf"),
        ([3, 2], [1, 0], "row 1: compute is 0"),
        ([-3, 2], [1, 1], "row 0: score is -3"),
        ([3, 2], [1, 2, 3], "one for each of 2 rows"),
    ],
)
def test_bad_rows_are_refused(score, compute, message):
    with pytest.raises(ResultsError, match=message):
        observations(score, compute=compute)


def test_duplicated_rows_are_refused():
    rows = observations([3, 2], compute=[1, 2])
    with pytest.raises(ResultsError, match="S/4 seed 0 is there 2 times; needed: one run of each"):
        replace(rows, names=("S/4 seed 0", "S/4 seed 0"))


def test_an_unknown_objective_is_refused():
    with pytest.raises(ResultsError, match="objective mae: unknown; accepted: values, logs, log-huber"):
        fit(rows_of("power", 3, 0.1), "power", "mae")  # pyright: ignore[reportArgumentType]


def test_the_patch_size_is_a_column_and_no_part_of_the_name():
    rows = collected_observations(load(DIGITS))
    renamed = replace(rows, models=tuple(f"mine {name.replace('/', ' ')}" for name in rows.models))
    assert laws_by_patch(renamed).fits[2].parameters == laws_by_patch(rows).fits[2].parameters
    with pytest.raises(ResultsError, match="not every model has a patch size"):
        laws_by_patch(replace(rows, patches=()))
