"""Tidy tables: collected from the run folders of a sweep, read back, summarised and kept comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws.power_law import log_linear, power_law
from analysis.processes import by_all_processors
from analysis.results.baselines import FILE as BASELINES
from analysis.results.baselines import no_baselines, read_baselines
from analysis.results.csv_text import csv_text, read_csv
from analysis.results.files import write_set
from analysis.results.parquet import parquet_bytes, read_parquet
from analysis.results.published import compared, published
from analysis.results.run_folders import (
    CAN_BE_NULL,
    EVALS,
    EVALS_TYPES,
    EVALUATION_KEY_TYPES,
    GRID_SAMPLES,
    KEY_ADDED_LATER,
    KNOB_DEFAULTS,
    OF_EARLIER_VERSIONS,
    OPTIMISATION_TYPES,
    OTHER_EVALS,
    POSITIVE,
    RUNS_TYPES,
    SCORE_TYPES,
    SCORES,
    SIZES,
    TRAIN,
    TRAIN_TYPES,
    ResultsError,
    Run,
    RunRecord,
    described_metrics,
    read_run,
)
from analysis.results.sample_file import SampleFile, of_collection, read_samples
from analysis.results.sampled import told_apart, with_calls
from analysis.results.typed import ACCEPTED

LEAST_RUNS_A_PROCESS = 100

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

MODEL = ("family", "model", "size", "patch", "patch_frames", "hidden_size", "depth", "num_heads", "input_size")
"""The columns that tell models apart: all that is known of a network but its block design. A label is free text."""


def patches(table: pd.DataFrame) -> pd.Series:
    """The patch of each row's model, as one value: pixels a side, of clips "2x4x4"; <NA> where it has none."""
    frames: Any = table["patch_frames"]
    side: Any = table["patch"]
    if not (frames.notna() & side.notna()).any():
        return side
    texts = frames.astype("str") + "x" + side.astype("str") + "x" + side.astype("str")
    return side.astype("object").where(frames.isna() | side.isna(), texts)


def coarsest_first(patches: Iterable[Any]) -> list[Any]:
    """Different values of `patches`, by the pixels of a patch in all its frames."""

    def volume(patch: Any) -> tuple[int, str]:
        text = str(patch)
        return prod(map(int, text.split("x"))) if "x" in text else int(patch) ** 2, text

    return sorted(set(patches), key=volume, reverse=True)


# The columns of `runs` that each row of the other tables has too.
RUN_COLUMNS = ("run", "label", *MODEL, "block", "seed", "gmacs")
IDENTITY_TYPES = {name: RUNS_TYPES[name] for name in RUN_COLUMNS}
# What tables of earlier versions lack, beside `RUN_COLUMNS`, and what stands there then.
ADDED_LATER = {
    "runs": {
        **OF_EARLIER_VERSIONS,
        "metrics": None,
        "patch_frames": None,
        **dict.fromkeys(OPTIMISATION_TYPES),
        **KNOB_DEFAULTS,
    },
    "train": {},
    "evals": dict.fromkeys((*KEY_ADDED_LATER, "post_hoc", "fid_infinity", "sfid", "sampling_gmacs")),
}
# What no row may lack.
KEY = ("run", "step", *(name for name in EVALUATION_KEY_TYPES if name not in CAN_BE_NULL))
NEVER_MISSING = {
    "runs": ("run", "label", "model", "data", "seed", "steps", "batch_size", "state"),
    "train": ("run", "step"),
    "evals": KEY,
    "other_evals": KEY,
}
WHOLE = ("train", "evals", "runs")  # as csv and parquet; without the last no reader takes a folder's tables for whole
ORDER = ["seed", "gmacs", "run"]


