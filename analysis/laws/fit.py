"""Fitting a scaling law, so that no local minimum and no undetermined parameter passes silently."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from analysis.errors import ResultsError
from analysis.laws.choices import Objective, check_known
from analysis.laws.forms import FORMS, Array, Form
from analysis.laws.intervals import Interval
from analysis.laws.observations import Observations
from analysis.laws.solver import LARGEST_EXPONENT, OBJECTIVES, SMALLEST_EXPONENT, Design, solve

START_EXPONENTS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0)
MANY_EXPONENTS = 3  # a grid of so many takes every other start
AGREEMENT = 1e-6  # objectives agree where they differ by less than this share
SAME_EXPONENT = 1e-3  # a larger spread of exponents with the same loss is reported
CONDITION_LIMIT = 100.0  # above, Belsley, Kuh & Welsch (1980) call collinearity severe
SMALLEST_START = 1e-3  # of a coefficient, in mean scores: at zero, it would have no derivative


@dataclass(frozen=True)
class Fit:
    """A fitted law, and how far to trust it.

    Attributes:
        observations: what it was fitted to.
        form: the law.
        objective: what was minimised; `OBJECTIVES` says it in words.
        parameters: name -> value in the units of the score and of the variables.
        loss: the objective's value: the sum of squares, or of Huber's losses, over the rows.
        starts: from how many starts the exponents were searched.
        agreeing: share of the starts whose loss is the best one up to a share of `AGREEMENT`.
        spread: largest difference of an exponent between those starts; far from 0, the optimum is not unique, as may
            happen where Huber's loss is linear.
        converged: whether the best start ended where the gradient vanishes.
        condition: condition number of the Jacobian of the residuals by E, log coefficients and exponents at the
            optimum, columns of unit length, without parameters at a bound.
        problems: what to know before the law is used; empty if nothing.
        solution: the solver's own parameters.
    """

    observations: Observations
    form: Form
    objective: Objective
    parameters: Mapping[str, float]
    loss: float
    starts: int
    agreeing: float
    spread: float
    converged: bool
    condition: float
    problems: tuple[str, ...]
    solution: Array

    @property
    def status(self) -> str:
        """ok, or what is wrong in a few words."""
        return "; ".join(self.problems) or "ok"

    @property
    def equation(self) -> str:
        """The law with its numbers: "FID-50K = 252 C^-0.272 T^-0.192"."""
        law = self.form.formula.removeprefix("y = ")
        for name, value in self.parameters.items():
            law = re.sub(rf"\b{name}\b", f"{value:{'.3g' if name in self.form.exponents else '.4g'}}", law)
        return f"{self.observations.metric} = {law}"

    @property
    def num_parameters(self) -> int:
        """Parameters of the law, those at a bound included."""
        return len(self.form.parameters)

    @cached_property
    def residuals(self) -> Array:
        """Of the score (objective values) or of its log: fitted - observed."""
        problem = problem_of(self.observations, self.form, self.objective)
        return problem.design.residuals(self.solution[None], problem.scores[None])[0] * problem.residual_scale

    @property
    def aic(self) -> float:
        """n log(sum of squares / n) + 2 k, k = the law's parameters + 1 for the variance (Gaussian residuals).

        NaN for log-huber, which is no likelihood. Comparable between forms of one objective on the same rows only.
        """
        return akaike(self.loss, len(self.observations), self.num_parameters, self.objective)

    @property
    def aicc(self) -> float:
        """AIC with the correction for few rows, + 2 k (k + 1) / (n - k - 1); infinite where n <= k + 1."""
        return self.aic + few_rows_correction(len(self.observations), self.num_parameters)

    def __call__(self, **variables: ArrayLike) -> Array:
        """The law's score: `fit(compute=[...], tokens=[...])`."""
        return self.form([self.parameters[name] for name in self.form.parameters], variables)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: everything but the rows themselves, which are named."""
        rows = self.observations
        return {
            "form": self.form.name,
            "formula": self.form.formula,
            "metric": rows.metric,
            "objective": self.objective,
            "objective_in_words": OBJECTIVES[self.objective],
            "loss": self.loss,
            "parameters": dict(self.parameters),
            "num_rows": len(rows),
            "rows": list(rows.names),
            "left_out": list(rows.left_out),
            "compute": rows.compute.to_dict() if "compute" in self.form.variables else None,
            "starts": self.starts,
            "agreeing": self.agreeing,
            "agreement_tolerance": AGREEMENT,
            "exponent_spread": self.spread,
            "converged": self.converged,
            "condition": self.condition,
            "aic": None if np.isnan(self.aic) else self.aic,
            "aicc": float(self.aicc) if np.isfinite(self.aicc) else None,
            "aic_k": self.num_parameters + 1,
            "status": self.status,
        }

    def sentence(self, intervals: Mapping[str, Interval] | None = None) -> str:
        """The law in words, with `intervals` of its parameters if given."""
        known = {name: f"{value:.4g}" for name, value in self.parameters.items()}
        known |= {
            name: f"{each.estimate:.4g} ({each.level:.0%}: {each.low:.4g} to {each.high:.4g})"
            for name, each in (intervals or {}).items()
        }
        values = ", ".join(f"{name} = {value}" for name, value in known.items())
        unit = f" with C in {self.observations.compute.unit}" if "compute" in self.form.variables else ""
        return (
            f"{self.observations.metric}: {self.form.formula}{unit}: {values} "
            f"({len(self.observations)} rows; {self.objective}; status: {self.status})."
        )


def akaike(loss: float, rows: int, parameters: int, objective: Objective) -> float:
    """AIC of a sum of squares `loss`; see `Fit.aic`."""
    if objective == "log-huber":
        return float("nan")
    return rows * float(np.log(max(loss, 1e-300) / rows)) + 2 * (parameters + 1)


def few_rows_correction(rows: int, parameters: int) -> float:
    """What AICc adds to AIC (Hurvich & Tsai 1989); see `Fit.aicc`."""
    k = parameters + 1
    return 2 * k * (k + 1) / (rows - k - 1) if rows > k + 1 else float("inf")


@dataclass(frozen=True)
class Problem:
    """Observations as the solver wants them: log variables around `centre`, scores in units of `score_scale`."""

    design: Design
    scores: Array
    score_scale: float
    centre: Array

    @property
    def residual_scale(self) -> float:
        """The solver's residuals times this are the score's, or its log's."""
        return self.score_scale if self.design.objective == "values" else 1.0

    def natural(self, solutions: Array) -> Array:
        """(..., solver's parameters) -> (..., the form's parameters, in units of score and variables)."""
        form, first = self.design.form, 1 + len(self.design.form.terms)
        exponents = solutions[..., first:]
        shifts = exponents * self.centre
        moved = [shifts[..., where].sum(axis=-1) for where in form.exponent_ranges]
        coefficients = self.score_scale * np.exp(solutions[..., 1:first] + np.stack(moved, axis=-1))
        floor = [self.score_scale * solutions[..., :1]] if form.floor else []
        return np.concatenate([*floor, coefficients, exponents], axis=-1)


