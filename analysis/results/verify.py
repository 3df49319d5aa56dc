"""What a results folder says, compared with itself: tables with each other, what follows from them, figures' data.

Each check says what was compared, and every mismatch in one line. All is read as it lies there, by none of the readers
that mend what earlier versions left out.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.compute import training_gmacs
from analysis.results.npz import read_npz
from analysis.results.published import compared
from analysis.results.sample_file import ACCEPTED, DIMENSIONS
from analysis.results.tables import RUN_COLUMNS, Tables, correlations, evaluation_keys, load

# What was compared, and the mismatches.
Check = tuple[str, list[str]]

TABLES = ("runs", "train", "evals")
TABLE_SUFFIXES = (".csv", ".parquet")
KEYS = {"runs": ("run",), "train": ("run", "step"), "evals": ("run", "step", *evaluation_keys)}
SHOWN = 3  # mismatches of one kind, before "and so many more"
CLOSE = 1e-9  # relative: sums of other orders, on other machines
PNG, PNG_END, PDF, PDF_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82", b"%PDF-", b"%%EOF"


def verify_results(folder: Path) -> Iterator[Check]:
    """The checks of a folder that `ditbench collect` made or that holds other results; nothing of its subfolders."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _WHOLE)
    damaged: list[str] = []
    for path in files:
        problems = _limited(_WHOLE[path.suffix](path))
        damaged += problems
        yield f"{path}: whole", problems
    if damaged or not any(path.stem in TABLES and path.suffix in TABLE_SUFFIXES for path in files):
        return
    try:
        tables = load(folder)
    except (ResultsError, KeyError) as error:
        yield f"{folder}: tables", [str(error)]
        return
    frames: dict[str, Any] = {name: pd.read_parquet(folder / f"{name}.parquet") for name in TABLES}
    for name, frame in frames.items():
        yield _csv_against_parquet(folder / f"{name}.csv", frame)
        yield _unique(folder / f"{name}.parquet", frame, KEYS[name])
    yield from _of_runs(folder, frames, tables)
    yield from _steps(folder, frames)
    yield from _derived(folder, frames, tables)
    yield _samples(folder, tables)
    for path in files:
        if path.suffix == ".csv" and path.stem not in (*TABLES, "correlations", "published", "other_evals"):
            yield from _plotted(path, folder.resolve().name, tables)


# --- tables


def _csv_against_parquet(path: Path, table: pd.DataFrame) -> Check:
    what = f"{path}: {len(table)} rows of {table.shape[1]} columns against {path.with_suffix('.parquet').name}"
    try:
        header, rows = _rows(path)
    except (OSError, ValueError) as error:
        return what, [f"{path}: {error}"]
    if header != list(table.columns):
        return what, [f"{path}: columns {', '.join(header)}; the parquet file has {', '.join(map(str, table.columns))}"]
    if len(rows) != len(table):
        return what, [f"{path}: {len(rows)} rows; the parquet file has {len(table)}"]
    problems = [
        f"{path}: row {number}: {name} is {cells[column]!r}; the parquet file has {value!r}"
        for column, name in enumerate(header)
        for number, (cells, value) in enumerate(zip(rows, table[name].tolist(), strict=True), start=1)
        if not _same(cells[column], value)
    ]
    return what, _limited(problems)


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, strict=True)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, the header {len(header)}")
    if len(set(header)) < len(header):
        raise ValueError(f"a column is there twice: {', '.join(header)}")
    return header, rows


def _same(cell: str, value: Any) -> bool:
    if value is None or value is pd.NA or value != value or value == "":
        return cell == "" or cell.lower() == "nan"
    if isinstance(value, bool):
        return cell == str(value)
    if isinstance(value, (int, float)):
        try:
            return float(cell) == value
        except ValueError:
            return False
    return cell == str(value)


def _unique(path: Path, table: pd.DataFrame, key: tuple[str, ...]) -> Check:
    names = [name for name in key if name in table.columns]
    twice = [", ".join(map(str, row)) for row in table.loc[table.duplicated(names), names[:2]].to_numpy()]
    said = "run, step and evaluation" if len(names) > 2 else " and ".join(names)
    problems = [f"{path}: {' and '.join(names[:2])} {found} is there twice" for found in twice]
    return f"{path}: {len(table)} rows, one for each {said}", _limited(problems)