@dataclass(frozen=True)
class Tables:
    """What a sweep has measured so far.

    runs: one row per run: run (its id), sweep, label (free text), family, size ("" if unnamed), patch (pixels a side),
        patch_frames (of a clip's patch; empty of images), model, block ("" if the family has none), params, gmacs,
        tokens, hidden_size, depth, num_heads, input_size, data, seed, steps and the `SETTINGS` (batch_size,
        learning_rate and others of the recipe), state
        (finished, failed or unfinished), device, precision and commit (of the last start), starts (how many),
        started (the first) and finished, as local times, training_gmacs, metrics (JSON: column of evals -> title and
        lower_is_better; read by `own_metrics`).
    train: one row per logged step: the run's `RUN_COLUMNS`; step, loss, mse, vb, lr, grad_norm, images_per_s,
        gmacs_spent; clipped, skipped and roll_backs, where runs have them (docs/runs.md).
    evals: one row per evaluation: the run's `RUN_COLUMNS`; step, the `evaluation_keys`, post_hoc (of how many snapshots
        the weights were made, if of any: docs/averages.md), extractor_accuracy, fid,
        fid_percent (of the trace of the real features' covariance), fid_infinity, sfid (these two empty where they
        were not computed), kid, kid_std, inception_score, inception_score_std, precision, recall, sampling_gmacs (of
        one sample, all guidance included, the decoder not; empty of earlier versions), samples (a path inside the run
        folder), and metrics of one's own.
    samples: run id -> (10, C, H, W) uint8 at the last evaluated step; with balanced labels, sample i is of class i
        modulo the number of classes.
    earlier_samples: run id -> step -> the same, of the runs of the smallest seed, if images are small.
    real: data -> (10, C, H, W) uint8, real images of the classes of such samples, and the number of classes.
    other_evals: as evals, with other settings than the recipe's `evaluation`, such as guidance: by its `scores`, of
        searches, and of samples that anyone made of its weights.
    baselines: scores of images that no network made, as `analysis.results.baselines.read_baselines` has them.

    gmacs are 10^9 multiply-accumulates of one forward pass of one image, which the DiT paper calls Gflops.
    training_gmacs = gmacs x 3 x batch_size x steps, the whole recipe's training compute (DiT paper, Fig. 9).
    """

    runs: pd.DataFrame
    train: pd.DataFrame
    evals: pd.DataFrame
    samples: dict[str, np.ndarray]
    other_evals: pd.DataFrame
    earlier_samples: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    real: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    baselines: pd.DataFrame = field(default_factory=no_baselines)


def collect(records: Iterable[RunRecord], out: Path) -> Tables:
    """Make tables of the run folders of a sweep, at least one, as far as their runs have come.

    Writes `runs`, `train` and `evals` as .csv and .parquet, `correlations.csv` and `samples.npz` into `out`, and, where
    there are any, `other_evals.csv` and the scores that published ones can be compared with, `published.csv`
    (`published_scores.compared`).
    A run whose sample file has been cleared away has no entry in `samples`.

    The files are put into their places together, when all of them are whole: what fails leaves `out` as it was.

    Raises:
        ResultsError: a file is damaged, a value is of another type than the others of its column, or two folders hold
            the same run.
    """
    runs: list[Run] = []
    folders: dict[str, Path] = {}
    real: dict[str, tuple[np.ndarray, int]] = {}
    records = list(records)
    for record, read in zip(records, by_all_processors(read_run, records, LEAST_RUNS_A_PROCESS), strict=True):
        runs.append(read)
        if read.samples and (images := record.real_images(GRID_SAMPLES)):  # not by other processes: runs share them
            real[read.row["data"]] = images
        run, folder = runs[-1].row["run"], record.folder
        if run in folders:
            both = f"{folders[run].name} and {folder.name}"
            raise ResultsError(f"{folder.parent}: two folders hold the run {run}, {both}; accepted: one each")
        folders[run] = folder
    first_seed = min((run.row["seed"] for run in runs), default=0)
    tables = Tables(
        runs=_runs_table(runs),
        train=_joined(runs, [run.train for run in runs], TRAIN_TYPES, TRAIN),
        evals=_joined(runs, [run.evals for run in runs], EVALS_TYPES, EVALS),
        samples={run.row["run"]: run.samples[max(run.samples)] for run in runs if run.samples},
        other_evals=_joined(runs, [run.other_evals for run in runs], EVALS_TYPES, f"{SCORES} or {OTHER_EVALS}"),
        earlier_samples={
            run.row["run"]: earlier
            for run in runs
            if run.row["seed"] == first_seed
            and (earlier := {step: run.samples[step] for step in sorted(run.samples)[:-1]})
        },
        real=real,
        baselines=read_baselines(out / BASELINES),
    )
    _write(tables, out)
    return tables


