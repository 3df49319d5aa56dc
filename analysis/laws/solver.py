"""Levenberg-Marquardt with analytic derivatives for many laws at once: starts, resampled rows, profiles.

Each problem of a batch has its own start, row weights and scores; all share the rows' variables. Inside, variables are
divided by a centre and scores by their geometric mean, and coefficients are logs, so that units change nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from analysis.laws.choices import Objective
from analysis.laws.forms import Array, Form

OBJECTIVES: dict[Objective, str] = {
    "values": "sum of squared residuals of the score",
    "logs": "sum of squared residuals of log(score)",
    "log-huber": "sum of Huber losses, delta 0.001, of residuals of log(score) (Hoffmann et al. 2022, eq. 3)",
}
HUBER_DELTA = 1e-3
# Of the solver's parameters: E in mean scores, logs of the coefficients in mean scores, exponents.
SMALLEST_EXPONENT, LARGEST_EXPONENT = 1e-4, 10.0
LARGEST_LOG_COEFFICIENT = 40.0

MAX_ITERATIONS = 600
STATIONARY = 1e-9  # largest cosine between the residuals and a column of the Jacobian, as in MINPACK
NO_STEP = 1e-13
EXACT = 1e-26  # mean squared relative residual below which a fit is exact in double precision
CHUNK = 128  # problems at a time: their Jacobians stay in the processor's cache


@dataclass(frozen=True)
class Design:
    """What the problems of a batch share: `logs` (n, exponents), centred, of the form's variables."""

    form: Form
    objective: Objective
    logs: Array

    @property
    def size(self) -> int:
        """Number of the solver's parameters; E is among them even where the form has none (it is then held at 0)."""
        return 1 + len(self.form.terms) + len(self.form.exponents)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds of the solver's parameters."""
        terms, exponents = len(self.form.terms), len(self.form.exponents)
        low = [0.0, *[-LARGEST_LOG_COEFFICIENT] * terms, *[SMALLEST_EXPONENT] * exponents]
        high = [np.inf, *[LARGEST_LOG_COEFFICIENT] * terms, *[LARGEST_EXPONENT] * exponents]
        return np.array(low), np.array(high)

    def predicted(self, parameters: Array) -> Array:
        """Scores (problems, n) for parameters (problems, size)."""
        return parameters[:, :1] + sum(self._terms(parameters))

    def residuals(self, parameters: Array, scores: Array) -> Array:
        """Of the scores, or of their logs, as the objective says."""
        predicted = self.predicted(parameters)
        return predicted - scores if self.objective == "values" else np.log(predicted / scores)

    def jacobian(self, parameters: Array) -> Array:
        """Derivatives of the residuals, (problems, size, n)."""
        terms = self._terms(parameters)
        jacobian = np.empty((len(parameters), self.size, len(self.logs)))
        jacobian[:, 0] = 1
        for index, (term, where) in enumerate(zip(terms, self.form.exponent_ranges, strict=True)):
            jacobian[:, 1 + index] = term
            first = 1 + len(terms)
            for column in range(where.start, where.stop):
                jacobian[:, first + column] = -term * self.logs[:, column]
        if self.objective != "values":
            jacobian /= (parameters[:, :1] + sum(terms))[:, None, :]
        return jacobian

    def residual_curvature(self, parameters: Array, jacobian: Array, loss_slopes: Array) -> Array:
        """Second derivatives of the residuals, summed with weights `loss_slopes` (problems, n): (problems, size, size).

        The log of a term is linear in the parameters, so that a term's second derivatives are products of first ones.
        """
        terms = self._terms(parameters)
        share = loss_slopes if self.objective == "values" else loss_slopes / (parameters[:, :1] + sum(terms))
        total = np.zeros((len(parameters), self.size, self.size))
        for index, (term, where) in enumerate(zip(terms, self.form.exponent_ranges, strict=True)):
            slopes = np.zeros((self.size, len(self.logs)))
            slopes[1 + index] = 1
            slopes[1 + len(terms) + where.start : 1 + len(terms) + where.stop] = -self.logs[:, where].T
            total += (slopes * (share * term)[:, None, :]) @ slopes.T
        if self.objective != "values":
            total -= (jacobian * loss_slopes[:, None, :]) @ jacobian.transpose(0, 2, 1)
        return total

    def losses(self, residuals: Array) -> Array:
        """Each row's part of the objective, whose sum is minimised: half of a square, or Huber's."""
        if self.objective != "log-huber":
            return residuals**2 / 2
        size = np.abs(residuals)
        return np.where(size <= HUBER_DELTA, residuals**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))

    def curvature_weights(self, residuals: Array) -> Array:
        """Weights with which squares have the objective's gradient: 1, or less where Huber's loss is linear."""
        if self.objective != "log-huber":
            return np.ones_like(residuals)
        return HUBER_DELTA / np.maximum(np.abs(residuals), HUBER_DELTA)

    def gradient(self, parameters: Array, scores: Array, weights: Array) -> Array:
        """Of the weighted sum of `losses`, (problems, size)."""
        residuals = self.residuals(parameters, scores)
        loss_slopes = weights * self.curvature_weights(residuals) * residuals
        return np.einsum("bpn,bn->bp", self.jacobian(parameters), loss_slopes)

    def _terms(self, parameters: Array) -> list[Array]:
        first = 1 + len(self.form.terms)
        exponents = parameters[:, first:]
        return [
            np.exp(parameters[:, 1 + index, None] - exponents[:, where] @ self.logs[:, where].T)
            for index, where in enumerate(self.form.exponent_ranges)
        ]


