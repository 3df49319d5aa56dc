"""The points of anyone's CSV as observations: which column is which letter of a law, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.choices import COLUMN_OPTIONS
from analysis.laws.compute import AS_GIVEN
from analysis.laws.forms import FORMS
from analysis.laws.observations import Observations
from analysis.laws.report import BY_PATCH
from analysis.results.csv_text import read_numbered

SMALLEST, LARGEST = 1e-30, 1e30
"""What is farther from 1 is no quantity that anybody measured, and its powers overflow."""

KINDS = {"patches": "Int64", "models": "str", "seeds": "str"}
"""pandas' types of the columns that are not logged."""


def forms_of(path: Path, columns: Mapping[str, str], form: str, forms: Iterable[str]) -> tuple[str, ...]:
    """The laws that can be fitted to these columns: `form`, or if it is "all", each of `forms`, names of `FORMS`.

    Raises:
        ResultsError: a column that a law needs is not named, or one is named that no law has a letter for.
    """
    needs = {name: {*FORMS[name].variables, "score"} for name in forms} | {BY_PATCH: {"score", "compute", "patches"}}
    chosen = tuple(name for name in forms if needs[name] <= columns.keys()) if form == "all" else (form,)
    missing = set().union(*(needs[name] for name in chosen)) - columns.keys()
    if missing or not chosen:
        known = ", ".join(read_numbered(path, by_hand=True)[0].columns)
        needed = f"{_options(missing)} COLUMN" if missing else "--y COLUMN and --x COLUMN, or --y, --params and --data"
        raise ResultsError(f"{path}: {'' if form == 'all' else f'--form {form} '}needs {needed}; it has {known}")
    unused = columns.keys() - set().union(*(needs[name] for name in chosen)) - KINDS.keys()
    if unused:
        which = "no law of these columns has" if form == "all" else f"--form {form} does not have"
        raise ResultsError(f"{_options(unused)}: {which} such a term")
    return chosen


def csv_observations(
    path: Path, columns: Mapping[str, str], without_highest: int = 0, patch: str | None = None
) -> Observations:
    """The rows of a CSV with a header. Lines that begin with # are comments.

    Args:
        columns: what -> its column: score and variables as `Observations` names them, and models, seeds and patches;
            without models, each row counts as one.
        without_highest: so many rows of the highest score are left out.
        patch: keep the rows of one patch size.

    Raises:
        ResultsError: the file is no such table, a column is missing or there twice, or a cell is empty, no number, or
            not between `SMALLEST` and `LARGEST`: the line, as an editor counts, and the column are named.
    """
    twice = [name for name in columns.values() if [*columns.values()].count(name) > 1]
    if twice:
        both = [what for what, name in columns.items() if name == twice[0]]
        raise ResultsError(f"{path}: {_options(both)} are one column, {twice[0]}; accepted: a column each")
    types = {name: KINDS.get(what, "float64") for what, name in columns.items()}
    table, lines = read_numbered(path, types, columns.values(), by_hand=True)
    for what, name in columns.items():
        _check(path, table[name], lines, is_logged=what not in KINDS)
    rows = np.arange(len(table))
    if patch is not None:
        patches = table[columns["patches"]]
        rows = rows[(patches.astype("str") == patch).to_numpy(bool)]
        if not len(rows):
            known = ", ".join(map(str, sorted(set(patches))))
            raise ResultsError(f"{path}: patch {patch}: no such rows; accepted: {known}")
    score = table[columns["score"]].to_numpy(float)
    highest = rows[np.argsort(-score[rows], kind="stable")][:without_highest]
    kept = [int(row) for row in rows if row not in set(highest)]
    if not kept:
        said = f"{len(rows)} rows, {len(highest)} of them left out" if len(rows) else "no row"
        raise ResultsError(f"{path}: {said}; needed: points to fit a law to")

    def texts(what: str) -> tuple[str, ...]:
        return tuple(str(table[columns[what]].iloc[row]) for row in kept) if what in columns else ()

    names = tuple(f"line {lines[row]}" for row in kept)
    variables = {what: name for what, name in columns.items() if what not in (*KINDS, "score")}
    return Observations(
        columns["score"],
        score[kept],
        {what: table[name].to_numpy(float)[kept] for what, name in variables.items()},
        texts("models") or names,
        names,
        texts("seeds"),
        replace(AS_GIVEN, definition=f"column {variables.get('compute', '')}"),
        tuple(f"line {lines[row]}: {columns['score']} {score[row]:g}, of the highest" for row in sorted(highest)),
        tuple(map(int, texts("patches"))),
        columns={what: name for what, name in columns.items() if what != "score"},
    )


def _check(path: Path, values: Any, lines: list[int], is_logged: bool) -> None:
    """Refuse an empty cell and, where logs are taken, what has none."""
    bad = values.isna().to_numpy() if not is_logged else ~((values >= SMALLEST) & (values <= LARGEST)).to_numpy()
    in_range = f"positive values, {SMALLEST:g} to {LARGEST:g}, since laws are of logs"
    for row in np.flatnonzero(bad)[:1]:
        value = values.iloc[row]
        said = "empty or nan" if pd.isna(value) else f"{value:g}"
        needed = in_range if is_logged else "a value in every row"
        raise ResultsError(f"{path}: line {lines[row]}: '{values.name}' is {said}; needed: {needed}")


def _options(names: Iterable[str]) -> str:
    """As people give them: "--x and --y"."""
    return " and ".join(option for name, option in COLUMN_OPTIONS.items() if name in set(names))