def _write(tables: Tables, out: Path) -> None:
    found = {"other_evals": tables.other_evals, "published": compared(tables)}
    contents: dict[str, bytes | None] = {
        "correlations.csv": csv_text(correlations(tables.evals)).encode(),
        **{f"{name}.csv": None if table.empty else csv_text(table).encode() for name, table in found.items()},
        **{f"{name}.csv": csv_text(getattr(tables, name)).encode() for name in WHOLE},
        "samples.npz": SampleFile(tables.samples, tables.earlier_samples, tables.real).to_bytes(),
    }
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content or b'')}\n".encode())
        digest.update(content or b"")
    collection = digest.hexdigest()[:16]
    contents["samples.npz"] = of_collection(contents["samples.npz"] or b"", collection)
    contents |= {f"{name}.parquet": parquet_bytes(getattr(tables, name), collection) for name in WHOLE}
    write_set(out, contents)


def load(results: Path) -> Tables:
    """Read back what `collect` wrote into the folder `results`; columns that a version before did not have are empty.

    Raises:
        ResultsError: a file is missing or damaged, files are of different collections, a column is missing, or a value
            is not of its column's type.
    """
    if (results / "evals.parquet").is_file() and not (results / "runs.parquet").is_file():
        raise ResultsError(
            f"{results / 'runs.parquet'} is missing; `ditbench collect RUNS/SWEEP --out {results}` makes it (a "
            "collection may be going on, or was stopped while its files were put into place)"
        )
    paths = {name: _existing(results / f"{name}.parquet") for name in reversed(WHOLE)}
    collections: dict[str, str | None] = {}
    runs, collections["runs.parquet"] = read_parquet(paths["runs"], RUNS_TYPES, ADDED_LATER["runs"])
    runs = runs.assign(block=runs["block"].fillna(""), size=runs["size"].fillna(""))
    _check(runs, "runs", paths["runs"], runs)
    of_runs = {}
    for name, types in (("train", TRAIN_TYPES), ("evals", EVALS_TYPES)):
        later = dict.fromkeys(RUN_COLUMNS[1:]) | ADDED_LATER[name]
        table, collections[f"{name}.parquet"] = read_parquet(paths[name], IDENTITY_TYPES | types, later)
        of_runs[name] = _of_runs(with_calls(table) if name == "evals" else table, runs)
        _check(of_runs[name], name, paths[name], runs)
    samples, collections["samples.npz"] = read_samples(_existing(results / "samples.npz"))
    known = {name: collection for name, collection in collections.items() if collection is not None}
    for name, collection in known.items():
        first = next(iter(known))
        if collection != known[first]:
            raise ResultsError(
                f"{results}: {first} and {name} are of different collections; `ditbench collect RUNS/SWEEP --out "
                f"{results}` makes them anew"
            )
    ids = set(runs["run"])
    return Tables(
        runs,
        of_runs["train"],
        of_runs["evals"],
        {run: images for run, images in samples.last.items() if run in ids},
        _other_evals(results / "other_evals.csv", runs),
        {run: steps for run, steps in samples.earlier.items() if run in ids},
        samples.real,
        read_baselines(results / BASELINES),
    )


def comparable(evals: pd.DataFrame) -> None:
    """Refuse scores that must not stand side by side.

    Raises:
        ResultsError: the rows differ in at least one of the `evaluation_keys`.
    """
    differing = told_apart([name for name in evaluation_keys if len(evals[name].unique()) > 1])
    if differing:
        values = "; ".join(f"{name}: {', '.join(map(str, evals[name].unique()))}" for name in differing)
        raise ResultsError(f"scores that differ in {values} are not comparable; keep one value of each")


def own_metrics(runs: pd.DataFrame) -> dict[str, str]:
    """Columns of evals that are no metrics of the suite's own -> their title and direction: "Coverage ↑"."""
    described: dict[str, Any] = {}
    for text in runs["metrics"].dropna().unique():
        described |= described_metrics(text, "column metrics of runs")
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
    last_loss = tables.train.groupby("run").tail(1).set_index("run")["loss"]
    last_scores = tables.evals.groupby("run").tail(1).set_index("run")[["step", *scores]]
    identity = ["run", "label", "block", "seed", "params", "gmacs"]
    rank = pd.Series(
        [SIZES.index(size) if size in SIZES else len(SIZES) for size in tables.runs["size"]], tables.runs.index
    )
    others = tables.runs["gmacs"].where(rank == len(SIZES), 0)
    runs = tables.runs.assign(rank=rank, others=others).sort_values(
        ["seed", "rank", "others", "patch", "patch_frames", "run"],
        ascending=[True, True, True, False, False, True],
        ignore_index=True,
    )
    rows = runs.loc[:, identity].join(last_scores, on="run").join(last_loss, on="run")
    return rows.loc[:, [*identity[1:], "step", "loss", *scores]]


