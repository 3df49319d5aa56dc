from dataclasses import replace

import numpy as np
import pytest
from training_studies import MODELS, PRODUCT, SUM, budget_of, curves_study, study

from analysis.advice.back_test import back_test
from analysis.advice.budget import pf_days
from analysis.advice.curves import measured_curves
from analysis.advice.laws import LAWS, fit_training_law
from analysis.errors import ResultsError
from analysis.laws.compute import COMPUTE
from analysis.laws.observations import Observations

SLOPES = dict(zip(MODELS, np.linspace(0.2, 1.0, len(MODELS)).tolist(), strict=True))


def test_each_model_has_its_own_curve():
    law = fit_training_law(curves_study(SLOPES), "curves")
    assert {model: fit.parameters["beta"] for model, fit in law.fits.items()} == pytest.approx(SLOPES)
    assert law.score("L/2", {"compute": 80, "tokens": 256, "images": 256 * 50_000 * 16}) == pytest.approx(
        100 * 16 ** -SLOPES["L/2"]
    )
    assert law.joint is None


def test_a_curve_is_of_the_later_half():
    """Before half of its longest training, the scores are ten times as high, and nobody asks."""
    rows = curves_study(SLOPES)
    early = rows.variables["images"] < 256 * 200_000
    law = fit_training_law(replace(rows, score=rows.score * np.where(early, 10, 1)), "curves")
    assert {model: fit.parameters["beta"] for model, fit in law.fits.items()} == pytest.approx(SLOPES)
    assert {len(fit.observations) for fit in law.fits.values()} == {5}  # 200K to 400K


def test_a_model_with_too_few_scores_has_no_curve():
    rows = curves_study(SLOPES)
    kept = [row for row, name in enumerate(rows.names) if not name.startswith("L/2") or name.endswith(" 400000")]
    law = fit_training_law(rows.at(kept), "curves")
    assert "L/2" not in law.fits
    assert len(law.fits) == 8
    assert law.left_out[0].startswith("L/2 has no curve: y = A D^-beta has 2 parameters and there is 1 row")
    assert np.isnan(law.score("L/2", {"images": 1e8}))


@pytest.mark.parametrize(("name", "parameters"), [("sum", SUM), ("product", PRODUCT)])
def test_a_joint_law_is_one_fit_of_all_models(name, parameters):
    law = fit_training_law(study(name, parameters), name)
    assert len({id(fit) for fit in law.fits.values()}) == 1
    assert law.joint is not None
    assert list(law.joint.parameters.values()) == pytest.approx(parameters, rel=1e-6)


def test_an_unknown_law_is_refused():
    with pytest.raises(ResultsError, match="law spline: unknown; accepted: curves, product, sum"):
        fit_training_law(study(), "spline")


@pytest.mark.parametrize(("name", "rows"), [
    ("sum", study()), ("product", study("product", PRODUCT)), ("curves", curves_study(SLOPES))
])  # fmt: skip
def test_a_noiseless_law_passes_its_test(name, rows):
    found = back_test(rows, name)
    # Up to half of 400K steps are fitted: 50K, 100K, 150K, 200K of 9 models.
    assert (found.num_fitted, found.num_predicted) == (36, 36)
    later = rows.variables["images"] > 256 * 200_000
    assert found.ratios[later] == pytest.approx(1)
    assert np.all(np.isnan(found.ratios[~later]))
    assert (found.bias, found.rms) == pytest.approx((0, 0), abs=1e-6)
    # L/2 ends with 80 GMACs x 400K, B/2 with 23 x 400K: the largest compute that two models' scored steps enclose.
    assert found.budget_flops is not None
    assert pf_days(found.budget_flops) == pytest.approx(budget_of("B/2", 400_000))
    assert set(found.models) == {"B/2", "L/2"}
    # Measured between scored steps: a straight line in logs, where a sum bends.
    assert found.predicted == pytest.approx(found.measured, rel=0.01)
    assert found.regret == pytest.approx(0)


def test_a_test_says_how_wrong_the_earlier_scores_were():
    """The later half is 1.5 times what the law says."""
    rows = study("product", PRODUCT)
    later = rows.variables["images"] > 256 * 200_000
    found = back_test(replace(rows, score=rows.score * np.where(later, 1.5, 1)), "product")
    assert found.bias == pytest.approx(1 / 1.5 - 1)
    assert found.rms == pytest.approx(np.log(1.5))


def test_a_test_says_what_the_choice_would_have_cost():
    """The law of the earlier scores prefers B/2 at its last step, where it is three times as bad as the law says."""
    rows = study("product", PRODUCT)
    before = back_test(rows, "product")
    assert (before.models[before.chosen], before.models[before.best]) == ("B/2", "B/2")
    worse = (rows.variables["images"] > 256 * 200_000) & (np.array(rows.models) == "B/2")
    found = back_test(replace(rows, score=rows.score * np.where(worse, 3, 1)), "product")
    assert (found.models[found.chosen], found.models[found.best]) == ("B/2", "L/2")
    measured = dict(zip(before.models, before.measured, strict=True))
    assert found.regret == pytest.approx(3 * measured["B/2"] / measured["L/2"] - 1)
    assert f"{found.regret:.1%}" in found.choice()


@pytest.mark.parametrize("name", LAWS)
def test_one_scored_step_cannot_be_tested(name):
    with pytest.raises(ResultsError, match="no model has scores in both halves of its training; needed: several"):
        back_test(study(steps=(400_000,)), name)


def test_curves_are_straight_in_logs_and_end_with_the_scores():
    variables = {"compute": [2.0] * 4, "tokens": [16.0] * 4, "images": [1e3, 1e5, 1e3, 1e5]}
    names = tuple(f"S/4 seed {seed} step {step}" for seed in (0, 1) for step in (1, 100))
    rows = Observations(
        "fid", np.array([80.0, 8, 20, 2]), {k: np.array(v) for k, v in variables.items()}, ("S/4",) * 4, names,
        ("0", "0", "1", "1"), COMPUTE["forward"],
    )  # fmt: skip
    curves = measured_curves(rows)
    low, high = 2 * 6e9 * 1e3, 2 * 6e9 * 1e5
    assert curves.ends("S/4") == pytest.approx((low, high))
    assert curves.score("S/4", low) == pytest.approx(40)  # geometric means over seeds: 40 and 4
    assert curves.score("S/4", 10 * low) == pytest.approx(40 / 10**0.5)
    assert curves.score("S/4", high) == pytest.approx(4)
    assert np.isnan(curves.score("S/4", 0.99 * low))
    assert np.isnan(curves.score("S/4", 1.01 * high))