@dataclass(frozen=True)
class Solutions:
    """Of each problem: parameters (problems, size), weighted sum of losses, and whether it converged."""

    parameters: Array
    losses: Array
    converged: np.ndarray


def solve(design: Design, scores: Array, weights: Array, starts: Array, free: np.ndarray | None = None) -> Solutions:
    """Minimise each problem's weighted sum of losses within the bounds.

    Args:
        design: what the problems share.
        scores: (problems, n), divided by their scale.
        weights: (problems, n), >= 0.
        starts: (problems, size).
        free: (size,), what may move; default: all, E only where the form has one.
    """
    if free is None:
        free = np.array([design.form.floor, *[True] * (design.size - 1)])
    with np.errstate(all="ignore"):  # a step that overflows has no lower loss, and is not taken
        parts = [
            _solve_chunk(design, scores[part], weights[part], starts[part], free)
            for part in (slice(start, start + CHUNK) for start in range(0, len(starts), CHUNK))
        ]
    return Solutions(
        np.concatenate([part.parameters for part in parts]),
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.converged for part in parts]),
    )


def _solve_chunk(design: Design, scores: Array, weights: Array, starts: Array, free: np.ndarray) -> Solutions:
    low, high = design.bounds()
    parameters = np.where(free, np.clip(starts, low, high), starts)
    losses = np.sum(weights * design.losses(design.residuals(parameters, scores)), axis=1)
    converged = np.zeros(len(starts), dtype=bool)
    # Two curvatures to go by take turns, each with its own damping: that of (iterated) least squares, safe from afar,
    # and one that is right near the optimum, where the first may be very slow: Newton's, or for Huber's loss that of
    # the rows where it is quadratic.
    dampings = np.full((2, len(starts)), 1e-3)
    todo = np.arange(len(starts))
    for iteration in range(MAX_ITERATIONS):
        if not len(todo):
            break
        at, target, weight = parameters[todo], scores[todo], weights[todo]
        damping, near = dampings[iteration % 2], iteration % 2 == 1
        step, cosine = _step(design, at, target, weight, damping[todo], free, low, high, near)
        trial = np.where(free, np.clip(at + step, low, high), at)
        trial_losses = np.sum(weight * design.losses(design.residuals(trial, target)), axis=1)
        better = trial_losses < losses[todo]
        tiny = np.max(np.abs(trial - at), axis=1) <= NO_STEP
        exact = losses[todo] <= EXACT * np.sum(weight, axis=1)
        parameters[todo[better]] = trial[better]
        losses[todo[better]] = trial_losses[better]
        damping[todo] = np.clip(damping[todo] * np.where(better, 0.2, 5.0), 1e-14, 1e14)
        done = (cosine <= STATIONARY) | exact | tiny
        converged[todo[done]] = True
        todo = todo[~done]
    return Solutions(parameters, losses, converged)


def _step(
    design: Design,
    at: Array,
    scores: Array,
    weights: Array,
    damping: Array,
    free: np.ndarray,
    low: Array,
    high: Array,
    near: bool,
) -> tuple[Array, Array]:
    """The damped step within the bounds, by the second curvature if `near`, and how far from stationary: STATIONARY."""
    residuals = design.residuals(at, scores)
    jacobian = design.jacobian(at)
    of_squares = weights * design.curvature_weights(residuals)
    gradient = np.einsum("bpn,bn->bp", jacobian, of_squares * residuals)
    size = np.sqrt(np.sum(of_squares * residuals**2, axis=1))[:, None]
    lengths = np.sqrt(np.einsum("bpn,bn->bp", jacobian**2, of_squares))
    huber = design.objective == "log-huber"
    near_weights = np.where(np.abs(residuals) <= HUBER_DELTA, weights, 0.0) if near and huber else of_squares
    curvature = (jacobian * near_weights[:, None, :]) @ jacobian.transpose(0, 2, 1)
    scale = np.einsum("bpp->bp", curvature).copy()
    if near and not huber:
        curvature = curvature + design.residual_curvature(at, jacobian, of_squares * residuals)
    held = ~free | ((at <= low) & (gradient > 0)) | ((at >= high) & (gradient < 0))
    gradient = np.where(held, 0.0, gradient)
    curvature = np.where(held[:, :, None] | held[:, None, :], 0.0, curvature)
    scale = np.where(held, 1.0, np.maximum(scale, 1e-300))
    cosine = np.max(np.abs(gradient) / np.maximum(lengths * size, 1e-300), axis=1)
    # In units in which the diagonal is 1, whatever the parameters' scales.
    root = np.sqrt(scale)
    scaled = curvature / (root[:, :, None] * root[:, None, :])
    diagonal = np.eye(design.size) * (damping[:, None, None] + held[:, :, None])
    step = -_solved(scaled + diagonal, (gradient / root)[:, :, None])[:, :, 0] / root
    return step, cosine


def _solved(matrices: Array, vectors: Array) -> Array:
    """NaN of a matrix that is singular, or no longer finite: no step, so that the next is damped more."""
    try:
        return np.linalg.solve(matrices, vectors).astype(float, copy=False)
    except np.linalg.LinAlgError:
        found: Array = np.full_like(vectors, np.nan)
        for row, (matrix, vector) in enumerate(zip(matrices, vectors, strict=True)):
            with suppress(np.linalg.LinAlgError):
                found[row] = np.linalg.solve(matrix, vector)
        return found