def diverged(train: pd.DataFrame) -> dict[str, int]:
    """Run id -> the step since which none of its losses in `train` is finite, of the runs that end so."""
    since: dict[str, int] = {}
    bad = train.loc[~np.isfinite(train["loss"].to_numpy(float)), "run"].unique()
    for run, log in train.loc[train["run"].isin(bad)].groupby("run", sort=False):
        (finite,) = np.nonzero(np.isfinite(log["loss"].to_numpy(float)))
        first = finite[-1] + 1 if len(finite) else 0
        if first < len(log):
            since[str(run)] = int(log["step"].iloc[first])
    return since


def correlations(evals: pd.DataFrame) -> pd.DataFrame:
    """How well compute orders the models: one row per seed and step, for each block design and evaluation key.

    Columns: seed, step, num_models; r of log10(gmacs) with fid (`log_linear`); coefficient and exponent
    of fid = coefficient * gmacs^exponent (`power_law`); patch_pairs, the neighbouring models of one size
    and two patch sizes, size_pairs, those of one patch size and two sizes, and of each as *_right the number
    in which the model with more compute has the lower fid (none where models have no named size or no patches);
    block and the `evaluation_keys`.

    Only groups of at least three models (`MODEL`) of different compute give a row, each model in them once, with a
    positive, finite fid.
    """
    columns = ["seed", "step", "block", *evaluation_keys]
    usable: Any = evals[np.isfinite(evals["fid"]) & (evals["fid"] > 0) & evals["gmacs"].notna()]
    numbers: Any = usable.groupby(columns, dropna=False).ngroup()
    # Of the table's own columns, most of them text, each group would take ten times as long.
    plain: Any = pd.DataFrame(
        {
            "model": usable.groupby([*MODEL], dropna=False).ngroup(),
            "size": usable["size"].fillna("").astype("object"),
            "patch": patches(usable).astype("object"),
            "gmacs": usable["gmacs"],
            "fid": usable["fid"],
        }
    )
    groups = [
        models
        for _, models in plain.groupby(numbers)
        if len(models) >= MIN_MODELS and models["gmacs"].nunique() > 1 and models["model"].is_unique
    ]
    keys = usable.loc[[models.index[0] for models in groups], columns].to_dict("records")
    rows = [key | _correlation(models) for key, models in zip(keys, groups, strict=True)]
    found = ["num_models", "r", "coefficient", "exponent"]
    found += ["patch_pairs_right", "patch_pairs", "size_pairs_right", "size_pairs"]
    return pd.DataFrame(rows, columns=["seed", "step", *found, "block", *evaluation_keys])


def _correlation(models: pd.DataFrame) -> dict[str, Any]:
    law = power_law(models["gmacs"], models["fid"])
    named = models.loc[(models["size"] != "") & models["patch"].notna()].sort_values("gmacs")
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
    """Pairs of models next to each other in compute that share one column and differ in the other: all, right ones.

    models: least compute first.
    """
    last: dict[Any, tuple[Any, float]] = {}
    right = []
    for value, differing, fid in zip(models[shared], models[other], models["fid"], strict=True):
        if value in last and last[value][0] != differing:
            right.append(fid < last[value][1])
        last[value] = differing, fid
    return len(right), sum(right)


def _other_evals(path: Path, runs: pd.DataFrame) -> pd.DataFrame:
    types = IDENTITY_TYPES | EVALS_TYPES
    if not path.is_file():
        return pd.DataFrame({name: pd.array([], dtype=kind) for name, kind in types.items()})  # pyright: ignore
    own = dict.fromkeys(own_metrics(runs), "float64")
    later = {*RUN_COLUMNS[1:], *ADDED_LATER["evals"]}
    table = read_csv(path, types | own, (name for name in types if name not in later))
    for name in ADDED_LATER["evals"]:
        if name not in table.columns:
            table[name] = pd.array([None] * len(table), dtype=types[name])  # pyright: ignore
    table = with_calls(table)
    joined = _of_runs(table.drop(columns=[*RUN_COLUMNS[1:]], errors="ignore"), runs)
    _check(joined, "other_evals", path, runs)
    others = [name for name in joined.columns if name not in types]  # such as metrics of one's own
    return joined.reindex(columns=[*types, *others]).astype(types)


