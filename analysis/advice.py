"""Which model for how many steps a training budget is best spent on, by a fitted law, and how far that is a guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.back_test import HELD_BACK, BackTest, back_test
from analysis.bootstrap import Bootstrap, Method, bootstrap
from analysis.errors import ResultsError
from analysis.intervals import Prediction, check_level
from analysis.law_solver import Objective
from analysis.measured_curves import measured_curves
from analysis.observations import Observations
from analysis.scaling_laws import Fit, fit
from analysis.training_budget import (
    CONVENTION,
    FLOPS_PER_GMAC_IMAGE,
    FLOPS_PER_PF_DAY,
    ROUNDING,
    pf_days,
    training_flops,
)

LAWS = ("product", "sum")  # forms of training with a term for tokens
REACH = HELD_BACK  # as far beyond its scored steps as laws are tested, a model is advised


@dataclass(frozen=True)
class Choice:
    """One model, trained for the whole budget.

    Attributes:
        model: its label.
        gmacs: of one forward pass of one image.
        tokens: an image.
        steps: that the budget pays for.
        prediction: of its score, with intervals.
        best_in: share of the refits in which no other choice within `REACH` scores better; 0 if it is not within it.
        beyond: steps / the longest training of this model that was scored (above 1) or, where it would be trained for
            less than the shortest, steps / that (below 1); 1 inside.
        measured: its own score at these steps, interpolated between its scored steps; None outside them.
    """

    model: str
    gmacs: float
    tokens: int
    steps: int
    prediction: Prediction
    best_in: float
    beyond: float
    measured: float | None

    @property
    def within_reach(self) -> bool:
        """Whether it is trained for at most `REACH` times more or fewer steps than it was scored at."""
        return 1 / REACH <= self.beyond <= REACH

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "gmacs": self.gmacs,
            "tokens": self.tokens,
            "steps": self.steps,
            "prediction": self.prediction.to_dict(),
            "best_in": self.best_in,
            "beyond": self.beyond,
            "within_reach": self.within_reach,
            "measured": self.measured,
        }


@dataclass(frozen=True)
class Advice:
    """For a budget: the models within reach, best expected score first, then the others.

    Attributes:
        budget_flops: the budget.
        batch_size: of the runs, and of the steps of the choices.
        fit: the law; `why` it and not another.
        how: its intervals.
        level: of the intervals.
        choices: those within reach first, each part by expected score. The advice is the first, if it is within reach.
        reach_flops: the budgets, from and to, outside which no model is within reach.
        beyond: the budget / the largest training compute of any row.
        tests: of each law that could be tested.
        left_out: models that the budget does not pay one step of, laws that could not be fitted or tested, and why.
    """

    budget_flops: float
    batch_size: int
    fit: Fit
    why: str
    how: Bootstrap
    level: float
    choices: tuple[Choice, ...]
    reach_flops: tuple[float, float]
    beyond: float
    tests: tuple[BackTest, ...]
    left_out: tuple[str, ...]

    @property
    def best(self) -> Choice | None:
        """The advice: the best expected score within reach; None if nothing is."""
        return self.choices[0] if self.choices[0].within_reach else None

    @property
    def likely(self) -> tuple[Choice, ...]:
        """The fewest choices within reach of which one is best in at least `level` of the refits."""
        ranked = sorted(self.choices, key=lambda choice: -choice.best_in)
        shares = np.cumsum([choice.best_in for choice in ranked])
        return tuple(ranked[: 1 + int(np.argmax(shares >= self.level - ROUNDING))]) if self.best else ()

    @property
    def inside(self) -> Choice | None:
        """The best choice whose steps are within those it was scored at; None if there is none."""
        return next((choice for choice in self.choices if choice.beyond == 1), None)

    @property
    def measured(self) -> tuple[Choice, ...]:
        """The choices with a measured score at their steps, best first."""
        known = [choice for choice in self.choices if choice.measured is not None]
        return tuple(sorted(known, key=lambda choice: choice.measured or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "budget_pf_days": pf_days(self.budget_flops),
            "budget_flops": self.budget_flops,
            "budget_beyond": self.beyond,
            "reach_pf_days": [pf_days(flops) for flops in self.reach_flops],
            "batch_size": self.batch_size,
            "convention": CONVENTION,
            "fit": self.fit.to_dict(),
            "why_this_law": self.why,
            "intervals": self.how.to_dict() | {"level": self.level},
            "choices": [choice.to_dict() for choice in self.choices],
            "advice": self.best.model if self.best else None,
            "likely": [choice.model for choice in self.likely],
            "back_tests": [test.to_dict() for test in self.tests],
            "left_out": list(self.left_out),
        }


def advise(
    rows: Observations,
    budget_pf_days: float,
    batch_size: int,
    laws: Sequence[str] = LAWS,
    method: Method = "bootstrap",
    objective: Objective = "logs",
    level: float = 0.9,
    seed: int = 0,
) -> Advice:
    """Rank the models of `rows` by the score that a law of training expects of each, trained for the whole budget.

    The models are those that were measured, with the GMACs they have; a size between or beyond them is only said to be
    what the law would like. Of several laws, the one is taken that foretells the dear rows best from the cheap ones
    (`back_test`), or has the lower AICc where that cannot be tested.

    Args:
        rows: scores at several steps, with compute (GMACs of a forward pass), tokens and images.
        budget_pf_days: of true FLOPs of training, see `training_budget`.
        batch_size: of the rows' runs.
        laws: names of `FORMS`, of the variables compute, tokens and images.
        method: of the intervals.

    Raises:
        ResultsError: a budget that is not positive and finite or pays for no step of any model, or no law that can be
            fitted; and see `fit` and `bootstrap`.
    """
    check_level(level)
    if not (np.isfinite(budget_pf_days) and budget_pf_days > 0):
        raise ResultsError(f"budget {budget_pf_days:g}; accepted: a positive number of PF-days")
    budget = budget_pf_days * FLOPS_PER_PF_DAY
    law, why, tests, left_out = _choose(rows, laws, objective)
    curves = measured_curves(rows)
    steps = {
        model: int((1 + ROUNDING) * budget / (FLOPS_PER_GMAC_IMAGE * curves.variables[model]["compute"] * batch_size))
        for model in curves.models
    }
    affordable = [model for model in curves.models if steps[model] >= 1]
    if not affordable:
        least = FLOPS_PER_GMAC_IMAGE * curves.variables[curves.models[0]]["compute"] * batch_size
        raise ResultsError(
            f"budget {budget_pf_days:g} PF-days: not one step of {curves.models[0]}, which takes {pf_days(least):.3g}"
        )
    left_out += [f"{model}: the budget does not pay for one step" for model in curves.models if steps[model] < 1]
    how = bootstrap(law, method, seed=seed)
    at = {name: np.array([curves.variables[model][name] for model in affordable]) for name in ("compute", "tokens")}
    at["images"] = batch_size * np.array([float(steps[model]) for model in affordable])
    flops = FLOPS_PER_GMAC_IMAGE * at["compute"] * at["images"]
    beyond = [_outside(spent, *curves.ends(model)) for model, spent in zip(affordable, flops.tolist(), strict=True)]
    reached = np.array([1 / REACH <= each <= REACH for each in beyond])
    best = np.argmin(np.where(reached, law.form(how.parameters, at), np.inf), axis=1)
    choices = []
    for index, model in enumerate(affordable):
        point = {name: float(values[index]) for name, values in at.items()}
        measured = curves.score(model, float(flops[index]))
        choices.append(
            Choice(
                model,
                point["compute"],
                int(point["tokens"]),
                steps[model],
                how.predict(point, level),
                float(np.mean(best == index)) if reached[index] else 0.0,
                beyond[index],
                measured if np.isfinite(measured) else None,
            )
        )
    ends = [curves.ends(model) for model in curves.models]
    choices.sort(key=lambda choice: (not choice.within_reach, choice.prediction.law.estimate))
    return Advice(
        budget,
        batch_size,
        law,
        why,
        how,
        level,
        tuple(choices),
        (min(first for first, _ in ends) / REACH, max(last for _, last in ends) * REACH),
        budget / float(np.max(training_flops(rows))),
        tuple(tests),
        tuple(dict.fromkeys(left_out)),
    )


def best_gmacs(law: Fit, budget_flops: float, tokens: float) -> float | None:
    """GMACs at which a fitted E + A C^-alpha T^-gamma + B D^-beta is lowest, for C D = budget / 6e9; None if nowhere.

    As Hoffmann et al. 2022 (arXiv:2203.15556, eq. 4), with C in the place of N.
    """
    values = law.parameters
    compute_term = values["A"] * tokens ** -values["gamma"]
    if compute_term <= 0 or values["B"] <= 0:
        return None
    product = budget_flops / FLOPS_PER_GMAC_IMAGE
    ratio = values["alpha"] * compute_term / (values["beta"] * values["B"])
    return float((ratio * product ** values["beta"]) ** (1 / (values["alpha"] + values["beta"])))


def _choose(
    rows: Observations, laws: Sequence[str], objective: Objective
) -> tuple[Fit, str, list[BackTest], list[str]]:
    """The law, why it was chosen, the tests of all laws, and what could not be done."""
    fitted: list[Fit] = []
    tests: list[BackTest] = []
    left_out: list[str] = []
    for name in laws:
        try:
            fitted.append(fit(rows, name, objective))
        except ResultsError as error:
            left_out.append(f"{name}: {error}")
            continue
        try:
            tests.append(back_test(rows, name, objective))
        except ResultsError as error:
            left_out.append(f"no test: {error}")
    if not fitted:
        raise ResultsError("; ".join(left_out))
    if len(fitted) == 1:
        return fitted[0], f"The law: {fitted[0].form.formula}.", tests, left_out
    if len(tests) == len(fitted):
        chosen = int(np.argmin([test.rms for test in tests]))
        why = f"The law, {fitted[chosen].form.formula}, foretells the dear rows best from the cheap ones."
    else:
        chosen = int(np.argmin([law.aicc for law in fitted]))
        why = f"The law, {fitted[chosen].form.formula}, has the lower AICc; it could not be tested on dearer rows."
    return fitted[chosen], why, tests, left_out


def _outside(flops: float, first: float, last: float) -> float:
    if flops > last * (1 + ROUNDING):
        return flops / last
    return flops / first if flops < first * (1 - ROUNDING) else 1.0
