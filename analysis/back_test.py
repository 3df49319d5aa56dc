"""A law of training fitted to the cheaper part of a study, and asked about the dearer part, which is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.errors import ResultsError
from analysis.law_forms import Array
from analysis.law_solver import Objective
from analysis.measured_curves import Curves, measured_curves
from analysis.observations import Observations
from analysis.scaling_laws import Fit, fit
from analysis.training_budget import FLOPS_PER_GMAC_IMAGE, ROUNDING, pf_days, training_flops

HELD_BACK = 4  # rows of more than 1 / HELD_BACK of the budget are not fitted
MIN_CHOICES = 2  # models with a measured score at the budget


@dataclass(frozen=True)
class BackTest:
    """What a law of the cheap rows says of the dear ones.

    Attributes:
        fit: to the rows of at most 1 / `HELD_BACK` of the budget.
        budget_flops: the largest training compute at which at least two models have a measured score.
        models: those, and `predicted` and `measured` their scores there, the latter along their own curves.
        ratios: predicted / measured of every row not fitted.
    """

    fit: Fit
    budget_flops: float
    models: tuple[str, ...]
    predicted: Array
    measured: Array
    ratios: Array

    @property
    def rms(self) -> float:
        """Root mean square of the log of `ratios`."""
        return float(np.sqrt(np.mean(np.log(self.ratios) ** 2)))

    @property
    def bias(self) -> float:
        """Geometric mean of `ratios`, - 1."""
        return float(np.exp(np.mean(np.log(self.ratios))) - 1)

    @property
    def chosen(self) -> int:
        """Of `models`, which the law would have trained."""
        return int(np.argmin(self.predicted))

    @property
    def regret(self) -> float:
        """Measured score of the model that the law would have trained, over the best one's, - 1."""
        return float(self.measured[self.chosen] / np.min(self.measured) - 1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "form": self.fit.form.name,
            "parameters": dict(self.fit.parameters),
            "status": self.fit.status,
            "rows_fitted": len(self.fit.observations),
            "rows_predicted": len(self.ratios),
            "budget_pf_days": pf_days(self.budget_flops),
            "budget_flops": self.budget_flops,
            "fitted_up_to_share": 1 / HELD_BACK,
            "models": list(self.models),
            "predicted": self.predicted.tolist(),
            "measured": self.measured.tolist(),
            "chosen": self.models[self.chosen],
            "best": self.models[int(np.argmin(self.measured))],
            "regret": self.regret,
            "bias": self.bias,
            "rms_log": self.rms,
        }

    def sentence(self) -> str:
        """What it would have chosen, and how far off it was."""
        best = self.models[int(np.argmin(self.measured))]
        chosen, rows = self.models[self.chosen], len(self.fit.observations)
        verdict = (
            "which was the best" if chosen == best else f"which scored {self.regret:.1%} worse than the best, {best}"
        )
        return (
            f"{self.fit.form.name}, fitted to the {rows} rows of at most 1/{HELD_BACK} of "
            f"{pf_days(self.budget_flops):.3g} PF-days: of {', '.join(self.models)} it would have trained {chosen}, "
            f"{verdict}; the {len(self.ratios)} rows not fitted are predicted {self.bias:+.1%} off, "
            f"{np.expm1(self.rms):.1%} root mean square"
        )


def back_test(rows: Observations, form: str, objective: Objective = "logs") -> BackTest:
    """Fit `form` to the cheap rows, predict the others, and choose a model for the largest budget that allows a check.

    Raises:
        ResultsError: no budget at which two models have a score, or too few cheap rows for the form.
    """
    curves = measured_curves(rows)
    flops = training_flops(rows)
    budget = _largest_shared(curves)
    cheap = flops <= (1 + ROUNDING) * budget / HELD_BACK
    law = fit(rows.at(np.flatnonzero(cheap)), form, objective)
    dear = rows.at(np.flatnonzero(~cheap))
    models = tuple(model for model in curves.models if np.isfinite(curves.score(model, budget)))
    at = {name: np.array([curves.variables[model][name] for model in models]) for name in ("compute", "tokens")}
    at["images"] = budget / (FLOPS_PER_GMAC_IMAGE * at["compute"])
    return BackTest(
        law,
        budget,
        models,
        law(**at),
        np.array([curves.score(model, budget) for model in models]),
        law(**{name: dear.variables[name] for name in law.form.variables}) / dear.score,
    )


def _largest_shared(curves: Curves) -> float:
    """The largest compute that at least two models' scored steps enclose."""
    ends = sorted({curves.ends(model)[1] for model in curves.models}, reverse=True)
    for budget in ends:
        if sum(bool(np.isfinite(curves.score(model, budget))) for model in curves.models) >= MIN_CHOICES:
            return budget
    raise ResultsError(
        "no training compute at which two models have a measured score; needed: models scored at several steps"
    )
