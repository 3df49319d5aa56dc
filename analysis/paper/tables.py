"""The tables of a study for papers and pages: its models, published scores beside measured ones, correlations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.beside_published import known_spread, not_beside, with_spread
from analysis.paper.table_formats import Column, Table, count, fixed, signed, significant
from analysis.paper.transfer import transfer
from analysis.results.baselines import beside, explanation, name_of
from analysis.results.published import compared, near_misses
from analysis.results.run_folders import EVALUATION_KEY_TYPES, SETTINGS, SIZES
from analysis.results.sampled import best_of_text, guidance_text, steps_text
from analysis.results.tables import ResultsError, Tables, comparable, diverged
from analysis.results.tables import correlations as correlations_of

GMACS = (
    "GMACs are 10⁹ multiply-accumulates of one forward pass of one image, which the DiT paper calls Gflops; true "
    "FLOPs are twice as many."
)
RANGE = "Where a model has several seeds: the mean, with the lowest and the highest seed."
LEVEL = 0.9
# What a model's seeds must share to be one row.
TRAINING = ("model", "params", "gmacs", "data", *SETTINGS)


def frechet_name(evals: pd.DataFrame) -> str:
    """ "FID" where Inception's features were used, else "Fréchet distance": a distance of other features is no FID."""
    inception = not evals.empty and evals["extractor"].astype("str").str.startswith("inception").all()
    return "FID" if inception else "Fréchet distance"


def protocol(tables: Tables) -> str:
    """The whole evaluation key in one sentence; "" without scores.

    Raises:
        ResultsError: the evaluations are not `comparable`.
    """
    comparable(tables.evals)
    if tables.evals.empty:
        return ""
    key = tables.evals.iloc[0].to_dict()
    guidance = "no guidance" if key["guidance_scale"] == 1 else f"guidance {key['guidance_scale']:g}"
    guidance += guidance_text(key)
    best_of = best_of_text(key)
    return (
        f"Scores: {key['weights']} weights, {key['sampler']} sampler, {steps_text(key)}, {guidance}, "
        f"denoised images {'clipped' if key['clip_denoised'] else 'not clipped'}, decoder {_or_none(key['decoder'])}, "
        f"{key['num_samples']:,} samples with {key['labels']} labels against {key['reference']}, features of "
        f"{key['extractor']}, KID on subsets of {_or_none(key['kid_subset_size'])}{best_of and f', {best_of}'}."
    )


def summary(tables: Tables) -> Table:
    """One row per model, at the last step that any of its seeds has a score at.

    Data columns: label, block, params, gmacs, num_seeds (with a score at the step), step, then for loss (the
    last logged at or before the step) and each score that was computed, fid, fid_percent (of the trace of the
    real features' covariance), fid_infinity, sfid, kid, inception_score, precision, recall: its mean over the
    seeds, and as *_min and *_max its range; where a loss is not finite, loss_nan_since, the step since which. What is
    left out, or lacks a value, is said in the conventions. By size (S, B, L, XL, others by compute), then patch size,
    coarsest first.

    Raises:
        ResultsError: no score, scores that are not `comparable`, several runs of one model and seed, or seeds of
            a model that were trained differently.
    """
    comparable(tables.evals)
    _refuse_mixed_models(tables)
    if tables.evals.empty:
        raise ResultsError("no score to summarise: evals is empty; needed: at least one scored step of one run")
    frechet = frechet_name(tables.evals)
    scores = (
        Column("fid", f"{frechet} ↓", fixed(2)),
        Column("fid_percent", "% of trace ↓", fixed(1)),
        Column("fid_infinity", f"{frechet}∞ ↓", fixed(2)),
        Column("sfid", "sFID ↓", fixed(2)),
        Column("kid", "KID ↓", significant(4)),
        Column("inception_score", "IS ↑", fixed(2)),
        Column("precision", "Precision ↑", fixed(3)),
        Column("recall", "Recall ↑", fixed(3)),
    )
    computed = tables.evals.dropna(axis="columns", how="all").columns
    scores = tuple(column for column in scores if column.name in computed)
    names = ["loss", *(column.name for column in scores)]
    evals = _last_scores(tables)
    blocks: Any = evals.groupby(["label", "block"], sort=False)
    rows = [_over_seeds(models, names) for _, models in blocks]
    if not evals["loss_nan_since"].notna().to_numpy().any():
        rows = [{name: value for name, value in row.items() if name != "loss_nan_since"} for row in rows]
    several = len(set(evals["block"])) > 1
    baselines = beside(tables.baselines, tables.evals)
    below = f" Below the models: {explanation(baselines.to_dict('records'))}" if len(baselines) else ""
    return Table(
        "summary",
        "Models at their last scored step",
        f"{GMACS} Loss: training loss, mean since the log's row before. {RANGE} {protocol(tables)}"
        f"{_sentence('Left out', _not_scored(tables, evals))}{_sentence('Without a value', _without(evals, names))}"
        f"{below}",
        (
            Column("label", "Model"),
            *((Column("block", "Block"),) if several else ()),
            Column("params", "Parameters", count),
            Column("gmacs", "GMACs", significant(4)),
            Column("num_seeds", "Seeds", count),
            Column("step", "Step", count),
            Column("loss", "Loss ↓", fixed(4)),
            *scores,
        ),
        _with_baselines(pd.DataFrame(rows), baselines),
    )


