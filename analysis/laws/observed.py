"""From tables, published or collected, to the observations that a law is fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.choices import check_known
from analysis.laws.compute import COMPUTE, Compute
from analysis.laws.observations import Observations
from analysis.results.model_names import differing_settings, model_names, setting
from analysis.results.published import published
from analysis.results.run_folders import SETTINGS
from analysis.results.tables import Tables, comparable, patches

METRICS = ("fid", "fid_percent", "fid_infinity", "sfid", "kid", "loss")
"""Scores of which less is better, as the forms want them. loss is the mean training loss over `LOSS_WINDOW`."""
LOSS_WINDOW = 0.1  # share of the steps up to the one asked for, the last ones, whose logged losses are averaged

LATENT_SIDE = {256: 32, 512: 64}
IDENTITY = ["run", "label", "size", "patch", "patch_frames", "block", "seed", "gmacs"]
OF_RUNS = ["family", "params", "tokens", "objective", "data", "steps", *SETTINGS]


def published_observations(metric: str = "fid", compute: str = "forward", all_steps: bool = False) -> Observations:
    """The 12 models of the DiT paper's Table 4: ImageNet 256 x 256, adaln-zero, 400K steps, FID-50K, 250 sampling
    steps, no guidance, EMA weights, ft-MSE decoder. With `all_steps`, also XL/2 at 2,352K and 7,000K steps.

    Raises:
        ResultsError: another metric than fid, or an unknown convention of compute.
    """
    if metric != "fid":
        raise ResultsError(f"{metric}: not published for the 12 models; accepted: fid")
    table = published("dit_table4")
    scaling = (table["image_size"] == 256) & (table["block"] == "adaln-zero")
    if not all_steps:
        scaling &= table["train_steps_k"] == 400
    left_out = tuple(
        f"{row['model']} {row['block']}, {row['image_size']} px, {row['train_steps_k']}K steps: another "
        + ("resolution" if row["image_size"] != 256 else "block design" if row["block"] != "adaln-zero" else "step")
        for row in table.loc[~scaling].to_dict("records")
    )
    table = table.loc[scaling]
    label = table["model"].str.removeprefix("DiT-")
    patch = label.str.rpartition("/")[2].astype(int)
    side = table["image_size"].map(LATENT_SIDE)
    rows = table.assign(
        label=label,
        patch=patch,
        name=label + " step " + (1000 * table["train_steps_k"]).astype(str) if all_steps else label,
        tokens=(side // patch) ** 2,
        params=1e6 * table["params_m"],
        step=1000 * table["train_steps_k"],
        score=table["fid50k"],
    )
    return _observations(rows, "FID-50K", _convention(compute), left_out)


def collected_observations(
    tables: Tables,
    metric: str = "fid",
    step: int | None = None,
    compute: str = "forward",
    all_steps: bool = False,
    patch: int | str | None = None,
    models: Mapping[str, str] | None = None,
) -> Observations:
    """The scores of a sweep's runs, one row per model and seed, at one step or at all.

    Args:
        tables: of the sweep.
        metric: one of `METRICS`.
        step: default: the last at which at least half as many runs have a score as at any; with `all_steps`, the last.
        compute: a name of `COMPUTE`.
        all_steps: one row per step, as L(N, D) needs them; then `step` is the last one.
        patch: keep one patch size: 2, of clips "1x2x2".
        models: run -> what its model is called, if that says the design too, which may then differ between models.

    Raises:
        ResultsError: an unknown metric, no score, scores that are not `comparable`, runs that differ in more than
            size, patch, seed and step, runs of one model that were trained with other settings, the same model and
            seed twice, or a score that is not positive and finite.
    """
    if metric not in METRICS:
        raise ResultsError(f"metric {metric}: no law of this kind; accepted: {', '.join(METRICS)} (less is better)")
    table = mean_losses(tables) if metric == "loss" else _scores(tables, metric)
    missing = [name for name in OF_RUNS if name not in table.columns]
    table = table.merge(tables.runs.loc[:, ["run", *missing]], on="run", how="left", validate="many_to_one")
    names = models or dict(zip(tables.runs["run"], model_names(tables.runs)["label"], strict=True))
    table = table.assign(label=[names[run] for run in table["run"]])  # a run's own label is free text
    if patch is not None:
        there = patches(table).astype("str")
        if str(patch) not in set(there):
            raise ResultsError(f"patch {patch}: no such rows; accepted: {_values(patches(table))}")
        table = table.loc[there == str(patch)]
    for name in ("data",) if models else ("family", "block", "objective", "data", "batch_size"):
        if len(set(table[name])) > 1:
            raise ResultsError(f"the runs differ in {name} ({_values(table[name])}); a law needs one value")
    for name in differing_settings(table, ["label"]):
        raise ResultsError(
            f"runs of one model differ in {name} ({', '.join(map(setting, sorted(table[name].dropna().unique())))}), "
            f"which are no seeds of one another; keep one value, or compare them: `ditbench compare --by {name}`"
        )
    runs_of_one: Any = table.groupby(["label", "seed"])["run"].nunique()
    if all_steps and metric == "loss" and runs_of_one.max() > 1:
        # Rungs of a ladder: what one logs on its way is of another schedule than what the shorter ends with.
        table = table.loc[table["step"] == table.groupby("run")["step"].transform("max")]
    counts: dict[int, int] = {int(at): count for at, count in table["step"].value_counts().items()}  # pyright: ignore
    if step is None:
        fewest = 1 if all_steps else max(counts.values()) / 2  # of a ladder, hardly two runs end at one step
        step = max(at for at, count in counts.items() if count >= fewest)
    elif step not in counts:
        raise ResultsError(f"step {step:,}: no score there; accepted: {_values(table['step'])}")
    rows: Any = table.loc[table["step"] <= step] if all_steps else table.loc[table["step"] == step]
    seed = rows["label"] + " seed " + rows["seed"].astype(str)
    rows = rows.assign(name=seed + " step " + rows["step"].astype(str))
    late = tables.runs.loc[~tables.runs["run"].isin(rows["run"])]
    if patch is not None:
        late = late.loc[patches(late).astype("str") == str(patch)]
    late = [(f"{names[row['run']]} seed {row['seed']}", row["state"] == "failed") for row in late.to_dict("records")]
    left_out = tuple(f"{name}: no score at step {step}{', given up' * failed}" for name, failed in late)
    given_up = tuple(name for name, failed in late if failed)
    return replace(_observations(rows, metric, _convention(compute), left_out), given_up=given_up)


def _scores(tables: Tables, metric: str) -> pd.DataFrame:
    if tables.evals.empty:
        raise ResultsError("no score yet: no run has been evaluated")
    comparable(tables.evals)
    if bool(np.isnan(tables.evals[metric].to_numpy(float)).all()):
        raise ResultsError(f"{metric}: computed for no row; accepted: another metric")
    return tables.evals.assign(score=tables.evals[metric])


def mean_losses(tables: Tables) -> pd.DataFrame:
    """Of each run at each step with logged losses, the mean over the last tenth of the steps."""
    if tables.train.empty:
        raise ResultsError("no loss yet: no run has logged one")
    parts = []
    for _, log in tables.train.groupby("run", sort=False):
        steps, losses = log["step"].to_numpy(int), log["loss"].to_numpy(float)
        means = [np.mean(losses[(steps > at * (1 - LOSS_WINDOW)) & (steps <= at)]) for at in steps]
        parts.append(log.loc[:, [*IDENTITY, "step"]].assign(score=means))
    return pd.concat(parts, ignore_index=True)


def _observations(rows: Any, metric: str, compute: Compute, left_out: tuple[str, ...]) -> Observations:
    columns = {
        "compute": compute.of(rows),
        "tokens": rows["tokens"],
        "params": rows["params"],
        "images": rows["batch_size"] * rows["step"],
    }
    return Observations(
        metric,
        rows["score"].to_numpy(float),
        {name: column.to_numpy(float) for name, column in columns.items()},
        tuple(rows["label"]),
        tuple(rows["name"]),
        tuple(rows["seed"].astype(str)) if "seed" in rows.columns else (),
        compute,
        left_out,
        tuple(rows["patch"] if "patch_frames" not in rows else patches(rows)) if rows["patch"].notna().all() else (),
    )


def _convention(compute: str) -> Compute:
    check_known("compute", compute, COMPUTE)
    return COMPUTE[compute]


def _values(column: Any) -> str:
    known = [str(value) for value in sorted(column.dropna().unique())]
    return ", ".join([*known, *(["none"] if column.isna().any() else [])])
