"""baselines.csv of a results folder: scores of images that no network made, beside which models' are read.

`ditbench baselines` makes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.results.csv_text import read_csv
from analysis.results.run_folders import EVALUATION_KEY_TYPES

FILE = "baselines.csv"
NAMES = {
    "gaussian": "Gaussian per class and pixel",
    "gaussian-full": "Gaussian per class",
    "real-halves": "real against real (halves)",
    "real": "real images",
}
"""What people are told of those that `ditbench baselines` scores."""
MEANINGS = {
    "gaussian": "images of each class's mean and variance, every pixel by itself",
    "gaussian-full": "images of each class's mean and covariance",
    "real-halves": "{images:,} real images against {against:,} others",
    "real": "{images:,} of the {against:,} real images, against all of them: what so many true samples score",
}
KEY = ("num_samples", "labels", "reference", "extractor")
"""The columns in which a baseline and a score must agree to stand side by side."""
ENDS = ("_min", "_max")
TYPES = {
    "baseline": "str",
    "data": "str",
    **{name: EVALUATION_KEY_TYPES[name] for name in (*KEY, "kid_subset_size")},
    **dict.fromkeys(("images", "against", "draws", "seed"), "Int64"),
}
SCORES = ("fid", *(f"fid{end}" for end in ENDS))


def no_baselines() -> pd.DataFrame:
    types = TYPES | dict.fromkeys(SCORES, "float64")
    return pd.DataFrame({name: pd.array([], dtype=kind) for name, kind in types.items()})  # pyright: ignore


def read_baselines(path: Path) -> pd.DataFrame:
    """One row for each baseline and the conditions of scores that it stands beside; none where there is no file.

    Columns: baseline, data, the `KEY`, kid_subset_size, images (that were scored), against (how many), draws, seed, and
    of each metric the mean, METRIC_min and METRIC_max over the draws; of one that was not computed, empty.

    Raises:
        ResultsError: the file is damaged, a column is missing, or a value is missing or none that it can be.
    """
    if not path.is_file():
        return no_baselines()
    found = pd.DataFrame(read_csv(path, TYPES | dict.fromkeys(SCORES, "float64"), (*TYPES, *SCORES)))
    for name in found.columns:
        values = found[name]
        if name in TYPES:
            bad = values.isna() & (name != "kid_subset_size")
            if name in ("images", "against", "draws", "num_samples"):
                bad |= (values < 1).fillna(False)
        elif not pd.api.types.is_numeric_dtype(values):
            raise ResultsError(f"{path}: '{name}' is not of numbers; accepted: the scores of a metric")
        else:
            numbers = values.to_numpy(float, na_value=np.nan)
            bad = pd.Series(~np.isfinite(numbers) & (~np.isnan(numbers) | (name in SCORES)))
            if name in SCORES:
                bad |= numbers < 0
        for row in np.flatnonzero(bad)[:1]:
            value = values.iloc[row]
            said = "missing" if pd.isna(value) else f"{value}"
            raise ResultsError(f"{path}: row {row + 1}: '{name}' is {said}; `ditbench baselines` makes the file again")
    for row in np.flatnonzero(found.duplicated(["baseline", *KEY]))[:1]:
        raise ResultsError(f"{path}: row {row + 1}: {found['baseline'].iloc[row]} is there twice; accepted: once")
    return found


def name_of(baseline: str) -> str:
    """For people; one of your own is called what the file calls it."""
    return NAMES.get(baseline, baseline)


def explanation(rows: Iterable[Any]) -> str:
    """What the baselines `rows` are, of whose images and how often drawn, and their Fréchet distances; a sentence."""
    said, draws = [], set()
    for row in rows:
        meaning = MEANINGS.get(row["baseline"], "").format(images=row["images"], against=row["against"])
        said.append(f"{name_of(row['baseline'])}, {row['fid']:.4g}{f' ({meaning})' if meaning else ''}")
        draws.add(int(row["draws"]))
    return f"{'; '.join(dict.fromkeys(said))}; means of {' or '.join(map(str, sorted(draws)))} draws."


def beside(baselines: pd.DataFrame, evals: pd.DataFrame) -> pd.DataFrame:
    """The baselines under the conditions of `evals`, scores that are all of one key."""
    if evals.empty:
        return baselines.iloc[:0]
    wanted = [evals[name].iloc[0] for name in KEY]
    rows = baselines.loc[:, [*KEY]].itertuples(index=False)
    return baselines.loc[[not any(map(pd.isna, wanted)) and list(row) == wanted for row in rows]]


def differing(baselines: pd.DataFrame, evals: pd.DataFrame) -> str:
    """In what the nearest of `baselines` is not under the conditions of `evals`: "num_samples 400, the scores' 250"."""
    wanted = {name: evals[name].iloc[0] for name in KEY}
    rows = baselines.loc[:, [*KEY]].to_dict("records")
    others = [{name: row[name] for name in KEY if row[name] != wanted[name]} for row in rows]
    nearest = min(others, key=len)
    return "; ".join(f"{name} {value}, the scores' {wanted[name]}" for name, value in nearest.items())