def published(tables: Tables) -> Table:
    """Published scores next to measured ones, where every condition that a paper states is the published one.

    Data columns: label, block, data, step, metric, published, measured (mean over the seeds), measured_min,
    measured_max, num_seeds, difference (measured - published) with its difference_min and difference_max,
    difference_90_low and difference_90_high (Student's t interval of the seeds' mean difference, where there are
    several; the published score is taken as exact), interval (the same as text), relative_percent (of published), the
    evaluation key, source. See `published_scores.compared`. Then between_labs_low, between_labs_high and between_labs
    of `with_spread`.

    Raises:
        ResultsError: no score has a published one; the message says in what the nearest differs.
    """
    scores = compared(tables)
    if scores.empty:
        raise ResultsError(f"no score can stand next to a published one: {_why_not(tables)}")
    _refuse_mixed_models(tables)
    by = ["label", "block", "data", "step", "metric", "published", *EVALUATION_KEY_TYPES, "source"]
    groups: Any = scores.groupby(by, sort=False, dropna=False)
    rows: Any = groups.agg(
        measured=("ours", "mean"),
        measured_min=("ours", "min"),
        measured_max=("ours", "max"),
        num_seeds=("seed", "nunique"),
        difference=("difference", "mean"),
        difference_min=("difference", "min"),
        difference_max=("difference", "max"),
        difference_std=("difference", "std"),
        relative_percent=("relative_difference", lambda values: 100 * values.mean()),
    ).reset_index()
    half = _half_interval(rows["difference_std"], rows["num_seeds"])
    low, high = rows["difference"] - half, rows["difference"] + half
    text = [
        None if np.isnan(start) else f"{start:+,.2f} to {end:+,.2f}".replace("-", "−")
        for start, end in zip(low, high, strict=True)
    ]
    rows = rows.assign(difference_90_low=low, difference_90_high=high, interval=text)
    rows = with_spread(rows, "measured", LEVEL)
    found = ["measured", "measured_min", "measured_max", "num_seeds", "difference", "difference_min", "difference_max"]
    found += ["difference_90_low", "difference_90_high", "interval", "relative_percent"]
    spread = ["between_labs_low", "between_labs_high", "between_labs"]
    between = f" {known_spread(LEVEL).sentence()}" if rows[spread[0]].notna().any() else ""
    return Table(
        "published",
        "Published and measured scores under the same conditions",
        f"Difference: measured - published. {RANGE} Interval: {LEVEL:.0%}, Student's t of the mean difference over the "
        f"seeds; it says nothing of the published score's own scatter. Guidance 1 is none. {GMACS}{between}"
        f"{_sentence('Without these seeds', _other_seeds(tables, scores))}",
        (
            Column("label", "Model"),
            Column("step", "Step", count),
            Column("metric", "Score"),
            Column("published", "Published", fixed(2)),
            Column("measured", "Measured", fixed(2)),
            Column("num_seeds", "Seeds", count),
            Column("difference", "Difference", signed(2)),
            Column("interval", "Interval"),
            Column("relative_percent", "%", signed(1)),
            *((Column("between_labs", "Between laboratories"),) if between else ()),
            Column("guidance_scale", "Guidance", significant(3)),
            Column("num_samples", "Samples", count),
            Column("labels", "Labels"),
            Column("decoder", "Decoder"),
            Column("source", "Source"),
        ),
        rows.loc[:, [*by[:6], *found, *by[6:], *spread]],
    )


