"""Tidy tables: collected from the run folders of a sweep, read back, summarised and kept comparable."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from analysis.laws.power_law import log_linear, power_law
from analysis.results.files import write_arrays, write_csv, write_table
from analysis.results.published import compared, published
from analysis.results.run_folders import (
    DIT,
    EVALS_TYPES,
    EVALUATION_KEY_TYPES,
    IDDPM,
    OPTIMISATION_TYPES,
    SCORE_TYPES,
    SIZES,
    TRAIN_TYPES,
    ResultsError,
    Run,
    RunRecord,
    read_run,
)

__all__ = [
    "ResultsError",
    "Tables",
    "collect",
    "comparable",
    "correlations",
    "evaluation_keys",
    "load",
    "own_metrics",
    "published",
    "summary",
]

MIN_MODELS = 3  # fewer say nothing about a trend

evaluation_keys: tuple[str, ...] = tuple(EVALUATION_KEY_TYPES)
"""The columns in which two scores must agree before they may be compared."""

RUNS_TYPES = {
    "run": "str",
    "sweep": "str",
    "label": "str",
    "family": "str",
    "size": "str",
    "patch": "Int64",
    "model": "str",
    "block": "str",
    "objective": "str",
    "params": "Int64",
    "gmacs": "float64",
    "tokens": "Int64",
    "hidden_size": "Int64",
    "depth": "Int64",
    "num_heads": "Int64",
    "input_size": "Int64",
    "data": "str",
    "seed": "Int64",
    "steps": "Int64",
    "batch_size": "Int64",
    **OPTIMISATION_TYPES,
    "state": "str",
    "device": "str",
    "precision": "str",
    "commit": "str",
    "starts": "Int64",
    "started": "str",
    "finished": "str",
    "training_gmacs": "float64",
    "metrics": "str",
}
MODEL = ("family", "model", "size", "patch", "hidden_size", "depth", "num_heads", "input_size")
"""The columns that tell models apart: all that is known of a network but its block design. A label is free text."""

# The columns of `runs` that each row of the other tables has too.
RUN_COLUMNS = ("run", "label", *MODEL, "block", "seed", "gmacs")
# What tables of earlier versions lack, beside `RUN_COLUMNS`.
ADDED_LATER = {"runs": (*OPTIMISATION_TYPES, "metrics"), "train": (), "evals": ("fid_infinity", "sfid")}
ORDER = ["seed", "gmacs", "run"]


@dataclass(frozen=True)
class Tables:
    """What a sweep has measured so far.

    runs: one row per run: run (its id), sweep, label (free text), family, size ("" if unnamed), patch, model, block
        ("" if the family has none), params, gmacs, tokens, hidden_size, depth, num_heads, input_size, data, seed,
        steps, batch_size, learning_rate, weight_decay, ema_decay and label_dropout (of the recipe), state
        (finished, failed or unfinished), device, precision and commit (of the last start), starts (how many),
        started (the first) and finished, as local times, training_gmacs, metrics (JSON: column of evals -> title and
        lower_is_better; read by `own_metrics`).
    train: one row per logged step: the run's `RUN_COLUMNS`; step, loss, mse, vb, lr, grad_norm, images_per_s,
        gmacs_spent.
    evals: one row per evaluation: the run's `RUN_COLUMNS`; step, the `evaluation_keys`, extractor_accuracy, fid,
        fid_percent (of the trace of the real features' covariance), fid_infinity, sfid (these two empty where they
        were not computed), kid, kid_std, inception_score, inception_score_std, precision, recall, samples (a path
        inside the run folder), and metrics of one's own.
    samples: run id -> (10, C, H, W) uint8, the classes 0 to 9 once each, at the last evaluated step.
    other_evals: as evals, of samples that were made with other settings than the recipe's, such as guidance.

    gmacs are 10^9 multiply-accumulates of one forward pass of one image, which the DiT paper calls Gflops.
    training_gmacs = gmacs x 3 x batch_size x steps, the whole recipe's training compute (DiT paper, Fig. 9).
    """

    runs: pd.DataFrame
    train: pd.DataFrame
    evals: pd.DataFrame
    samples: dict[str, np.ndarray]
    other_evals: pd.DataFrame


def collect(records: Iterable[RunRecord], out: Path) -> Tables:
    """Make tables of the run folders of a sweep, at least one, as far as their runs have come.

    Writes `runs`, `train` and `evals` as .csv and .parquet, `correlations.csv` and `samples.npz` into `out`, and, where
    there are any, `other_evals.csv` and the scores that published ones can be compared with, `published.csv`
    (`published_scores.compared`).
    A run whose sample file has been cleared away has no entry in `samples`.

    Raises:
        ResultsError: a file is damaged, or two folders hold the same run.
    """
    runs: list[Run] = []
    folders: dict[str, Path] = {}
    for record in records:
        runs.append(read_run(record))
        run, folder = runs[-1].row["run"], record.folder
        if run in folders:
            both = f"{folders[run].name} and {folder.name}"
            raise ResultsError(f"{folder.parent}: two folders hold the run {run}, {both}; accepted: one each")
        folders[run] = folder
    tables = Tables(
        runs=_runs_table(runs),
        train=_joined(runs, [run.train for run in runs], TRAIN_TYPES),
        evals=_joined(runs, [run.evals for run in runs], EVALS_TYPES),
        samples={run.row["run"]: run.samples for run in runs if run.samples is not None},
        other_evals=_joined(runs, [run.other_evals for run in runs], EVALS_TYPES),
    )
    for name in ("runs", "train", "evals"):
        write_table(out / name, getattr(tables, name))
    write_csv(out / "correlations.csv", correlations(tables.evals))
    for name, table in (("other_evals", tables.other_evals), ("published", compared(tables))):
        if table.empty:
            (out / f"{name}.csv").unlink(missing_ok=True)  # of an earlier collection
        else:
            write_csv(out / f"{name}.csv", table)
    write_arrays(out / "samples.npz", tables.samples)
    return tables


def load(results: Path) -> Tables:
    """Read back what `collect` wrote into the folder `results`; columns that a version before did not have are empty.

    Raises:
        ResultsError: a file is missing or damaged.
    """
    runs, train, evals = (_parquet(results / f"{name}.parquet", later) for name, later in ADDED_LATER.items())
    for name, only, before in (("family", DIT, "size"), ("objective", IDDPM, "params")):
        if name not in runs.columns:
            column = pd.array([only] * len(runs), dtype="str")
            runs.insert(int(runs.columns.get_indexer([before])[0]), name, column)
    train, evals = _with_run_columns(train, runs), _with_run_columns(evals, runs)
    with np.load(_existing(results / "samples.npz"), allow_pickle=False) as archive:
        samples = {name: archive[name] for name in archive.files}
    return Tables(runs, train, evals, samples, _other_evals(results / "other_evals.csv", runs))


def comparable(evals: pd.DataFrame) -> None:
    """Refuse scores that must not stand side by side.

    Raises:
        ResultsError: the rows differ in at least one of the `evaluation_keys`.
    """
    differing = [name for name in evaluation_keys if len(evals[name].unique()) > 1]
    if differing:
        values = "; ".join(f"{name}: {', '.join(map(str, evals[name].unique()))}" for name in differing)
        raise ResultsError(f"scores that differ in {values} are not comparable; keep one value of each")


def own_metrics(runs: pd.DataFrame) -> dict[str, str]:
    """Columns of evals that are no metrics of the suite's own -> their title and direction: "Coverage ↑"."""
    described: dict[str, Any] = {}
    for text in runs["metrics"].dropna().unique():
        described |= json.loads(text)
    return {
        column: f"{about['title']} {'↓' if about['lower_is_better'] else '↑'}"
        for column, about in described.items()
        if column not in SCORE_TYPES
    }


