"""Which model for how many steps a training budget is best spent on, by a fitted law, and how far that is a guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.advice.back_test import BackTest, back_test
from analysis.advice.budget import (
    CONVENTION,
    FLOPS_PER_GMAC_IMAGE,
    FLOPS_PER_PF_DAY,
    ROUNDING,
    pf_days,
    training_flops,
)
from analysis.advice.curves import Curves, measured_curves
from analysis.advice.laws import LAWS, TrainingLaw, fit_training_law
from analysis.errors import ResultsError
from analysis.laws.bootstrap import Bootstrap, bootstrap
from analysis.laws.chinchilla import best_size
from analysis.laws.choices import REACH, Method, Objective
from analysis.laws.fit import Fit
from analysis.laws.forms import Array
from analysis.laws.intervals import Prediction, check_level
from analysis.laws.observations import Observations


@dataclass(frozen=True)
class Choice:
    """One model, trained for the whole budget.

    Attributes:
        model: its label.
        gmacs: of one forward pass of one image.
        tokens: an image.
        steps: that the budget pays for.
        prediction: of its score: the law's own interval, and that of a single run. Outside the steps that were scored,
            the latter is made of the errors that the law made in its test, if it was tested.
        best_in: share of the draws in which no other choice within reach scores better; 0 if it is not within it.
        beyond: steps / the longest training of this model that was scored (above 1) or, where it would be trained for
            less than the shortest, steps / that (below 1); 1 inside.
        within_reach: whether that is at most the reach that was asked for, either way.
        measured: its own score at these steps, interpolated between its scored steps; None outside them.
    """

    model: str
    gmacs: float
    tokens: int
    steps: int
    prediction: Prediction
    best_in: float
    beyond: float
    within_reach: bool
    measured: float | None

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
        law: what predicts.
        why: this law and not another.
        how: its intervals: model -> refits, the same for all models where the law is joint.
        level: of the intervals.
        reach: times the steps that it was scored at, a model is within reach.
        choices: those within reach first, each part by expected score. The advice is the first, if it is within reach.
        reach_flops: the budgets, from and to, outside which no model is within reach.
        beyond: the budget / the largest training compute of any row.
        tests: of each law that could be tested.
        left_out: models that the budget pays no step of or that the law does not speak of, laws that could not be
            fitted or tested, and why.
    """

    budget_flops: float
    batch_size: int
    law: TrainingLaw
    why: str
    how: Mapping[str, Bootstrap]
    level: float
    reach: float
    choices: tuple[Choice, ...]
    reach_flops: tuple[float, float]
    beyond: float
    tests: tuple[BackTest, ...]
    left_out: tuple[str, ...]

    @property
    def tested(self) -> BackTest | None:
        """The test of the law; None if there was none."""
        return next((test for test in self.tests if test.law.name == self.law.name), None)

    @property
    def metric(self) -> str:
        """The score."""
        return next(iter(self.law.fits.values())).observations.metric

    @property
    def best(self) -> Choice | None:
        """The advice: the best expected score within reach; None if nothing is."""
        return self.choices[0] if self.choices[0].within_reach else None

    @property
    def likely(self) -> tuple[Choice, ...]:
        """The fewest choices within reach of which one is best in at least `level` of the draws."""
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
            "reach": self.reach,
            "reach_pf_days": [pf_days(flops) for flops in self.reach_flops],
            "batch_size": self.batch_size,
            "convention": CONVENTION,
            "metric": self.metric,
            "law": self.law.to_dict(),
            "why_this_law": self.why,
            "intervals": next(iter(self.how.values())).to_dict() | {"level": self.level},
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
    reach: float = REACH,
) -> Advice:
    """Rank the models of `rows` by the score that a law of training expects of each, trained for the whole budget.

    The models are those that were measured, with the GMACs they have. Of several laws, the one is taken that predicts
    the later scores of the study best from the earlier ones (`back_test`), or, where that cannot be tested, the joint
    one with the lowest AICc, or the curves.

    Args:
        rows: scores at several steps, with compute (GMACs of a forward pass), tokens and images.
        budget_pf_days: of true FLOPs of training, see `training_budget`.
        batch_size: of the rows' runs.
        laws: names of `training_laws.LAWS`.
        method: of the intervals of joint laws; those of curves draw residuals, as a curve has one model.
        reach: how many times the steps that it was scored at a model may be trained for. Beyond `REACH`, the errors of
            the law's test grow with the logarithm of that: as those of a wrong exponent do.

    Raises:
        ResultsError: a budget that is not positive and finite or pays for no step of any model, or no law that can be
            fitted; and see `fit` and `bootstrap`.
    """
    check_level(level)
    if not (np.isfinite(reach) and reach >= 1):
        raise ResultsError(f"reach {reach:g}; accepted: 1 or more, times the steps that a model was scored at")
    if not (np.isfinite(budget_pf_days) and budget_pf_days > 0):
        raise ResultsError(f"budget {budget_pf_days:g}; accepted: a positive number of PF-days")
    budget = budget_pf_days * FLOPS_PER_PF_DAY
    largest = float(np.max(training_flops(rows)))
    law, why, tests, left_out = _choose(rows, laws, objective)
    curves = measured_curves(rows)
    known = [model for model in curves.models if model in law.fits]
    steps = {model: _steps(curves, model, budget, batch_size) for model in known}
    if not any(steps.values()):
        least = FLOPS_PER_GMAC_IMAGE * curves.variables[known[0]]["compute"] * batch_size
        raise ResultsError(
            f"budget {budget_pf_days:g} PF-days: not one step of {known[0]}, which takes {pf_days(least):.3g}"
        )
    left_out += [f"{model}: the budget does not pay for one step" for model in known if not steps[model]]
    models = [model for model in known if steps[model]]
    at = [{**curves.variables[model], "images": float(batch_size * steps[model])} for model in models]
    flops = [FLOPS_PER_GMAC_IMAGE * point["compute"] * point["images"] for point in at]
    beyond = [_outside(spent, *curves.ends(model)) for model, spent in zip(models, flops, strict=True)]
    how = _intervals(law, models, method, seed)
    ratios = next((test.ratios for test in tests if test.law.name == law.name), np.array([]))
    draws = _draws(how, at, beyond, ratios[np.isfinite(ratios)], np.random.default_rng(seed))
    is_within = [
        _is_within(spent, *curves.ends(model), spent / count, reach)
        for model, spent, count in zip(models, flops, (steps[model] for model in models), strict=True)
    ]
    best_in = _best_in(draws, is_within)
    choices = [
        Choice(
            model,
            point["compute"],
            int(point["tokens"]),
            steps[model],
            _prediction(how[model].predict(point, level), drawn, outside != 1 and len(ratios) > 0),
            share,
            outside,
            within,
            score if np.isfinite(score := curves.score(model, spent)) else None,
        )
        for model, point, spent, drawn, share, outside, within in zip(
            models, at, flops, draws, best_in, beyond, is_within, strict=True
        )
    ]
    choices.sort(key=lambda choice: (not choice.within_reach, choice.prediction.law.estimate))
    ends = [curves.ends(model) for model in known]
    return Advice(
        budget,
        batch_size,
        law,
        why,
        how,
        level,
        reach,
        tuple(choices),
        (min(first for first, _ in ends) / reach, max(last for _, last in ends) * reach),
        budget / largest,
        tuple(tests),
        tuple(dict.fromkeys(left_out)),
    )


