"""A law of training fitted to the earlier half of a study's training, and asked about the later half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.advice.budget import FLOPS_PER_GMAC_IMAGE, ROUNDING, pf_days
from analysis.advice.curves import Curves, measured_curves
from analysis.advice.laws import TrainingLaw, fit_training_law
from analysis.errors import ResultsError
from analysis.laws.choices import Objective
from analysis.laws.forms import Array
from analysis.laws.observations import Observations

FITTED = 0.5  # of each model's longest training: scores up to there are fitted, the others predicted
MIN_CHOICES = 2  # models with a measured score at the budget


@dataclass(frozen=True)
class BackTest:
    """What a law of the earlier scores says of the later ones.

    Attributes:
        law: fitted to the scores up to half of each model's longest training.
        num_fitted: rows.
        ratios: (n,) predicted / measured of each row of the study; NaN where it was fitted or is not predicted.
        budget_flops: the largest training compute at which two models or more have a measured score; None if there is
            none, and then `models` is empty.
        models: those of them that the law speaks of, `predicted` and `measured` their scores there, the latter along
            their own curves.
    """

    law: TrainingLaw
    num_fitted: int
    ratios: Array
    budget_flops: float | None
    models: tuple[str, ...]
    predicted: Array
    measured: Array

    @property
    def num_predicted(self) -> int:
        """Rows."""
        return int(np.sum(np.isfinite(self.ratios)))

    @property
    def rms(self) -> float:
        """Root mean square of the log of `ratios`."""
        return float(np.sqrt(np.nanmean(np.log(self.ratios) ** 2)))

    @property
    def bias(self) -> float:
        """Geometric mean of `ratios`, - 1."""
        return float(np.expm1(np.nanmean(np.log(self.ratios))))

    @property
    def chosen(self) -> int:
        """Of `models`, which the law would have trained."""
        return int(np.argmin(self.predicted))

    @property
    def best(self) -> int:
        """Of `models`, which measured best."""
        return int(np.argmin(self.measured))

    @property
    def regret(self) -> float:
        """Measured score of the model that the law would have trained, over the best one's, - 1."""
        return float(self.measured[self.chosen] / self.measured[self.best] - 1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        choice = {
            "budget_pf_days": pf_days(self.budget_flops),
            "models": list(self.models),
            "predicted": self.predicted.tolist(),
            "measured": self.measured.tolist(),
            "chosen": self.models[self.chosen],
            "best": self.models[self.best],
            "regret": self.regret,
        } if self.budget_flops else None  # fmt: skip
        return {
            **self.law.to_dict(),
            "fitted_up_to_share_of_training": FITTED,
            "rows_fitted": self.num_fitted,
            "rows_predicted": self.num_predicted,
            "bias": self.bias,
            "rms_log": self.rms,
            "choice": choice,
        }

    def choice(self) -> str:
        """Which of `models` it would have trained, and whether that was right."""
        chosen, best = self.models[self.chosen], self.models[self.best]
        verdict = "which was the best" if chosen == best else f"{self.regret:.1%} worse than the best, {best}"
        return f"of {' and '.join(self.models)} it would have chosen {chosen}, {verdict}"


def back_test(rows: Observations, name: str, objective: Objective = "logs") -> BackTest:
    """Fit the law `name` to the earlier scores of each model, and predict the later ones.

    Raises:
        ResultsError: too few earlier scores for the law, or no later ones.
    """
    images, models = np.asarray(rows.variables["images"]), np.array(rows.models)
    longest = {model: float(np.max(images[models == model])) for model in dict.fromkeys(rows.models)}
    earlier = images <= (1 + ROUNDING) * FITTED * np.array([longest[model] for model in rows.models])
    if not np.any(earlier) or np.all(earlier):
        raise ResultsError("no model has scores in both halves of its training; needed: several scored steps")
    law = fit_training_law(rows.at(np.flatnonzero(earlier)), name, objective)
    ratios = np.full(len(rows), np.nan)
    for row in np.flatnonzero(~earlier):
        at = {variable: values[row] for variable, values in rows.variables.items()}
        ratios[row] = law.score(rows.models[row], at) / rows.score[row]
    if not np.any(np.isfinite(ratios)):
        raise ResultsError("no model has an earlier curve and later scores; needed: several steps in both halves")
    curves = measured_curves(rows)
    budget, shared = _largest_shared(curves, [model for model in curves.models if model in law.fits])
    at = [
        {**curves.variables[model], "images": budget / (FLOPS_PER_GMAC_IMAGE * curves.variables[model]["compute"])}
        for model in shared
    ]
    return BackTest(
        law,
        int(np.sum(earlier)),
        ratios,
        budget or None,
        tuple(shared),
        np.array([law.score(model, point) for model, point in zip(shared, at, strict=True)]),
        np.array([curves.score(model, budget) for model in shared]),
    )


def _largest_shared(curves: Curves, models: Sequence[str]) -> tuple[float, list[str]]:
    """The largest compute that at least two models' scored steps enclose, and these; 0 and none if there is none."""
    for budget in sorted({curves.ends(model)[1] for model in models}, reverse=True):
        shared = [model for model in models if np.isfinite(curves.score(model, budget))]
        if len(shared) >= MIN_CHOICES:
            return budget, shared
    return 0.0, []