def summary(tables: Tables) -> pd.DataFrame:
    """One row per run, with its last logged loss and the scores of its last evaluated step.

    Columns: label, block, seed, params, gmacs, step, loss, fid, fid_percent, kid, inception_score, precision,
    recall. By seed, then size (S, B, L, XL, and others by their compute), then patch size, coarsest first.

    Raises:
        ResultsError: the evaluations are not `comparable`.
    """
    comparable(tables.evals)
    scores = ["fid", "fid_percent", "kid", "inception_score", "precision", "recall"]
    last_loss = tables.train.groupby("run")["loss"].last()
    last_scores = tables.evals.groupby("run").tail(1).set_index("run")[["step", *scores]]
    identity = ["run", "label", "block", "seed", "params", "gmacs"]
    rank = pd.Series(
        [SIZES.index(size) if size in SIZES else len(SIZES) for size in tables.runs["size"]], tables.runs.index
    )
    others = tables.runs["gmacs"].where(rank == len(SIZES), 0)
    runs = tables.runs.assign(rank=rank, others=others).sort_values(
        ["seed", "rank", "others", "patch", "run"], ascending=[True, True, True, False, True], ignore_index=True
    )
    rows = runs.loc[:, identity].join(last_scores, on="run").join(last_loss, on="run")
    return rows.loc[:, [*identity[1:], "step", "loss", *scores]]