def problem_of(rows: Observations, form: Form, objective: Objective, centre: Array | None = None) -> Problem:
    """Centred at the geometric means, or around the logs `centre`."""
    logs = form.logs(rows.variables)
    middle = np.mean(logs, axis=0) if centre is None else centre
    scale = float(np.exp(np.mean(np.log(rows.score))))
    return Problem(Design(form, objective, logs - middle), rows.score / scale, scale, middle)


def fit(rows: Observations, form: str = "power-floor", objective: Objective = "logs") -> Fit:
    """Fit the law `form` (a name of `FORMS`) by minimising `objective` (a name of `OBJECTIVES`).

    Variable projection (Golub & Pereyra 1973) gives the starts: for each point of a grid of exponents, E and the
    coefficients are the solution of a linear non-negative least-squares problem of relative residuals. From every one
    of them, Levenberg-Marquardt with analytic derivatives goes on in all parameters, for log-huber with the weights of
    iterated least squares. The same procedure for all three objectives, so that starts can be compared.

    Besides Hoffmann et al.'s choice of log-huber: their own optimiser had stopped early, on a mean instead of a sum
    (Besiroglu et al. 2024, arXiv:2404.10102); the sum is minimised here, to a vanishing gradient.

    Raises:
        ResultsError: an unknown form or objective, too few rows, or a variable with too few different values.
    """
    law = checked(rows, form, objective)
    problem = problem_of(rows, law, objective)
    starts = projected_starts(problem)
    count = len(starts)
    ones = np.ones((count, len(rows)))
    found = solve(problem.design, problem.scores * ones, ones, starts)
    best = int(np.argmin(found.losses))
    agreeing = found.losses <= found.losses[best] * (1 + AGREEMENT) + 1e-20 * len(rows)
    solution = found.parameters[best]
    scale = 1.0 if objective == "log-huber" else 2 * problem.residual_scale**2
    condition = _condition(problem, solution)
    spread = float(np.max(np.ptp(found.parameters[agreeing, 1 + len(law.terms) :], axis=0)))
    converged = bool(found.converged[best])
    return Fit(
        rows,
        law,
        objective,
        dict(zip(law.parameters, problem.natural(solution).tolist(), strict=True)),
        float(found.losses[best]) * scale,
        count,
        float(np.mean(agreeing)),
        spread,
        converged,
        condition,
        _problems(law, solution, condition, converged, int(np.sum(agreeing)), count, spread),
        solution,
    )


