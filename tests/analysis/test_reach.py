"""How far advice reaches, what its intervals are there, and that runs of a ladder are one study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from training_studies import BATCH, MODELS, STEPS, budget_of, curves_study

from analysis.advice.advise import Advice, Choice, advise
from analysis.errors import ResultsError
from analysis.laws.observations import Observations
from analysis.results.model_names import differing_settings

OFF = 1.2


def exact() -> Observations:
    return curves_study(dict.fromkeys(MODELS, 0.5))


def of(advice: Advice, model: str) -> Choice:
    return next(choice for choice in advice.choices if choice.model == model)


def test_what_is_in_reach_is_what_was_asked_for() -> None:
    budget = 8 * budget_of("L/2", STEPS[-1])
    near, far = (advise(exact(), budget, BATCH, ("curves",), reach=reach) for reach in (4, 8))
    assert near.best is None
    assert far.best is not None and (far.best.model, far.best.beyond) == ("L/2", pytest.approx(8))
    assert far.best.prediction.law.estimate == pytest.approx(100 * (8 * STEPS[-1] / STEPS[0]) ** -0.5)
    assert far.to_dict()["reach"] == 8


def test_a_budget_of_just_so_many_rungs_is_in_reach_though_steps_are_whole() -> None:
    """7.5 steps are 7, and 8 x 7.5 are 60, which is more than 8 x 7."""
    rows = curves_study(dict.fromkeys(MODELS, 0.5), steps=(1, 2, 4, 7), seeds=2)
    advice = advise(rows, budget_of("L/2", 60), BATCH, ("curves",), reach=8)
    assert (of(advice, "L/2").steps, of(advice, "L/2").within_reach) == (60, True)
    assert not of(advise(rows, budget_of("L/2", 65), BATCH, ("curves",), reach=8), "L/2").within_reach


def test_beyond_four_times_errors_grow_with_the_logarithm_of_the_distance() -> None:
    """Half of the models are 20 % above what the earlier half of their training says, the others as much below.

    So may they be again: up to 4 times their training by 20 %, at 8 times by three halves of that in logarithms.
    """
    rows = curves_study(dict.fromkeys(MODELS, 0.5), steps=(100, 150, 190, 210, 300, 400))
    signs = np.where(np.array([model.startswith("B") for model in rows.models]), OFF, 1 / OFF)
    rows = replace(rows, score=rows.score * np.where(rows.variables["images"] > 200 * BATCH, signs, 1))
    for times, power in ((2, 1), (4, 1), (8, 1.5), (16, 2)):
        choice = of(advise(rows, times * budget_of("L/2", 400), BATCH, ("curves",), reach=16), "L/2")
        run = choice.prediction.new_run
        assert (run.high / run.estimate, run.low / run.estimate) == pytest.approx((OFF**power, OFF**-power))


@pytest.mark.parametrize("reach", [0, 0.99, -4, float("nan"), float("inf")])
def test_a_reach_that_is_none_is_refused(reach: float) -> None:
    with pytest.raises(ResultsError, match=r"reach .*; accepted: 1 or more"):
        advise(exact(), 1, BATCH, ("curves",), reach=reach)


@pytest.mark.parametrize(
    ("steps", "parts", "differ"),
    [
        ((600, 1200, 2401), (150, 300, 600), False),  # a quarter, rounded
        ((600, 1200), (150, 150), False),  # the same number of steps
        ((600, 600), (150, 151), True),
        ((600, 1200), (150, 290), True),
        ((600, 1200), (0, 300), True),
    ],
)
def test_rungs_of_a_ladder_have_one_schedule(steps: tuple[int], parts: tuple[int], differ: bool) -> None:
    runs = pd.DataFrame({"label": "S/2", "steps": steps, "cooldown_steps": parts, "learning_rate": 1e-3})
    assert differing_settings(runs, ["label"]) == ["cooldown_steps"] * differ
    # Without the steps, nothing is known of shares.
    alone = runs.drop(columns="steps")
    assert differing_settings(alone, ["label"]) == ["cooldown_steps"] * (len(set(parts)) > 1)
