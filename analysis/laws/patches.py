"""One power law for each patch size, to set beside a joint law with a token term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.errors import ResultsError
from analysis.laws.choices import Objective
from analysis.laws.fit import Fit, akaike, few_rows_correction, fit
from analysis.laws.observations import Observations
from analysis.results.tables import coarsest_first


@dataclass(frozen=True)
class PatchLaws:
    """`fits`: patch, coarsest first -> y = A C^-alpha of its models."""

    fits: Mapping[Any, Fit]

    @property
    def num_parameters(self) -> int:
        """Of all patch sizes together."""
        return sum(law.num_parameters for law in self.fits.values())

    @property
    def loss(self) -> float:
        """Sum over the patch sizes."""
        return sum(law.loss for law in self.fits.values())

    @property
    def aicc(self) -> float:
        """As `Fit.aicc`, of all laws as one with one variance; NaN for log-huber."""
        rows, k = sum(len(law.observations) for law in self.fits.values()), self.num_parameters
        objective = next(iter(self.fits.values())).objective
        return akaike(self.loss, rows, k, objective) + few_rows_correction(rows, k)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "loss": self.loss,
            "k": self.num_parameters + 1,
            "aicc": float(self.aicc) if np.isfinite(self.aicc) else None,
            "patches": {str(patch): law.to_dict() for patch, law in self.fits.items()},
        }

    def table(self) -> list[list[str]]:
        """Rows of text: patch, rows, A, alpha, loss, status."""
        return [
            [
                str(patch),
                str(len(law.observations)),
                f"{law.parameters['A']:.4g}",
                f"{law.parameters['alpha']:.4g}",
                f"{law.loss:.4g}",
                law.status,
            ]
            for patch, law in self.fits.items()
        ]

    def sentence(self) -> str:
        """The exponents."""
        said = [f"{law.parameters['alpha']:.3f} at patch {patch}" for patch, law in self.fits.items()]
        return f"One law for each patch size, y = A C^-alpha: alpha = {', '.join(said)}."


def laws_by_patch(rows: Observations, objective: Objective = "logs") -> PatchLaws:
    """Fit y = A C^-alpha to the models of each patch size.

    Raises:
        ResultsError: a model without a patch size; or see `fit`: the patch size is named.
    """
    if not rows.patches:
        raise ResultsError("not every model has a patch size")
    fits = {}
    for patch in coarsest_first(rows.patches):
        try:
            its = rows.at(row for row, value in enumerate(rows.patches) if value == patch)
            fits[patch] = fit(its, "power", objective)
        except ResultsError as error:
            raise ResultsError(f"patch {patch}: {error}") from error
    return PatchLaws(fits)
