"""Scores of the same weights that differ in one setting of the evaluation, such as the guidance scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.drawing.picture import NothingToDraw
from analysis.figures.scores import Scores, finite, unhashed
from analysis.figures.sources import Source
from analysis.results.sampled import told_apart
from analysis.results.tables import evaluation_keys


def varied(source: Source, setting: str, ignored: tuple[str, ...] = (), every_step: bool = False) -> list[Scores]:
    """Scores that differ in `setting` only: a group for each data and rest of the evaluation key.

    A group holds the runs that were scored at two values of `setting` at least, at the last step at which any was, or
    at `every_step`: a seed with one value alone would move the mean there, and nowhere else. Where there are several,
    each group's source says in its `design` in what it differs from the others.
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
    groups: Any = [group for _, group in several.groupby(rest, dropna=False, sort=False)]
    if not every_step:
        groups = [group.loc[group["step"] == group["step"].max()] for group in groups]
    keys: Any = pd.concat([group.head(1) for group in groups])
    apart = told_apart([name for name in rest if not source.published and keys[name].nunique(dropna=False) > 1])
    designs = [
        ", ".join(filter(None, [source.design, *(_said(name, group[name].iloc[0]) for name in apart)]))
        for group in groups
    ]
    return [Scores(replace(source, design=design), group) for design, group in zip(designs, groups, strict=True)]


def _said(name: str, value: Any) -> str:
    """A setting's value where that tells groups apart: "digits", "guidance scale 1.5"; nothing where it has none."""
    if pd.isna(value):
        return ""
    text = f"{value:g}" if isinstance(value, float) else unhashed(value)
    return text if name in ("sampler", "data") else f"{name.replace('_', ' ')} {text}"