def _of_runs(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """`table` with the `RUN_COLUMNS` in front, as `runs` has them."""
    own = table.drop(columns=[*RUN_COLUMNS[1:]], errors="ignore")
    joined = own.merge(runs.loc[:, [*RUN_COLUMNS]], on="run", how="left")
    return joined.loc[:, [*RUN_COLUMNS, *(name for name in own.columns if name != "run")]]


def _check(table: pd.DataFrame, name: str, path: Path, runs: pd.DataFrame) -> None:
    """Refuse what no table can be without, and rows of unknown runs.

    Raises:
        ResultsError: names the file, the row and the column.
    """
    if name == "runs" and table.empty:
        raise ResultsError(f"{path}: no row; needed: at least one run")
    for column in NEVER_MISSING[name]:
        for row in np.flatnonzero(table[column].isna())[:1]:
            raise ResultsError(f"{path}: row {row + 1} has no '{column}'; needed in every row")
    if name == "runs":
        for row in np.flatnonzero(table["run"].duplicated())[:1]:
            raise ResultsError(
                f"{path}: row {row + 1}: the run {table['run'].iloc[row]} is there twice; accepted: once"
            )
        for column in POSITIVE:
            values = table[column].astype("float64")
            for row in np.flatnonzero(values.notna() & ~(np.isfinite(values) & (values > 0)))[:1]:
                raise ResultsError(
                    f"{path}: row {row + 1}: '{column}' is {table[column].iloc[row]}; accepted: positive numbers"
                )
    for row in np.flatnonzero(~table["run"].isin(runs["run"]))[:1]:
        raise ResultsError(f"{path}: row {row + 1} is of the run {table['run'].iloc[row]}, which the runs table lacks")


def _runs_table(runs: list[Run]) -> pd.DataFrame:
    table = pd.DataFrame([run.row for run in runs]).astype(RUNS_TYPES)
    return table.sort_values(ORDER, ignore_index=True)


def _joined(runs: list[Run], lines: list[pd.DataFrame], types: dict[str, str], file: str) -> pd.DataFrame:
    """All runs' lines of `file` in one table, each with its run's identity in front."""
    others = _one_type_each(runs, lines, types, file)
    whose = pd.DataFrame([{name: run.row[name] for name in IDENTITY_TYPES} for run in runs]).astype(IDENTITY_TYPES)
    whose = whose.sort_values(ORDER)  # a thousand runs before they are a million rows
    ordered = [_by_step(lines[number]) for number in whose.index]
    rows = pd.concat([table for table in ordered if not table.empty] or ordered, ignore_index=True)
    repeated = whose.loc[np.repeat(whose.index, [len(table) for table in ordered])].reset_index(drop=True)
    return pd.concat([repeated, rows.loc[:, [*types, *others]].astype(types | others)], axis="columns")


def _by_step(lines: pd.DataFrame) -> pd.DataFrame:
    return lines if lines["step"].is_monotonic_increasing else lines.sort_values("step", kind="stable")


def _one_type_each(runs: list[Run], lines: list[pd.DataFrame], types: dict[str, str], file: str) -> dict[str, str]:
    """The columns that lines have beside `types`, such as metrics of one's own, and the type that each has in all runs.

    Raises:
        ResultsError: a column is text in one run and a number in another: both files and the key are named.
    """
    found: dict[str, dict[str, Path]] = {}
    for run, table in zip(runs, lines, strict=True):
        for name in table.columns:
            if name not in types and name not in IDENTITY_TYPES:
                kinds = found.setdefault(name, {})
                if table[name].notna().to_numpy().any():
                    kinds.setdefault(str(table[name].dtype), run.folder / file)
    for name, kinds in found.items():
        if len(kinds) > 1 and set(kinds) != {"Int64", "float64"}:
            (kind, path), (other, there) = list(kinds.items())[:2]
            raise ResultsError(
                f"{path}: '{name}' is {ACCEPTED[kind]}, and {ACCEPTED[other]} in {there}; accepted: one type"
            )
    return {name: next(iter(kinds)) if len(kinds) == 1 else "float64" for name, kinds in found.items()}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ResultsError(f"{path} is missing; `ditbench collect RUNS/SWEEP --out {path.parent}` makes it")
    return path