def _of_runs(folder: Path, frames: dict[str, Any], tables: Tables) -> Iterator[Check]:
    """Every row belongs to a run, and says of it what the table of runs says."""
    runs = frames["runs"].set_index("run")
    for name, table in (("train", frames["train"]), ("evals", frames["evals"]), ("other_evals", tables.other_evals)):
        path = folder / f"{name}.{'csv' if name == 'other_evals' else 'parquet'}"
        unknown = sorted(set(table["run"]) - set(runs.index))
        problems = [f"{path}: run {run} is not in {folder / 'runs.parquet'}" for run in unknown]
        known = table.loc[table["run"].isin(list(runs.index))]
        shared = [column for column in RUN_COLUMNS[1:] if column in table.columns and column in runs.columns]
        for column in shared:
            theirs = known["run"].map(runs[column])
            differ = (known[column] != theirs) & ~(known[column].isna() & theirs.isna())
            problems += [
                f"{path}: run {run}: {column} is {value!r}; {folder / 'runs.parquet'} has {runs[column][run]!r}"
                for run, value in known.loc[differ.fillna(True), ["run", column]]
                .drop_duplicates()
                .itertuples(index=False)
            ]
        if len(table):
            yield (
                f"{path}: the runs of {len(table)} rows, and {len(shared)} columns of each, as in runs",
                _limited(problems),
            )


def _steps(folder: Path, frames: dict[str, Any]) -> Iterator[Check]:
    """No row of training is missing: the steps are those that some log_every and save_every give."""
    problems: list[str] = []
    scored: dict[Any, Any] = frames["evals"].groupby("run")["step"].agg(set).to_dict()
    logged: dict[Any, Any] = frames["train"].groupby("run")["step"].agg(list).to_dict()
    for run in frames["runs"].to_dict("records"):
        steps, kept = logged.get(run["run"], []), set(scored.get(run["run"], set()))
        path = folder / "train.parquet"
        if run["state"] == "finished":
            for name, last in (("train", max(steps, default=0)), ("evals", max(kept, default=0))):
                if last != run["steps"]:
                    problem = f"run {run['run']} is finished with {run['steps']} steps; its last row is of step {last}"
                    problems.append(f"{folder / name}.parquet: {problem}")
        if missing := _missing(sorted(steps), kept):
            problems.append(f"{path}: run {run['run']}: no row of step {', '.join(map(str, missing[:SHOWN]))}")
    rows = len(frames["train"])
    yield f"{folder / 'train.parquet'}: no step of {rows} rows is missing", _limited(problems)


def _missing(steps: list[int], kept: set[int]) -> list[int]:
    """Steps that a log would have: every L-th, every S-th (the states) and the kept ones, for the likeliest L and S."""
    if not steps:
        return []
    last, there = steps[-1], set(steps)
    needed = {step for step in kept if step <= last}
    best: list[int] | None = None
    # A state's interval, if it shows, is a step that is logged; what both give too much or too little is missing.
    for log_every in sorted({step for step in (*steps[:3], *np.diff(steps).tolist()) if step}):
        every = set(range(log_every, last + 1, log_every))
        others = sorted(there - every - needed - {last})
        for save_every in others[:1] or [last + 1]:
            expected = every | needed | {last} | set(range(save_every, last + 1, save_every))
            if there - expected:
                continue
            missing = sorted(expected - there)
            if best is None or len(missing) < len(best):
                best = missing
    return best or []


def _derived(folder: Path, frames: dict[str, Any], tables: Tables) -> Iterator[Check]:
    """What follows from other columns or tables."""
    runs, train = frames["runs"], frames["train"]
    by_run = runs.set_index("run")
    spent = training_gmacs(
        runs["gmacs"].to_numpy(float), runs["batch_size"].to_numpy(float), runs["steps"].to_numpy(float)
    )
    yield _close(f"{folder / 'runs.parquet'}: training_gmacs", runs["run"], runs["training_gmacs"], spent)
    gmacs, batch = (train["run"].map(by_run[name]).to_numpy(float) for name in ("gmacs", "batch_size"))
    spent = training_gmacs(gmacs, batch, train["step"].to_numpy(float))
    where = train["run"] + " step " + train["step"].astype(str)
    yield _close(f"{folder / 'train.parquet'}: gmacs_spent", where, train["gmacs_spent"], spent)
    path = folder / "correlations.csv"
    if path.is_file():
        yield _same_table(path, correlations(tables.evals))
    if (folder / "published.csv").is_file():
        yield _same_table(folder / "published.csv", compared(tables))