def checked(rows: Observations, form: str, objective: str) -> Form:
    """The form of that name, if it can be fitted to `rows`.

    Raises:
        ResultsError: see `fit`.
    """
    check_known("form", form, FORMS)
    check_known("objective", objective, OBJECTIVES)
    law = FORMS[form]
    parameters = len(law.parameters)
    if len(rows) <= parameters:
        raise ResultsError(
            f"{law.formula} has {parameters} parameters and there {'is' if len(rows) == 1 else 'are'} {len(rows)} "
            f"row{'' if len(rows) == 1 else 's'}; needed: at least {parameters + 1}"
        )
    logs = law.logs(rows.variables)
    for name, column in zip(law.variables, logs.T, strict=True):
        values = len(np.unique(column))
        if values < law.least_values(name):
            said = rows.columns.get(name, name)
            same = f"{said} is {rows.variables[name][0]:g} in every row" if values == 1 else f"{said}: {values} values"
            raise ResultsError(f"{law.formula}: {same}; needed: at least {law.least_values(name)} different values")
    different = len(np.unique(logs, axis=0))
    if different < parameters:
        raise ResultsError(
            f"{law.formula} has {parameters} parameters and the rows {different} different "
            f"({', '.join(rows.columns.get(name, name) for name in law.variables)}); needed: at least {parameters}"
        )
    return law


def projected_starts(problem: Problem) -> Array:
    """(starts, solver's parameters): a grid of exponents, the rest by linear non-negative least squares."""
    design, form = problem.design, problem.design.form
    starts = []
    grid = START_EXPONENTS[:: 2 if len(form.exponents) >= MANY_EXPONENTS else 1]
    for exponents in itertools.product(grid, repeat=len(form.exponents)):
        powers = [np.exp(-design.logs[:, where] @ np.array(exponents)[where]) for where in form.exponent_ranges]
        columns = [*([np.ones(len(design.logs))] if form.floor else []), *powers]
        linear, _ = nnls(np.stack(columns, axis=1) / problem.scores[:, None], np.ones(len(design.logs)))
        floor, coefficients = (linear[0], linear[1:]) if form.floor else (0.0, linear)
        starts.append([floor, *np.log(np.maximum(coefficients, SMALLEST_START)), *exponents])
    return np.array(starts)


def _condition(problem: Problem, solution: Array) -> float:
    low, high = problem.design.bounds()
    inside = (solution > low) & (solution < high)
    if not inside.any():
        return float("inf")
    columns = problem.design.jacobian(solution[None])[0][inside]
    return float(np.linalg.cond((columns / np.linalg.norm(columns, axis=1, keepdims=True)).T))


def _problems(
    form: Form, solution: Array, condition: float, converged: bool, agreeing: int, starts: int, spread: float
) -> tuple[str, ...]:
    first = 1 + len(form.terms)
    found = []
    if not converged:
        found.append("not converged")
    if agreeing < 2:
        found.append(f"only 1 of {starts} starts reaches the best loss: it may be a local minimum")
    if spread > SAME_EXPONENT:
        found.append(f"not unique: starts with the same loss differ by {spread:.2g} in an exponent")
    if form.floor and solution[0] == 0:
        found.append("E is 0, at its bound: the rows show no floor")
    for name, value in zip(form.coefficients, solution[1:first], strict=True):
        if value < np.log(SMALLEST_START):
            found.append(f"{name} vanishes: the score does not fall with {_variables_of(form, name)}")
    for name, value in zip(form.exponents, solution[first:], strict=True):
        if value in (SMALLEST_EXPONENT, LARGEST_EXPONENT):
            found.append(f"{name} is at its bound, {value:g}")
    if condition > CONDITION_LIMIT:
        found.append(f"poorly determined: condition number {condition:.0f}, over {CONDITION_LIMIT:.0f}")
    return tuple(found)


def _variables_of(form: Form, coefficient: str) -> str:
    return " and ".join(form.terms[form.coefficients.index(coefficient)])
