"""The rows that a law is fitted to: scores, what they are explained by, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.errors import ResultsError
from analysis.laws.compute import AS_GIVEN, COMPUTE, Compute
from analysis.laws.forms import Array


@dataclass(frozen=True)
class Observations:
    """Scores and what they are explained by: one row per evaluation.

    Attributes:
        metric: name of the score; lower is better, and every value is positive.
        score: (n,).
        variables: name -> (n,), as the forms name them: compute (in `compute`'s unit), tokens, params, images.
        models: (n,) the model of each row: what is resampled together and held out together.
        names: (n,) unique; what a row is called in messages.
        seeds: (n,) the training seed of each row: what is resampled together across models; empty if not known.
        compute: the convention of the variable compute.
        left_out: rows of the tables that are not here, and why.
        patches: (n,) the patch of each row's model, pixels a side or, of clips, "2x4x4"; empty if not known, or if a
            model has none.
        given_up: runs without a score here that failed for good: those that are left may flatter their design.
        columns: variable -> the column of a CSV that it was, models among them, where it was one.
        as_published: whether the scores are FIDs of the data and by the whole key of a published one without guidance.
    """

    metric: str
    score: Array
    variables: Mapping[str, Array]
    models: tuple[str, ...]
    names: tuple[str, ...]
    seeds: tuple[str, ...] = ()
    compute: Compute = COMPUTE["forward"]
    left_out: tuple[str, ...] = ()
    patches: tuple[Any, ...] = ()
    given_up: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    as_published: bool = False

    def __post_init__(self) -> None:
        for name, values in (("score", self.score), *self.variables.items()):
            if np.shape(values) != (len(self.names),):
                raise ResultsError(f"{name}: {np.shape(values)} values; needed: one for each of {len(self.names)} rows")
            for row, value in zip(self.names, values, strict=True):
                if not (np.isfinite(value) and value > 0):
                    what = self.metric if name == "score" else name
                    raise ResultsError(f"{row}: {what} is {value:g}; a law needs finite, positive values")
        repeated = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if repeated:
            raise ResultsError(f"{repeated[0]} is there {self.names.count(repeated[0])} times; needed: one run of each")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def counted(self) -> str:
        """What `models` are called: a CSV that does not name any has rows."""
        return "rows" if self.columns and "models" not in self.columns else "models"

    def at(self, rows: Iterable[int]) -> Observations:
        """Only these rows."""
        chosen = list(rows)
        return replace(
            self,
            score=self.score[chosen],
            variables={name: values[chosen] for name, values in self.variables.items()},
            models=tuple(self.models[row] for row in chosen),
            names=tuple(self.names[row] for row in chosen),
            seeds=tuple(self.seeds[row] for row in chosen) if self.seeds else (),
            patches=tuple(self.patches[row] for row in chosen) if self.patches else (),
        )


def observations(score: ArrayLike, **variables: ArrayLike) -> Observations:
    """Observations from plain lists, every row a model of its own: `observations(fid, compute=..., tokens=...)`.

    Raises:
        ResultsError: lists of different lengths, or values that are not positive and finite.
    """
    scores = np.asarray(score, dtype=float)
    names = tuple(f"row {row}" for row in range(len(scores)))
    columns = {name: np.asarray(values, dtype=float) for name, values in variables.items()}
    return Observations("score", scores, columns, names, names, compute=AS_GIVEN)