def _half_interval(spread: pd.Series, num_seeds: pd.Series) -> Any:
    """Half of the Student's t interval of a mean over seeds of standard deviation `spread`; NaN for one seed."""
    from scipy.special import stdtrit

    several = num_seeds.where(num_seeds > 1)
    return stdtrit(several - 1, (1 + LEVEL) / 2) * spread / np.sqrt(several)


def correlations(tables: Tables) -> Table:
    """How well compute orders the models; data columns as `tables.correlations`.

    Raises:
        ResultsError: the evaluations are not `comparable`, or no seed and step has three models with a score.
    """
    comparable(tables.evals)
    rows = correlations_of(tables.evals)
    if rows.empty:
        raise ResultsError(
            "no correlation: no seed and step has three models with a positive, finite fid; needed: three models of "
            "one block design, once each"
        )
    frechet = frechet_name(tables.evals)
    several = len(set(rows["block"])) > 1
    return Table(
        "correlations",
        f"Compute against the {frechet}",
        f"r: Pearson's correlation of log10 GMACs with the {frechet} over the models of one seed. Power law: "
        f"{frechet} = coefficient × GMACs^exponent, least squares of the logarithms. Pairs in order: neighbours that "
        f"differ in patch size, or in size, of which the one with more compute has the lower {frechet}. "
        f"{GMACS} {protocol(tables)}{_sentence('Left out', _not_correlated(tables.evals, frechet))}",
        (
            *((Column("block", "Block"),) if several else ()),
            Column("seed", "Seed", count),
            Column("step", "Step", count),
            Column("num_models", "Models", count),
            Column("r", "r", fixed(3)),
            Column("coefficient", "Coefficient", significant(4)),
            Column("exponent", "Exponent", fixed(3)),
            Column("patch_pairs_right", "Patch pairs in order", count),
            Column("patch_pairs", "Patch pairs", count),
            Column("size_pairs_right", "Size pairs in order", count),
            Column("size_pairs", "Size pairs", count),
        ),
        rows,
    )


TABLES: dict[str, Callable[[Tables], Table]] = {
    "summary": summary,
    "published": published,
    "correlations": correlations,
    "transfer": transfer,
}


def _refuse_mixed_models(tables: Tables) -> None:
    """The runs of a model may differ in their seed, in nothing else."""
    scored = tables.runs.loc[tables.runs["run"].isin(tables.evals["run"].tolist())]
    groups: Any = scored.groupby(["label", "block"])
    for (label, _), runs in groups:
        for name in TRAINING:
            values = runs[name].drop_duplicates()
            if len(values) > 1:
                shown = ", ".join(str(value) for value in values)
                raise ResultsError(f"{label}: its runs differ in {name} ({shown}); keep one value, or label them apart")
        twice = runs.loc[runs["seed"].duplicated(), "seed"]
        if not twice.empty:
            raise ResultsError(f"{label}: several runs of seed {twice.iloc[0]}; keep one run of each model and seed")


def _last_scores(tables: Tables) -> pd.DataFrame:
    """One row per run that has a score at its model's last scored step: the scores, and the loss there."""
    evals = tables.evals
    evals = evals.loc[evals["step"] == evals.groupby(["label", "block"])["step"].transform("max")]
    scored = evals.loc[:, ["run", "step"]].rename(columns={"step": "scored"})
    joined = tables.train.loc[:, ["run", "step", "loss"]].merge(scored, on="run")
    train = joined.loc[joined["step"] <= joined["scored"]]
    loss = train.groupby("run").tail(1).set_index("run")["loss"]
    since = evals["run"].map(pd.Series(diverged(train), dtype="Int64"))
    params = tables.runs.set_index("run")["params"]
    # Sizes that are not the paper's come last, by their compute.
    rank = [
        SIZES.index(size) if size in SIZES else len(SIZES) + gmacs
        for size, gmacs in zip(evals["size"], evals["gmacs"], strict=True)
    ]
    loss = evals["run"].map(loss)
    rows = evals.assign(rank=rank, loss=loss, loss_nan_since=since, params=evals["run"].map(params))
    columns, ascending = ["rank", "patch", "patch_frames", "block", "seed"], [True, False, False, True, True]
    return rows.sort_values(columns, ascending=ascending, ignore_index=True)