def best_gmacs(law: Fit, budget_flops: float, tokens: float) -> float | None:
    """GMACs at which a fitted E + A C^-alpha T^-gamma + B D^-beta is lowest, for C D = budget / 6e9; None if nowhere.

    As `chinchilla.best_size`, with C in the place of N.
    """
    values = law.parameters
    compute_term = values["A"] * tokens ** -values["gamma"]
    if compute_term <= 0 or values["B"] <= 0:
        return None
    product = budget_flops / FLOPS_PER_GMAC_IMAGE
    return float(best_size(compute_term, values["alpha"], values["B"], values["beta"], product))


def _choose(
    rows: Observations, laws: Sequence[str], objective: Objective
) -> tuple[TrainingLaw, str, list[BackTest], list[str]]:
    """The law, why it was chosen, the tests of all laws, and what could not be done."""
    fitted: dict[str, TrainingLaw] = {}
    tests: dict[str, BackTest] = {}
    left_out: list[str] = []
    for name in laws:
        try:
            fitted[name] = fit_training_law(rows, name, objective)
        except ResultsError as error:
            left_out.append(f"{name}: {error}")
            continue
        try:
            tests[name] = back_test(rows, name, objective)
        except ResultsError as error:
            left_out.append(f"{name} is not tested: {error}")
    if not fitted:
        raise ResultsError("; ".join(left_out))
    chosen, why = next(iter(fitted)), "the only law that could be fitted"
    if len(tests) > 1:
        both = np.all([np.isfinite(test.ratios) for test in tests.values()], axis=0)
        errors = {name: float(np.mean(np.log(test.ratios[both]) ** 2)) for name, test in tests.items()}
        chosen = min(errors, key=lambda name: errors[name])
        off = ", ".join(f"{law} {np.expm1(np.sqrt(error)):.1%} off" for law, error in errors.items())
        why = (
            "of the laws, it predicts the study's later scores best from the earlier ones; root mean square over the "
            f"{both.sum()} that all of them predict: {off}"
        )
    elif len(tests) == 1 and len(fitted) > 1:
        chosen, why = next(iter(tests)), "the only law that could be tested on later scores"
    elif len(fitted) > 1:
        aicc = {name: law.joint.aicc for name, law in fitted.items() if law.joint is not None}
        chosen = min(aicc, key=lambda name: aicc[name])
        why = "of the joint laws, it has the lowest AICc; none could be tested on later scores"
    law = fitted[chosen]
    return law, why, list(tests.values()), [*left_out, *law.left_out]


