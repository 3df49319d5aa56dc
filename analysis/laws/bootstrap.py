"""Bootstrap intervals of a fitted law: rows, or residuals, drawn again and refitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.errors import ResultsError
from analysis.laws.choices import Method, check_known
from analysis.laws.fit import AGREEMENT, Fit, Problem, problem_of, projected_starts
from analysis.laws.forms import Array
from analysis.laws.intervals import Interval, Prediction, check_level
from analysis.laws.observations import Observations
from analysis.laws.solver import Solutions, solve

METHODS: dict[Method, str] = {
    "bootstrap": "models, and seeds across models, drawn with replacement, with all their rows",
    "residual": "the fitted law with residuals drawn with replacement, inflated by sqrt(n / (n - parameters))",
}
REPLICATES = 2000
CHECKED = 50  # replicates fitted again from the whole grid of starts
MOST_FAILED = 0.5
FEW_MODELS = 15  # below, percentile intervals of drawn models or residuals are too narrow
FEW_SEEDS = 5  # below, those of drawn seeds are


@dataclass(frozen=True)
class Bootstrap:
    """Refits of a law to resampled rows.

    Attributes:
        fit: the law fitted to all rows.
        method: a name of `METHODS`.
        seed: of all draws.
        replicates: how many were drawn.
        failed: share of the replicates that could not be fitted: too few different rows drawn, or not converged.
        checked: replicates that were also fitted from the whole grid of starts.
        missed: share of these where that found a lower loss than the start at the full fit: a higher share means that
            the intervals are those of local minima.
        parameters: (refits, parameters) in the form's order and units.
        scatter: (refits,) a residual of the full fit drawn for each refit, inflated as for "residual".
    """

    fit: Fit
    method: Method
    seed: int
    replicates: int
    failed: float
    checked: int
    missed: float
    parameters: Array
    scatter: Array

    def interval(self, parameter: str, level: float = 0.9) -> Interval:
        """Percentile interval of a parameter of the form.

        Raises:
            ResultsError: an unknown parameter, or a level outside 0 to 1.
        """
        names = self.fit.form.parameters
        check_known("parameter", parameter, names)
        return _percentiles(self.fit.parameters[parameter], self.parameters[:, names.index(parameter)], level)

    def standard_error(self, parameter: str) -> float:
        """Of a parameter of the form: the standard deviation of the refits.

        Raises:
            ResultsError: an unknown parameter.
        """
        names = self.fit.form.parameters
        check_known("parameter", parameter, names)
        with np.errstate(over="ignore", invalid="ignore"):  # a coefficient that the rows leave open
            return float(np.std(self.parameters[:, names.index(parameter)], ddof=1))

    def predict(self, at: Mapping[str, float], level: float = 0.9) -> Prediction:
        """The score at `at` (variable -> value), with percentile intervals.

        The new run's interval adds the scatter of single rows around the law; it has nothing to say about a law that
        bends beyond the rows.
        """
        scores = self.fit.form(self.parameters, at)[:, 0]
        estimate = float(self.fit(**at)[0])
        new = scores + self.scatter if self.fit.objective == "values" else scores * np.exp(self.scatter)
        return Prediction(at, _percentiles(estimate, scores, level), _percentiles(estimate, new, level))

    def to_dict(self) -> dict[str, Any]:
        """How it was done, for JSON; the refits are left out."""
        return {
            "method": self.method,
            "method_in_words": METHODS[self.method],
            "seed": self.seed,
            "replicates": self.replicates,
            "failed": self.failed,
            "checked": self.checked,
            "missed": self.missed,
        }

    def sentence(self) -> str:
        """How it was done, in words."""
        few = f" With {self._few()}, these intervals are too narrow." if self._few() else ""
        return (
            f"{self.replicates:,} replicates (seed {self.seed}; {METHODS[self.method]}), {self.failed:.1%} failed; of "
            f"{self.checked} fitted from all starts, {self.missed:.0%} had a better optimum elsewhere.{few}"
        )

    def _few(self) -> str:
        models, seeds = len(set(self.fit.observations.models)), len(set(self.fit.observations.seeds))
        few = [f"{models} {self.fit.observations.counted}"] if models < FEW_MODELS else []
        if self.method == "bootstrap" and 1 <= seeds < FEW_SEEDS:
            few.append("one seed, whose luck they leave out" if seeds == 1 else f"{seeds} seeds")
        return " and ".join(few)


def bootstrap(fit: Fit, method: Method = "bootstrap", replicates: int = REPLICATES, seed: int = 0) -> Bootstrap:
    """Fit the law of `fit` again to resampled rows, from its own optimum.

    "bootstrap" (non-parametric; Efron 1979) draws whole models, since the seeds and steps of one model share its
    distance from the law, and, where rows know their seed, seeds across all models, since a seed moves them together
    (the pigeonhole bootstrap; Owen 2007, The Annals of Applied Statistics 1:386). It holds for scatter of any kind, and
    needs many of both: with a dozen models or three seeds, percentile intervals are too narrow. "residual" takes the
    models as given and their residuals as exchangeable: not so where the law itself does not fit, as one line does not
    fit models of several patch sizes.

    Raises:
        ResultsError: fewer than 2 replicates, or most of them failed.
    """
    check_known("method", method, METHODS)
    if replicates < 2:
        raise ResultsError(f"{replicates} replicates; needed: at least 2")
    random = np.random.default_rng(seed)
    problem = problem_of(fit.observations, fit.form, fit.objective)
    residuals = problem.design.residuals(fit.solution[None], problem.scores[None])[0]
    rows, parameters = len(residuals), fit.num_parameters
    # The observed score is the law's minus a residual, on the objective's scale.
    scatter = -residuals * np.sqrt(rows / (rows - parameters))
    if method == "bootstrap":
        weights, scores = _row_weights(fit.observations, replicates, random), np.tile(problem.scores, (replicates, 1))
    else:
        weights = np.ones((replicates, rows))
        drawn = scatter[random.integers(rows, size=(replicates, rows))]
        law = problem.design.predicted(fit.solution[None])
        scores = law + drawn if fit.objective == "values" else law * np.exp(drawn)
    enough = _determined(problem, weights) & np.all(scores > 0, axis=1)
    _check_failures(np.mean(~enough), fit)
    weights, scores = weights[enough], scores[enough]
    found = _refits(problem, scores, weights, fit)
    _check_failures(1 - np.sum(found.converged) / replicates, fit)
    checked = random.permutation(len(weights))[:CHECKED]
    missed = _missed(problem, scores[checked], weights[checked], found.losses[checked])
    drawn = scatter[random.integers(rows, size=int(np.sum(found.converged)))] * problem.residual_scale
    return Bootstrap(
        fit,
        method,
        seed,
        replicates,
        1 - float(np.sum(found.converged)) / replicates,
        len(checked),
        missed,
        problem.natural(found.parameters[found.converged]),
        drawn,
    )


def _row_weights(rows: Observations, replicates: int, random: np.random.Generator) -> Array:
    """How often each row is drawn: its model's draws times its seed's."""
    weights = _draws(rows.models, replicates, random)
    return weights * _draws(rows.seeds, replicates, random) if len(set(rows.seeds)) > 1 else weights


def _draws(names: tuple[str, ...], replicates: int, random: np.random.Generator) -> Array:
    """How often each row's name is drawn, out of the different ones."""
    different, index = np.unique(names, return_inverse=True)
    counts = random.multinomial(len(different), np.full(len(different), 1 / len(different)), size=replicates)
    return counts[:, index].astype(float)