def _close(what: str, where: pd.Series, found: pd.Series, expected: Any) -> Check:
    values = found.to_numpy(dtype=float, na_value=np.nan)
    wrong = ~np.isclose(values, expected, rtol=CLOSE, atol=0, equal_nan=True) & ~np.isnan(values)
    problems = [
        f"{what} of {place} is {value!r}; recomputed {other!r}"
        for place, value, other in zip(
            where[wrong], values[wrong].tolist(), np.asarray(expected)[wrong].tolist(), strict=True
        )
    ]
    return f"{what} of {len(values)} rows, recomputed", _limited(problems)


def _same_table(path: Path, expected: pd.DataFrame) -> Check:
    """A csv file against the table that the others give; columns of other versions are left out."""
    what = f"{path}: {len(expected)} rows, recomputed"
    try:
        header, rows = _rows(path)
    except (OSError, ValueError) as error:
        return what, [f"{path}: {error}"]
    if len(rows) != len(expected):
        return what, [f"{path}: {len(rows)} rows; recomputed {len(expected)}"]
    problems = [
        f"{path}: row {number}: {name} is {cells[column]!r}; recomputed {value!r}"
        for column, name in enumerate(header)
        if name in expected.columns
        for number, (cells, value) in enumerate(zip(rows, expected[name].tolist(), strict=True), start=1)
        if not _same(cells[column], value) and not _nearly(cells[column], value)
    ]
    return what, _limited(problems)


def _nearly(found: Any, value: Any) -> bool:
    try:
        return bool(np.isclose(float(found), float(value), rtol=CLOSE, atol=0, equal_nan=True))
    except (TypeError, ValueError):
        return False


def _samples(folder: Path, tables: Tables) -> Check:
    path = folder / "samples.npz"
    known = set(tables.runs["run"])
    problems = [f"{path}: run {run} is not in {folder / 'runs.parquet'}" for run in sorted({*tables.samples} - known)]
    for run, images in tables.samples.items():
        if images.dtype != np.uint8 or images.ndim not in DIMENSIONS:
            problems.append(f"{path}: run {run}: {images.dtype} of shape {images.shape}; accepted: {ACCEPTED}")
    return f"{path}: samples of {len(tables.samples)} runs", _limited(problems)


# --- figures' data

# Of a score's key, what follows from the sampler, its steps and the scale of guidance.
FOLLOWING = ("guidance_channels", "guidance_interval", "guide", "network_calls")


def _plotted(path: Path, source: str, tables: Tables) -> Iterator[Check]:
    """The means, lowest and highest of a figure's csv against the tables; rows of other sources are left alone."""
    try:
        table = pd.read_csv(path, dtype={"label": "str", "source": "str"})
    except (ValueError, UnicodeDecodeError):
        return  # said above, or no figure's
    whose = next((name for name in ("source", "panel") if name in table.columns), None)
    if whose is None or "label" not in table.columns or len(set(tables.runs["block"].dropna())) > 1:
        return
    table = table.loc[table[whose] == source]
    scores = pd.concat([frame for frame in (tables.evals, tables.other_evals) if not frame.empty] or [tables.evals])
    rows_of = {"loss": _by_label(tables.train), "": _by_label(scores)}
    recipes = {label: rows[0] for label, rows in _by_label(tables.evals).items()}
    problems, plotted = [], 0
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        where = f"{path}: line {number + 2}"
        for value, name, low, high in _values(row):
            rows = rows_of.get(name, rows_of[""]).get(row["label"], [])
            if not rows or name not in rows[0]:
                continue
            found = [
                float(one[name]) for one in _selected(rows, recipes.get(row["label"], {}), row) if pd.notna(one[name])
            ]
            plotted += 1
            if "num_seeds" in row and "seed" not in row and len(found) > row["num_seeds"]:
                # A figure of some seeds, such as those that were sampled in other ways as well.
                if not min(found) * (1 - CLOSE) <= value <= max(found) * (1 + CLOSE):
                    problems.append(f"{where}: {name} of {row['label']} is no mean of what the tables have")
                continue
            if not found:
                problems.append(f"{where}: {name} of {row['label']}: the tables have none")
                continue
            right = {"mean": float(np.mean(found)), "lowest": min(found), "highest": max(found)}
            said = {"mean": value, "lowest": low, "highest": high}
            wrong = [kind for kind, shown in said.items() if shown is not None and not _nearly(shown, right[kind])]
            if wrong:
                kind = wrong[0]
                problems.append(
                    f"{where}: the {kind} {name} of {row['label']} is {said[kind]!r}; the tables give {right[kind]!r}"
                )
    if plotted:
        yield f"{path}: {plotted} plotted values against the tables", _limited(problems)