def _steps(curves: Curves, model: str, budget: float, batch_size: int) -> int:
    """Whole steps of `batch_size` that `budget` FLOPs pay for."""
    return int((1 + ROUNDING) * budget / (FLOPS_PER_GMAC_IMAGE * curves.variables[model]["compute"] * batch_size))


def _intervals(law: TrainingLaw, models: Sequence[str], method: Method, seed: int) -> dict[str, Bootstrap]:
    if law.joint is not None:
        return dict.fromkeys(models, bootstrap(law.joint, method, seed=seed))
    return {model: bootstrap(law.fits[model], "residual", seed=seed + index) for index, model in enumerate(models)}


def _draws(
    how: Mapping[str, Bootstrap],
    at: Sequence[Mapping[str, float]],
    beyond: Sequence[float],
    ratios: Array,
    random: np.random.Generator,
) -> list[Array]:
    """Scores of each model by the refits; outside its scored steps, with errors drawn from those of the test."""
    drawn = []
    for refits, point, outside in zip(how.values(), at, beyond, strict=True):
        scores = refits.fit.form(refits.parameters, point)[:, 0]
        errors = random.choice(ratios, len(scores)) if outside != 1 and len(ratios) else np.ones(1)
        drawn.append(scores / errors ** max(1.0, abs(np.log(outside)) / np.log(REACH)))
    return drawn


def _prediction(own: Prediction, drawn: Array, tested: bool) -> Prediction:
    """With the errors of the law's test in the place of the scatter around it."""
    if not tested:
        return own
    tail = (1 - own.law.level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return replace(own, new_run=replace(own.new_run, low=low, high=high))


def _best_in(draws: Sequence[Array], reached: Sequence[bool]) -> list[float]:
    """Of each model, the share of the draws in which it scores best of those that are `reached`."""
    fewest = min(map(len, draws))
    scores = [
        drawn[:fewest] if within else np.full(fewest, np.inf) for drawn, within in zip(draws, reached, strict=True)
    ]
    best = np.argmin(scores, axis=0)
    return [float(np.mean(best == index)) if within else 0.0 for index, within in enumerate(reached)]


def _is_within(flops: float, first: float, last: float, step: float, reach: float) -> bool:
    """By whole steps: what a budget paid for is up to a step less than it."""
    return (first - step) / reach <= flops <= (last + step) * reach


def _outside(flops: float, first: float, last: float) -> float:
    if flops > last * (1 + ROUNDING):
        return flops / last
    return flops / first if flops < first * (1 - ROUNDING) else 1.0
