"""Which model size for how much training compute: the three approaches of Hoffmann et al. 2022 (arXiv:2203.15556)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.errors import ResultsError
from analysis.laws.fit import Fit
from analysis.laws.forms import Array
from analysis.laws.power_law import power_law

ENVELOPE_BUDGETS = 1500  # as in section 3.1
MIN_BUDGETS = 3
MIN_SIZES = 3


@dataclass(frozen=True)
class Allocation:
    """The law of best sizes: params = coefficient x compute^exponent, from `budgets` points.

    Attributes:
        approach: 1 (envelope) or 2 (IsoFLOP).
        exponent: a of N_opt ~ C^a; where C = k N D, the data's is 1 - a.
        coefficient: in params and the unit of the compute given.
        compute, params, score: the best of each budget.
        left_out: budgets that say nothing of the best size, and why.
    """

    approach: int
    exponent: float
    coefficient: float
    compute: Array
    params: Array
    score: Array
    left_out: tuple[str, ...]

    def __call__(self, compute: ArrayLike) -> Array:
        """The best number of parameters for `compute`."""
        return self.coefficient * np.asarray(compute, dtype=float) ** self.exponent

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "approach": self.approach,
            "exponent": self.exponent,
            "coefficient": self.coefficient,
            "compute": self.compute.tolist(),
            "params": self.params.tolist(),
            "score": self.score.tolist(),
            "left_out": list(self.left_out),
        }

    def sentence(self) -> str:
        """The law in words."""
        return (
            f"Chinchilla approach {self.approach}: N_opt = {self.coefficient:.4g} C^{self.exponent:.3f} from "
            f"{len(self.compute)} budgets ({len(self.left_out)} left out)."
        )


def envelope(params: ArrayLike, compute: ArrayLike, score: ArrayLike, budgets: int = ENVELOPE_BUDGETS) -> Allocation:
    """Approach 1: the lower envelope of the training curves, one curve per number of parameters.

    Each curve is interpolated in log compute and log score; at each of `budgets` log-spaced budgets, the size of the
    lowest curve is the best. Sizes at the edge, the smallest and the largest, are left out: a smaller or larger one
    might have been better, and they would flatten the law.

    Known biases: points inside a curve are not what a run that was planned for that budget would reach, if its
    learning rate had decayed (the paper's DiTs train at a constant one, where this bias is small); neighbouring
    budgets share runs, so their number says nothing about certainty; and between few sizes the envelope moves in steps.

    Args:
        params: model size of each row.
        compute: training compute so far of each row, in any unit.
        score: loss or other score; less is better.

    Raises:
        ResultsError: fewer than 4 sizes, bad values, or no budget at which an inner size is best.
    """
    sizes, spent, scores = _rows(params, compute, score)
    different = np.unique(sizes)
    if len(different) < MIN_SIZES + 1:
        raise ResultsError(f"approach 1: {len(different)} model sizes; needed: at least {MIN_SIZES + 1}")
    curves = []
    for size in different:
        its = np.argsort(spent[sizes == size])
        logs = np.log(spent[sizes == size][its])
        if len(np.unique(logs)) < len(logs):
            raise ResultsError(f"approach 1: the size {size:g} has two scores at one compute; needed: one curve a size")
        curves.append((logs, np.log(scores[sizes == size][its])))
    grid = np.linspace(np.log(spent.min()), np.log(spent.max()), budgets)
    values = np.array([np.interp(grid, *curve, left=np.inf, right=np.inf) for curve in curves])
    best = np.argmin(values, axis=0)
    several = np.sum(np.isfinite(values), axis=0) > 1
    inner = several & (best > 0) & (best < len(different) - 1)
    left_out = (
        *([f"{np.sum(~several)} budgets: fewer than two curves reach them"] if np.any(~several) else []),
        *([f"{np.sum(several & ~inner)} budgets: the best size is at the edge"] if np.any(several & ~inner) else []),
    )
    lowest = np.exp(np.min(values, axis=0))
    return _allocation(1, np.exp(grid[inner]), different[best[inner]], lowest[inner], left_out)


def isoflop(params: ArrayLike, compute: ArrayLike, score: ArrayLike) -> Allocation:
    """Approach 2: a parabola of the score in log params at each compute, whose lowest point is the best size.

    Rows of one budget have exactly the same `compute`. A budget with fewer than three sizes, a parabola that is not
    convex, or a lowest point outside its sizes is left out.

    Known bias: a parabola is symmetric, and E + A N^-alpha + B (k N / C)^beta in log N is not, unless alpha = beta. So
    the best size is off even without noise, the more so the wider the sizes are spaced and the less they are centred on
    the best one; if the centring drifts with the budget, the exponent is wrong too (Xu et al., arXiv:2603.22339).
    Approach 3, `fit(rows, "chinchilla")`, does not have this bias.

    Raises:
        ResultsError: bad values, or fewer than 3 budgets left.
    """
    sizes, spent, scores = _rows(params, compute, score)
    compute_left, best_sizes, best_scores, left_out = [], [], [], []
    for budget in np.unique(spent):
        logs, its = np.log(sizes[spent == budget]), scores[spent == budget]
        if len(np.unique(logs)) < MIN_SIZES:
            left_out.append(f"budget {budget:.4g}: {len(np.unique(logs))} sizes; needed: at least {MIN_SIZES}")
            continue
        centre = logs.mean()
        curvature, slope, level = np.polyfit(logs - centre, its, 2)
        lowest = centre - slope / (2 * curvature) if curvature > 0 else np.nan
        if not logs.min() <= lowest <= logs.max():
            left_out.append(f"budget {budget:.4g}: no lowest point within its sizes")
            continue
        compute_left.append(budget)
        best_sizes.append(np.exp(lowest))
        best_scores.append(level - slope**2 / (4 * curvature))
    return _allocation(2, np.array(compute_left), np.array(best_sizes), np.array(best_scores), tuple(left_out))


def best_size(a: float, alpha: float, b: float, beta: float, product: ArrayLike) -> Array:
    """N at which a N^-alpha + b D^-beta is lowest for N D = `product` (Hoffmann et al. 2022, eq. 4)."""
    total = alpha + beta
    return (alpha * a / (beta * b)) ** (1 / total) * np.asarray(product, dtype=float) ** (beta / total)


def optimum(law: Fit, compute: ArrayLike, compute_per_param_image: float = 6.0) -> tuple[Array, Array, Array]:
    """Approach 3: params, data and score of the best model for `compute`, by a fitted E + A N^-alpha + B D^-beta.

    With C = k N D: N is the `best_size` for the product C / k, and D = (C / k) / N.

    Args:
        law: a fit of the form chinchilla.
        compute: C.
        compute_per_param_image: k. 6 is FLOPs if D counts tokens (C = 6 N D); where D counts images, 6 x tokens.

    Raises:
        ResultsError: a fit of another form, or one in which a term vanishes.
    """
    if law.form.name != "chinchilla":
        raise ResultsError(f"approach 3 needs a fit of the form chinchilla; this one is {law.form.name}")
    values = law.parameters
    if values["A"] <= 0 or values["B"] <= 0:
        raise ResultsError("approach 3: a term of the law vanishes, and so no size is best")
    product = np.asarray(compute, dtype=float) / compute_per_param_image
    params = best_size(values["A"], values["alpha"], values["B"], values["beta"], product)
    data = product / params
    return params, data, law.form([values[name] for name in law.form.parameters], {"params": params, "images": data})


def _rows(params: ArrayLike, compute: ArrayLike, score: ArrayLike) -> tuple[Array, Array, Array]:
    sizes, spent, scores = (np.asarray(values, dtype=float) for values in (params, compute, score))
    if not sizes.shape == spent.shape == scores.shape:
        raise ResultsError(f"{sizes.size} params, {spent.size} compute and {scores.size} scores; needed: one a row")
    for name, values in (("params", sizes), ("compute", spent), ("score", scores)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise ResultsError(f"row {bad[0]}: {name} is {values[bad[0]]:g}; needed: finite, positive values")
    return sizes, spent, scores


def _allocation(approach: int, compute: Array, params: Array, score: Array, left_out: tuple[str, ...]) -> Allocation:
    needed = MIN_BUDGETS if approach == 2 else 2
    if len(compute) < needed:
        why = f": {'; '.join(left_out)}" if left_out else ""
        raise ResultsError(f"approach {approach}: {len(compute)} budgets with a best size; needed: {needed}{why}")
    if len(np.unique(params)) < 2:
        raise ResultsError(f"approach {approach}: the same size is best at every budget; needed: more budgets or sizes")
    law = power_law(compute, params)
    return Allocation(approach, law.exponent, law.coefficient, compute, params, score, left_out)