def correlations(evals: pd.DataFrame) -> pd.DataFrame:
    """How well compute orders the models: one row per seed and step, for each block design and evaluation key.

    Columns: seed, step, num_models; r of log10(gmacs) with fid (`log_linear`); coefficient and exponent
    of fid = coefficient * gmacs^exponent (`power_law`); patch_pairs, the neighbouring models of one size
    and two patch sizes, size_pairs, those of one patch size and two sizes, and of each as *_right the number
    in which the model with more compute has the lower fid (none where models have no named size or no patches);
    block and the `evaluation_keys`.

    Only groups of at least three models (`MODEL`) give a row, each model in them once, with a positive, finite fid.
    """
    columns = ["seed", "step", "block", *evaluation_keys]
    usable = evals[np.isfinite(evals["fid"]) & (evals["fid"] > 0) & evals["gmacs"].notna()]
    # Groups of all columns would cost ten times as much.
    numbers: Any = usable.groupby(columns, dropna=False).ngroup()
    groups: Any = usable.loc[:, [*MODEL, "gmacs", "fid"]].groupby(numbers)
    rows = [
        usable.loc[models.index[0], columns].to_dict() | _correlation(models)
        for _, models in groups
        if len(models) >= MIN_MODELS and not models.duplicated([*MODEL]).any()
    ]
    found = ["num_models", "r", "coefficient", "exponent"]
    found += ["patch_pairs_right", "patch_pairs", "size_pairs_right", "size_pairs"]
    return pd.DataFrame(rows, columns=["seed", "step", *found, "block", *evaluation_keys])


def _correlation(models: pd.DataFrame) -> dict[str, Any]:
    law = power_law(models["gmacs"], models["fid"])
    named = models.loc[(models["size"].fillna("") != "") & models["patch"].notna()]
    patch_pairs, patch_pairs_right = _neighbours(named, "size", "patch")
    size_pairs, size_pairs_right = _neighbours(named, "patch", "size")
    return {
        "num_models": len(models),
        "r": log_linear(models["gmacs"], models["fid"]).r,
        "coefficient": law.coefficient,
        "exponent": law.exponent,
        "patch_pairs_right": patch_pairs_right,
        "patch_pairs": patch_pairs,
        "size_pairs_right": size_pairs_right,
        "size_pairs": size_pairs,
    }


def _neighbours(models: pd.DataFrame, shared: str, other: str) -> tuple[int, int]:
    """Pairs of models next to each other in compute that share one column and differ in the other: all, right ones."""
    last: dict[Any, tuple[Any, float]] = {}
    right = []
    for value, differing, fid in models.sort_values("gmacs").loc[:, [shared, other, "fid"]].itertuples(index=False):
        if value in last and last[value][0] != differing:
            right.append(fid < last[value][1])
        last[value] = differing, fid
    return len(right), sum(right)


def _other_evals(path: Path, runs: pd.DataFrame) -> pd.DataFrame:
    types = {**{name: RUNS_TYPES[name] for name in RUN_COLUMNS}, **EVALS_TYPES}
    table = (
        pd.read_csv(path, dtype={"run": "str"}) if path.is_file() else pd.DataFrame({"run": pd.array([], dtype="str")})
    )
    joined = _with_run_columns(table.loc[:, ~table.columns.isin(RUN_COLUMNS[1:])], runs)
    others = [name for name in joined.columns if name not in types]  # such as metrics of one's own
    return joined.reindex(columns=[*types, *others]).astype(types)


def _with_run_columns(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """`table` with the `RUN_COLUMNS` in front, those that it lacks from `runs`."""
    missing = [name for name in RUN_COLUMNS if name not in table.columns]
    if not missing:
        return table
    joined = table.merge(runs.loc[:, ["run", *missing]], on="run", how="left")
    return joined.loc[:, [*RUN_COLUMNS, *(name for name in table.columns if name not in RUN_COLUMNS)]]


def _runs_table(runs: list[Run]) -> pd.DataFrame:
    table = pd.DataFrame([run.row for run in runs]).astype(RUNS_TYPES)
    return table.sort_values(ORDER, ignore_index=True)


def _joined(runs: list[Run], lines: list[pd.DataFrame], types: dict[str, str]) -> pd.DataFrame:
    """All runs' lines in one table, each with its run's identity in front."""
    identity = {name: RUNS_TYPES[name] for name in RUN_COLUMNS}
    rows = pd.concat([table for table in lines if not table.empty] or lines, ignore_index=True)
    whose = pd.DataFrame([{name: run.row[name] for name in identity} for run in runs])
    repeated = whose.loc[np.repeat(whose.index, [len(table) for table in lines])].reset_index(drop=True)
    joined = pd.concat([repeated, rows.drop(columns=[*identity], errors="ignore")], axis="columns")
    others = [name for name in joined.columns if name not in identity and name not in types]
    joined = joined.loc[:, [*identity, *types, *others]].astype(identity | types)
    return joined.sort_values([*ORDER, "step"], ignore_index=True, kind="stable")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ResultsError(f"{path} is missing; `ditbench collect RUNS/SWEEP --out {path.parent}` makes it")
    return path


def _parquet(path: Path, later: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(_existing(path))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ResultsError(f"{path}: not a whole parquet file ({error}); collect the sweep again") from error
    return table.assign(**{name: np.nan for name in later if name not in table.columns})
