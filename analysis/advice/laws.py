"""Laws of models and training, by name: a score for each model at any number of images seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.errors import ResultsError
from analysis.laws.choices import Objective, check_known
from analysis.laws.fit import Fit, fit
from analysis.laws.observations import Observations

CURVES = "curves"
JOINT = ("product", "sum")  # forms of compute, tokens and images
LAWS = (CURVES, *JOINT)
LATER = 0.5  # of its longest training: the share from which on a model's scores make its curve
WHOLE_STEPS = (
    0.02  # of that: by so much, half a budget may pay for less than half of its steps, which are whole numbers
)


@dataclass(frozen=True)
class TrainingLaw:
    """A name of `LAWS`, fitted: model -> the fit that holds for it.

    curves: each model has its own, y = A D^-beta, through its scores in the later half of its training; it says nothing
    of models that were not measured. The others have one fit for all models.

    Attributes:
        left_out: models without a curve, and why.
    """

    name: str
    fits: Mapping[str, Fit]
    left_out: tuple[str, ...] = ()

    @property
    def joint(self) -> Fit | None:
        """The one fit of all models; None for curves."""
        return None if self.name == CURVES else next(iter(self.fits.values()))

    @property
    def formula(self) -> str:
        """As text."""
        (formula,) = {law.form.formula for law in self.fits.values()}
        return f"{formula} for each model" if self.joint is None else formula

    def score(self, model: str, at: Mapping[str, float]) -> float:
        """What it says of `model` at compute, tokens and images; NaN if nothing."""
        return float(self.fits[model](**at)[0]) if model in self.fits else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        if self.joint is not None:
            return {"law": self.name, "fit": self.joint.to_dict()}
        return {
            "law": self.name,
            "formula": self.formula,
            "from_share_of_training": LATER,
            "curves": {
                model: {"parameters": dict(law.parameters), "num_rows": len(law.observations), "status": law.status}
                for model, law in self.fits.items()
            },
        }

    def sentence(self) -> str:
        """The law in words."""
        if self.joint is not None:
            return self.joint.sentence()
        exponents = ", ".join(f"{law.parameters['beta']:.2f} for {model}" for model, law in self.fits.items())
        return (
            f"{self.formula}, through its scores from half of its longest training on, D being images seen: "
            f"beta = {exponents}."
        )


def fit_training_law(rows: Observations, name: str, objective: Objective = "logs") -> TrainingLaw:
    """Fit the law `name` of `LAWS` to scores at several steps.

    Raises:
        ResultsError: an unknown name, too few rows, or no model with enough scores for a curve.
    """
    check_known("law", name, LAWS)
    if name == CURVES:
        return _own_curves(rows, objective)
    return TrainingLaw(name, dict.fromkeys(dict.fromkeys(rows.models), fit(rows, name, objective)))


def _own_curves(rows: Observations, objective: Objective) -> TrainingLaw:
    models, images = np.array(rows.models), np.asarray(rows.variables["images"])
    fits, left_out = {}, []
    for model in dict.fromkeys(rows.models):
        its = models == model
        try:
            later = np.flatnonzero(its & (images >= (1 - WHOLE_STEPS) * LATER * np.max(images[its])))
            fits[model] = fit(rows.at(later), "steps", objective)
        except ResultsError as error:
            left_out.append(f"{model} has no curve: {error}")
    if not fits:
        raise ResultsError(f"no model has a curve; {left_out[0]}")
    return TrainingLaw(CURVES, fits, tuple(left_out))