def _determined(problem: Problem, weights: Array) -> np.ndarray:
    """Whether the rows drawn differ in as many places as the form has parameters, and in each of its variables."""
    form = problem.design.form
    _, place = np.unique(problem.design.logs, axis=0, return_inverse=True)
    determined = _drawn_values(place.ravel(), weights) >= len(form.parameters)
    for name, column in zip(form.variables, problem.design.logs.T, strict=True):
        _, value = np.unique(column, return_inverse=True)
        determined &= _drawn_values(value, weights) >= form.least_values(name)
    return determined


def _drawn_values(value: np.ndarray, weights: Array) -> np.ndarray:
    is_value = value[:, None] == np.arange(value.max() + 1)
    return np.sum(weights @ is_value > 0, axis=1)


def _refits(problem: Problem, scores: Array, weights: Array, fit: Fit) -> Solutions:
    """From the full fit's optimum; where its E is 0, also from an E with a steeper law: refits may need one."""
    starts = [fit.solution]
    if fit.form.floor and fit.solution[0] == 0:
        first = 1 + len(fit.form.terms)
        floor = 0.5 * np.min(problem.scores)
        starts.append(np.concatenate([[floor], fit.solution[1:first] - np.log(2), 2 * fit.solution[first:]]))
    found = [solve(problem.design, scores, weights, np.tile(start, (len(weights), 1))) for start in starts]
    best = np.argmin([each.losses for each in found], axis=0)
    rows = np.arange(len(weights))
    return Solutions(
        np.stack([each.parameters for each in found])[best, rows],
        np.stack([each.losses for each in found])[best, rows],
        np.stack([each.converged for each in found])[best, rows],
    )


def _missed(problem: Problem, scores: Array, weights: Array, losses: Array) -> float:
    """Share of the refits that have a lower loss from one of the whole grid's starts."""
    starts = [projected_starts(replace(problem, scores=each)) for each in scores]
    count = len(starts[0])
    found = solve(problem.design, np.repeat(scores, count, 0), np.repeat(weights, count, 0), np.concatenate(starts))
    lowest = np.min(found.losses.reshape(-1, count), axis=1)
    return float(np.mean(lowest < losses * (1 - 10 * AGREEMENT) - 1e-20))


def _check_failures(share: float, fit: Fit) -> None:
    if share > MOST_FAILED:
        raise ResultsError(
            f"{share:.0%} of the resamples of {len(set(fit.observations.models))} models cannot be fitted by "
            f"{fit.form.formula}; needed: more models, a form with fewer parameters, or profile intervals"
        )


def _percentiles(estimate: float, values: Array, level: float) -> Interval:
    check_level(level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)