def _over_seeds(models: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    first = models.iloc[0]
    row = {name: first[name] for name in ("label", "block", "params", "gmacs")}
    row |= {"num_seeds": len(models), "step": first["step"]}
    for name in names:
        values = models[name].to_numpy(dtype=float, na_value=np.nan)
        # The mean of seeds of which one has no value would be another quantity: it stays empty.
        row |= {name: values.mean(), f"{name}_min": values.min(), f"{name}_max": values.max()}
    return row | {"loss_nan_since": models["loss_nan_since"].min()}


def _with_baselines(models: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """The rows of models, and below them those of baselines, which have scores and no seeds."""
    if baselines.empty:
        return models
    rows = baselines.assign(label=baselines["baseline"].map(name_of))
    whole = dict.fromkeys(("params", "num_seeds", "step"), "Int64")
    return pd.concat([models.astype(whole), rows.reindex(columns=models.columns).astype(whole)], ignore_index=True)


def _not_scored(tables: Tables, evals: pd.DataFrame) -> list[str]:
    """The runs that the rows `evals`, of each model's last step, leave out."""
    steps = {(row["label"], row["block"]): f" at step {row['step']:,}" for row in evals.to_dict("records")}
    left_out = tables.runs.loc[~tables.runs["run"].isin(evals["run"])].to_dict("records")
    at = {row["run"]: steps.get((row["label"], row["block"])) for row in left_out}
    return [f"{_run(row)} (no score{'' if at[row['run']] is None else at[row['run']]})" for row in left_out]


def _without(evals: pd.DataFrame, names: list[str]) -> list[str]:
    """The seeds that lack a value of `names`, so that their model has none."""
    said = []
    for row in evals.to_dict("records"):
        missing = [name for name in names if pd.isna(row[name])]
        said += [f"{', '.join(missing)} of {_run(row)}"] if missing else []
    return said


def _other_seeds(tables: Tables, scores: pd.DataFrame) -> list[str]:
    """The seeds of each model that a mean of `scores` is not over."""
    said = []
    groups: Any = scores.groupby(["label", "block", "step", "metric"], sort=False)
    for (label, block, step, metric), rows in groups:
        same = (tables.runs["label"] == label) & (tables.runs["block"] == block)
        seeds = sorted(set(tables.runs.loc[same, "seed"]) - set(rows["seed"]))
        said += [f"{metric} of {label} at step {step:,}: {', '.join(map(str, seeds))}"] if seeds else []
    return said


def _not_correlated(evals: pd.DataFrame, frechet: str) -> list[str]:
    """The scores that no correlation can be of."""
    fid = evals["fid"].to_numpy(float)
    bad = evals.loc[~(np.isfinite(fid) & (fid > 0))].to_dict("records")
    said = [f"{_run(row)} at step {row['step']:,} ({frechet}: {row['fid']:g})" for row in bad]
    return said + [f"{_run(row)} (GMACs not known)" for row in evals.loc[evals["gmacs"].isna()].to_dict("records")]


def _run(row: dict[Any, Any]) -> str:
    label, block = row["label"], row["block"]
    return f"{label if block in label else f'{label} {block}'} seed {row['seed']}"


def _sentence(what: str, said: list[str]) -> str:
    """ " Left out: this; that." """
    return f" {what}: {'; '.join(dict.fromkeys(said))}." if said else ""


def _why_not(tables: Tables) -> str:
    missed = near_misses(tables)
    if missed.empty:
        return "none is of a published model, block design and data set; needed: one of results/published's models"
    scores: list[Any] = [rows for _, rows in missed.groupby(["run", "step"], sort=False)]
    return not_beside(min(scores, key=len))[0]


def _or_none(value: Any) -> str:
    return "none" if pd.isna(value) else f"{value}"
