"""A law through each published family, and its largest model predicted from the smaller ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.errors import ResultsError
from analysis.figures.fitted_law import LEVEL, power_law_band
from analysis.laws.intervals import Interval
from analysis.laws.power_law import PowerLawFit, power_law
from analysis.results.published import AT_THE_SOURCE
from analysis.results.tables import MIN_MODELS

COEFFICIENTS = 2  # of a power law: it goes through any two points
# What the rows of one law have in common: whose they are, and how they were trained and scored.
SAME = ("laboratory", "family", "image_size", "patch", "train_steps_k", "batch_size", "guidance", "labels")


@dataclass(frozen=True)
class FamilyLaw:
    """FID = a GMACs^b through the models of one family from one laboratory.

    Attributes:
        rows: of `published_families`, a model each, by compute.
        law: through all of them, least squares on logarithms.
        exponent: b, with its interval by Student's t of so few models.
        predicted: the largest model's score by the law through the others. Its interval is that of one more model, and
            infinite where those are two: a line through two points says nothing of its own error.
    """

    rows: pd.DataFrame
    law: PowerLawFit
    exponent: Interval
    predicted: Interval

    @property
    def largest(self) -> dict[Any, Any]:
        """The row of most compute."""
        return self.rows.iloc[-1].to_dict()

    @property
    def relative_error(self) -> float:
        """predicted / printed - 1."""
        return self.predicted.estimate / self.largest["fid"] - 1


def family_laws(rows: pd.DataFrame, second_hand: bool = False) -> list[FamilyLaw]:
    """The law of each family and laboratory that has at least three models, scored alike.

    rows: of `published_families`; those whose labels are not known are in no law. second_hand: whether rows that were
    read second hand count too.
    """
    used = rows if second_hand else rows.loc[rows["checked"] == AT_THE_SOURCE]
    groups: Any = used.loc[used["labels"].notna()].groupby(list(SAME), sort=False, dropna=False)
    return [family_law(group) for _, group in groups if len(group) >= MIN_MODELS]


def family_law(rows: pd.DataFrame) -> FamilyLaw:
    """The law through `rows` of `published_families`, of one family and laboratory.

    Raises:
        ResultsError: two of them differ in one of `SAME` or are of one model, or they are too few.
    """
    for message in _refusals(rows):
        raise ResultsError(message)
    rows = rows.sort_values("gmacs", ignore_index=True)
    law = power_law(rows["gmacs"], rows["fid"])
    return FamilyLaw(rows, law, _exponent(law, rows), _largest_from_the_others(rows))


def _exponent(law: PowerLawFit, rows: pd.DataFrame) -> Interval:
    x = np.log(rows["gmacs"].to_numpy(float))
    residuals = np.log(rows["fid"].to_numpy(float) / law(rows["gmacs"]))
    left_over = len(rows) - COEFFICIENTS
    error = np.sqrt(np.sum(residuals**2) / left_over / np.sum((x - x.mean()) ** 2))
    half = float(stdtrit(left_over, (1 + LEVEL) / 2) * error)
    return Interval(law.exponent, law.exponent - half, law.exponent + half, LEVEL)


def _largest_from_the_others(rows: pd.DataFrame) -> Interval:
    others, largest = rows.iloc[:-1], rows["gmacs"].iloc[-1:]
    if len(others) <= COEFFICIENTS:
        return Interval(float(power_law(others["gmacs"], others["fid"])(largest)[0]), 0.0, np.inf, LEVEL)
    band = power_law_band(others["gmacs"], others["fid"], largest)
    return Interval(float(band.line[0]), float(band.low[0]), float(band.high[0]), LEVEL)


def _refusals(rows: pd.DataFrame) -> Iterator[str]:
    if len(rows) < MIN_MODELS:
        yield f"{len(rows)} models; needed: at least {MIN_MODELS} for a law that could be wrong"
    for column in SAME:
        values = rows[column].astype("object").where(rows[column].notna(), "not known")
        for index in np.flatnonzero(values != values.iloc[0])[:1]:
            said = [f"{values.iloc[at]} ({rows['model'].iloc[at]}, row {at + 1})" for at in (0, index)]
            yield f"'{column}' is {said[0]} and {said[1]}; accepted in one law: rows of one {column}"
    for column in ("model", "gmacs"):
        for twice in rows.loc[rows.duplicated(column), column]:
            yield f"'{column}' is {twice} in two rows; accepted in one law: models of different compute, once each"