def _by_label(table: pd.DataFrame) -> dict[Any, list[dict[Any, Any]]]:
    found: dict[Any, list[dict[Any, Any]]] = {}
    for row in table.to_dict("records"):
        found.setdefault(row["label"], []).append(row)
    return found


def _values(row: dict[Any, Any]) -> Iterator[tuple[float, str, float | None, float | None]]:
    """A row's plotted value, the metric it is of, and its range."""
    if "metric" in row:
        yield row["mean"], row["metric"], row.get("min"), row.get("max")
        return
    for name in ("fid", "loss", "kid"):
        if bool(pd.notna(row.get(name))):
            yield row[name], name, row.get(f"{name}_min"), row.get(f"{name}_max")


def _selected(rows: list[dict[Any, Any]], recipe: dict[Any, Any], row: dict[Any, Any]) -> list[dict[Any, Any]]:
    """Of a model's rows those that a plotted value is the mean of: that agree in all that its row says.

    What a row does not say of a score's key is as in the recipe, by which the model's own scores were made.
    """
    wanted = {name: row[name] for name in ("seed", "step", *evaluation_keys) if name in row}
    said = [name for name in evaluation_keys if name in wanted and name in recipe]
    is_other = any(not _agrees(recipe[name], wanted[name]) for name in said)
    as_in_recipe = [name for name in evaluation_keys if name in recipe and not (is_other and name in FOLLOWING)]
    wanted = {name: recipe[name] for name in as_in_recipe} | wanted
    chosen = [one for one in rows if all(_agrees(one[name], value) for name, value in wanted.items() if name in one)]
    last = max((one["step"] for one in chosen), default=None)
    return chosen if "step" in row else [one for one in chosen if one["step"] == last]


def _agrees(one: Any, other: Any) -> bool:
    missing: list[bool] = [bool(pd.isna(value)) for value in (one, other)]
    return all(missing) if any(missing) else bool(one == other)


# --- files of any kind


def _whole_csv(path: Path) -> list[str]:
    try:
        _rows(path)
    except (OSError, ValueError, csv.Error) as error:
        return [f"{path}: {error}"]
    return []


def _whole_json(path: Path) -> list[str]:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return [f"{path}: not JSON ({error})"]
    return []


def _whole_npz(path: Path) -> list[str]:
    try:
        read_npz(path)
    except ValueError as error:
        return [f"{path}: {error}"]
    return []


def _whole_parquet(path: Path) -> list[str]:
    try:
        pd.read_parquet(path)
    except (OSError, ValueError) as error:
        return [f"{path}: not a whole parquet file ({error})"]
    return []


def _begins_and_ends(start: bytes, end: bytes, path: Path) -> list[str]:
    content = path.read_bytes()
    whole = content.startswith(start) and content.rstrip().endswith(end)
    return [] if whole else [f"{path}: cut short, or no {path.suffix[1:].upper()}"]


_WHOLE = {
    ".csv": _whole_csv,
    ".json": _whole_json,
    ".npz": _whole_npz,
    ".parquet": _whole_parquet,
    ".png": lambda path: _begins_and_ends(PNG, PNG_END, path),
    ".pdf": lambda path: _begins_and_ends(PDF, PDF_END, path),
}


def _limited(problems: Iterable[str]) -> list[str]:
    problems = list(problems)
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], *([f"... and {more} more of this kind"] if more > 0 else [])]
