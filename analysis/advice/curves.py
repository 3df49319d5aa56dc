"""What each model scored along its training, and between its scored steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.advice.budget import training_flops
from analysis.laws.forms import Array
from analysis.laws.observations import Observations


@dataclass(frozen=True)
class Curves:
    """Model -> log training FLOPs and log score at its scored steps, geometric means over seeds, by compute.

    Attributes:
        variables: model -> compute (GMACs of a forward pass) and tokens.
    """

    points: Mapping[str, tuple[Array, Array]]
    variables: Mapping[str, Mapping[str, float]]

    @property
    def models(self) -> tuple[str, ...]:
        """By compute, least first."""
        return tuple(sorted(self.points, key=lambda model: (self.variables[model]["compute"], model)))

    def ends(self, model: str) -> tuple[float, float]:
        """Training FLOPs of its first and last scored step."""
        flops, _ = self.points[model]
        return float(np.exp(flops[0])), float(np.exp(flops[-1]))

    def score(self, model: str, flops: float) -> float:
        """Interpolated in the logs of both; NaN before its first scored step and after its last."""
        spent, scores = self.points[model]
        at = np.log(flops)
        near = spent[np.argmin(np.abs(spent - at))]  # a scored step's own compute, up to rounding
        at = near if np.isclose(at, near, rtol=0, atol=1e-9) else at
        return float(np.exp(np.interp(at, spent, scores, left=np.nan, right=np.nan)))


def measured_curves(rows: Observations) -> Curves:
    """The curves of all models of `rows`, which has the variables compute, tokens and images."""
    flops, scores = np.log(training_flops(rows)), np.log(rows.score)
    models, points, variables = np.array(rows.models), {}, {}
    for model in dict.fromkeys(rows.models):
        its = np.flatnonzero(models == model)
        at, place = np.unique(flops[its], return_inverse=True)
        points[model] = (at, np.bincount(place, weights=scores[its]) / np.bincount(place))
        variables[model] = {name: float(rows.variables[name][its[0]]) for name in ("compute", "tokens")}
    return Curves(points, variables)
