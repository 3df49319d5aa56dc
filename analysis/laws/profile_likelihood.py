"""Profile-likelihood intervals: how far a value can move before the best fit with it held is too much worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from analysis.errors import ResultsError
from analysis.laws.choices import check_known
from analysis.laws.fit import Fit, Problem, problem_of
from analysis.laws.forms import Array
from analysis.laws.intervals import Interval, Prediction, check_level
from analysis.laws.solver import LARGEST_EXPONENT, SMALLEST_EXPONENT, Design, Solutions, solve

FIXED = 1e6  # weight of a row that holds the law at a value: its own residual moves the interval by a millionth
NOISELESS = 1e-22  # mean loss below which the rows are the law's own, up to rounding
FARTHEST = 2.0**20  # in first steps; a side on which nothing becomes worse until there is open


@dataclass(frozen=True)
class Profile:
    """Profile intervals of a least-squares fit (objective values or logs), with Gaussian residuals of unknown variance.

    A value is inside as long as the sum of squares with it held fixed stays below the best one times
    1 + t^2 / (n - p), t being Student's quantile (profile t; Bates & Watts 1988, section 6.1): exact for linear models,
    as it should be for a few rows. Nothing is drawn, so there is no seed. The interval may be one-sided: E stops at 0,
    and a side on which the fit never gets too much worse is open, and infinite. Rows count as independent.
    """

    fit: Fit

    def __post_init__(self) -> None:
        if self.fit.objective == "log-huber":
            raise ResultsError(
                "profile intervals need a likelihood; accepted: objective values or logs, or a bootstrap"
            )

    def interval(self, parameter: str, level: float = 0.9) -> Interval:
        """Of a parameter of the form.

        Raises:
            ResultsError: an unknown parameter, or a level outside 0 to 1.
        """
        form = self.fit.form
        check_known("parameter", parameter, form.parameters)
        # Centred at variables of 1, the solver's parameters are E, log coefficients and exponents themselves.
        centre = np.zeros(len(form.exponents))
        problem = problem_of(self.fit.observations, form, self.fit.objective, centre)
        start = np.array([0.0] * (not form.floor) + [self.fit.parameters[name] for name in form.parameters])
        start[: 1 + len(form.terms)] /= problem.score_scale
        logged = parameter in form.coefficients
        start[1 : 1 + len(form.terms)] = np.log(np.maximum(start[1 : 1 + len(form.terms)], 1e-15))
        index = form.parameters.index(parameter) + (not form.floor)
        free = np.array([form.floor, *[True] * (len(start) - 1)])
        free[index] = False
        scores, ones = np.tile(problem.scores, (2, 1)), np.ones((2, len(problem.scores)))
        starts = np.array([start, start])  # the full fit's, and the one before: followed from value to value

        @cache
        def loss(value: float) -> float:
            starts[:, index] = value
            return _least(solve(problem.design, scores, ones, starts, free), starts)

        first = max(abs(start[index]) * 0.01, 1e-3)
        bounds = {"E": (0.0, np.inf)}.get(
            parameter, (-np.inf, np.inf) if logged else (SMALLEST_EXPONENT, LARGEST_EXPONENT)
        )
        scale = problem.score_scale if parameter in ("E", *form.coefficients) else 1.0
        low, high = self._sides(loss, float(start[index]), first, bounds, level)
        if logged:
            low, high = np.exp(low), np.exp(high)
        return Interval(self.fit.parameters[parameter], float(low) * scale, float(high) * scale, level)

    def predict(self, at: Mapping[str, float], level: float = 0.9) -> Prediction:
        """The score at `at` (variable -> value).

        The law's interval holds the law at a value there; the new run's adds one row with that score, as a run that
        scatters like the others would.
        """
        fit = self.fit
        problem = problem_of(fit.observations, fit.form, fit.objective)
        place = fit.form.logs(at) - problem.centre
        design = Design(fit.form, fit.objective, np.vstack([problem.design.logs, place]))
        estimate = float(fit(**at)[0])
        law = self._prediction(problem, design, FIXED, estimate, level)
        return Prediction(at, law, self._prediction(problem, design, 1.0, estimate, level))

    def to_dict(self) -> dict[str, Any]:
        """How it was done, for JSON."""
        return {"method": "profile", "method_in_words": "profile likelihood with Student's t; nothing is drawn"}

    def sentence(self) -> str:
        """How it was done, in words."""
        return "Profile likelihood with Student's t; rows count as independent."

    def _prediction(self, problem: Problem, design: Design, weight: float, estimate: float, level: float) -> Interval:
        weights = np.tile(np.append(np.ones(len(problem.scores)), weight), (2, 1))
        start = self.fit.solution.copy()
        if self.fit.form.floor and start[0] == 0:
            start[0] = 1e-3
        starts = np.array([start, start])

        @cache
        def loss(value: float) -> float:  # value: log of the score there
            scores = np.tile(np.append(problem.scores, np.exp(value)), (2, 1))
            return _least(solve(design, scores, weights, starts), starts)

        middle = float(np.log(estimate / problem.score_scale))
        low, high = self._sides(loss, middle, 0.01, (-np.inf, np.inf), level)
        scale = problem.score_scale
        return Interval(estimate, float(np.exp(low)) * scale, float(np.exp(high)) * scale, level)

    def _sides(
        self,
        loss: Callable[[float], float],
        middle: float,
        first_step: float,
        bounds: tuple[float, float],
        level: float,
    ) -> tuple[float, float]:
        """Where `loss` crosses the threshold on either side of `middle`; the bound, where it does not."""
        check_level(level)
        left_over = len(self.fit.observations) - self.fit.num_parameters
        quantile = float(stdtrit(left_over, (1 + level) / 2))
        least = max(loss(middle), NOISELESS * len(self.fit.observations))
        threshold = least * (1 + quantile**2 / left_over)
        sides = []
        for sign, bound in ((-1, bounds[0]), (1, bounds[1])):
            inside, step = middle, first_step
            while True:
                outside = middle + sign * step
                outside = max(outside, bound) if sign < 0 else min(outside, bound)
                if loss(outside) > threshold:
                    crossing: Any = brentq(lambda value: loss(value) - threshold, inside, outside, xtol=1e-9)
                    sides.append(float(crossing))
                    break
                if outside == bound or step > first_step * FARTHEST:
                    sides.append(bound)
                    break
                inside, step = outside, 2 * step
        return sides[0], sides[1]


def _least(found: Solutions, starts: Array) -> float:
    """The lower loss of the two, whose solution becomes the second start."""
    best = int(np.argmin(found.losses))
    starts[1] = found.parameters[best]
    return float(found.losses[best])
