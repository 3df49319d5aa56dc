"""Scores of the same weights that differ in one setting of the evaluation, such as the guidance scale."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.drawing.picture import NothingToDraw
from analysis.figures.scores import Scores, finite
from analysis.figures.sources import Source
from analysis.results.tables import evaluation_keys


def varied(source: Source, setting: str, ignored: tuple[str, ...] = ()) -> list[Scores]:
    """Scores that differ in `setting` only: a group for each step, data and rest of the evaluation key.

    A group holds the runs that were scored at two values of `setting` at least, at the last step at which any was: a
    seed with one value alone would move the mean there, and nowhere else.
    ignored: keys that `setting` decides.

    Raises:
        NothingToDraw: no run was scored at two values.
        ResultsError: a score is not finite.
    """
    tables = source.tables
    evals: Any = pd.concat([part for part in (tables.evals, tables.other_evals) if not part.empty] or [tables.evals])
    evals = evals.drop_duplicates(["run", "step", *evaluation_keys])
    finite(evals, "fid")
    evals = evals.merge(tables.runs.loc[:, ["run", "data", "batch_size"]], on="run", how="left")
    rest = ["data", "batch_size", *(name for name in evaluation_keys if name not in (setting, *ignored))]
    values = evals.groupby(["run", "step", *rest], dropna=False)[setting].transform("nunique")
    several = evals.loc[values > 1]
    if several.empty:
        raise NothingToDraw(
            f"no run was scored at several values of {setting}; needed: two scores that differ in it only"
        )
    groups = several.groupby(rest, dropna=False, sort=False)
    return [Scores(source, group.loc[group["step"] == group["step"].max()]) for _, group in groups]
