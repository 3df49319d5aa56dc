"""The study's charts: scores against compute, over training, every metric, losses, what a law leaves, seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.scores import over_seeds, scaling_scores
from analysis.figures.sources import published_source
from analysis.figures.training_compute import frontier
from analysis.laws.compute import training_gmacs
from analysis.laws.report import FitReport
from analysis.report.chart import Axis, Chart, Curve, Point
from analysis.report.looks import Looks, Row, against_compute, by, is_log, unit_of, with_range
from analysis.report.study import Study
from analysis.report.tables import minus, number, percent

SMALL: dict[str, Any] = {"width": 340, "height": 250}
WINDOWS = 100  # a line of losses has at most so many points


def compute(study: Study, metric: str, law: FitReport | None) -> Chart:
    """The models at their last step; with the power law through them, where there is one."""
    models, called = study.models(metric), study.called(metric)
    unit, point = against_compute(models, metric, called)
    looks = Looks(models)
    caption = study.at_last(metric)[1].capitalize()
    if max(models["num_seeds"]) > 1:
        caption += ", means over the seeds with bars from the lowest to the highest"
    curves, said = _law(models["gmacs"], law) if law else ([], "")
    return Chart(
        f"{metric}-compute",
        f"{called} against compute",
        _ends(models, metric, called),
        Axis(f"Compute of one forward pass of one image ({unit})", True),
        Axis(study.titles[metric], is_log(models, metric)),
        looks.points(models, point, named=True),
        looks.legend(),
        curves,
        f"{caption}.{said}",
    )


def _law(gmacs: Any, law: FitReport) -> tuple[list[Curve], str]:
    """The power law with its band, and a sentence of it; nothing where it was not fitted."""
    fitted = power_law(law)
    if fitted is None:
        return [], ""
    place, how = fitted
    at = np.geomspace(min(gmacs), max(gmacs), 24)
    law_at = [how.predict({"compute": each}, law.level).law for each in at.tolist()]
    low, middle, high = ([getattr(each, name) for each in law_at] for name in ("low", "estimate", "high"))
    exponent = minus(f"{-law.comparison.fits[place].parameters['alpha']:.2f}")
    said = f" Line: the power law, exponent {exponent}; band: its {percent(law.level)} interval."
    return [Curve((at / unit_of(gmacs)[1]).tolist(), middle, low, high)], said


def of_paper(is_same_scale: bool) -> Chart:
    """The same picture of the DiT paper's models, at their published 400K steps.

    is_same_scale: scores of the study were made under these conditions.
    """
    scores = scaling_scores(published_source())
    tables = replace(scores.source.tables, runs=scores.runs, evals=scores.evals)
    return replace(
        compute(Study(tables, replace(scores.source, tables=tables)), "fid", None),
        name="published-compute",
        title="The DiT paper's models, for orientation",
        caption="FID-50K of Table 4, at 400,000 steps on ImageNet without guidance: "
        + ("as those above that stand beside it." if is_same_scale else "other conditions, so another scale."),
        **SMALL,
    )


def training(study: Study, metric: str) -> Chart:
    """Each model at each of its scored steps against the compute of training that far, and the frontier."""
    points, called = study.over_training(metric), study.called(metric)
    points = points.assign(training=training_gmacs(points["gmacs"], points["batch_size"], points["step"].astype(float)))
    points = points.loc[points["training"] > 0]
    lower, looks = study.lower_is_better(metric), Looks(points)
    signed = points[metric] if lower else -points[metric]
    best = points.loc[frontier(points["training"].tolist(), signed.tolist())].sort_values("training")

    def point(row: Row) -> Point:
        said = f"{row['label']}\nstep {row['step']:,}\n{number(row['training'])} training GMACs"
        return Point(row["training"], row[metric], f"{said}\n{called} {with_range(row, metric)}")

    return Chart(
        f"{metric}-training",
        f"{called} against training compute",
        f"Lines are models over {points['step'].nunique()} scored steps. {len(best)} of {len(points)} points are on "
        f"the frontier, of the models {', '.join(dict.fromkeys(best['label']))}.",
        Axis("Training compute (GMACs × 3 × batch × steps)", True),
        Axis(study.titles[metric], is_log(points, metric)),
        looks.groups(points, point, line=True),
        looks.legend(),
        [_stairs(best["training"].tolist(), best[metric].tolist(), max(points["training"]))],
        f"Lines are models, points their scored steps. Broad line: the {'lowest' if lower else 'highest'} {called} for "
        "that much compute or less.",
    )


def steps(study: Study, metric: str) -> Chart | None:
    """Each model over the training steps; None where only one step was scored."""
    points, called = study.over_training(metric), study.called(metric)
    if len(set(points["step"])) < 2:
        return None
    first, last = min(points["step"]), max(points["step"])
    across = Axis("Training steps", first > 0 and last / first > 10)
    up = Axis(study.titles[metric], is_log(points, metric))
    return _over_steps(points, metric, called, f"{called} over the training steps", across, up, "")


def loss(study: Study) -> Chart | None:
    """The training loss of each model, in windows of steps; None without one."""
    train = study.source.tables.train
    train = train.loc[np.isfinite(train["loss"].to_numpy(float)) & train["gmacs"].notna()]
    if train.empty:
        return None
    window = -(-int(max(train["step"])) // WINDOWS)
    last = -(-train["step"].astype(int) // window) * window
    of_run = ["gmacs", "label", "size", "patch", "block", "seed", "step"]
    means: Any = train.assign(step=last).groupby(of_run, as_index=False)["loss"].mean()
    points = over_seeds(means, ["block", "step"], "loss")
    across = Axis("Training steps", min(points["step"]) > 0)
    up = Axis("Training loss ↓", is_log(points, "loss"))
    over = " and over the seeds" if max(points["num_seeds"]) > 1 else ""
    caption = f"Means over windows of {window} steps{over}." if window > 1 else "As logged."
    return _over_steps(points, "loss", "training loss", "Training loss", across, up, caption)


def _over_steps(
    points: pd.DataFrame, metric: str, called: str, title: str, across: Axis, up: Axis, caption: str
) -> Chart:
    def point(row: Row) -> Point:
        return Point(
            row["step"], row[metric], f"{row['label']}\nstep {row['step']:,}\n{called} {with_range(row, metric)}"
        )

    looks, described = (
        Looks(points),
        f"Each line is a model, from step {min(points['step']):,} to {max(points['step']):,}.",
    )
    lines = looks.groups(points, point, line=True)
    return Chart(f"{metric}-steps", title, described, across, up, lines, looks.legend(), (), caption, **SMALL)


def metrics(study: Study) -> list[Chart]:
    """Every other score against compute, a small chart each."""
    found = []
    for metric in study.titles:
        if metric == study.metric:
            continue
        models, called = study.models(metric), study.called(metric)
        unit, point = against_compute(models, metric, called)
        looks = Looks(models)
        found.append(
            Chart(
                f"{metric}-compute",
                f"{called} against compute",
                _ends(models, metric, called),
                Axis(unit, True),
                Axis(study.titles[metric], is_log(models, metric)),
                looks.points(models, point),
                looks.legend(),
                **SMALL,
            )
        )
    return found


def residuals(study: Study, metric: str, law: FitReport) -> Chart | None:
    """What the power law leaves: score over law, the models of a patch size joined; None without that law."""
    fitted = power_law(law)
    if fitted is None:
        return None
    models = study.models(metric)
    expected = law.comparison.fits[fitted[0]](compute=models["gmacs"].to_numpy(float))
    unit, size = unit_of(models["gmacs"])
    models = models.assign(ratio=models[metric] / expected, at=models["gmacs"] / size)

    def point(row: Row) -> Point:
        said = f"{percent(abs(row['ratio'] - 1))} {'above' if row['ratio'] > 1 else 'below'} the law"
        return Point(row["at"], row["ratio"], f"{row['label']}\n{said}")

    looks = Looks(models)
    joined = [Curve(rows["at"].tolist(), rows["ratio"].tolist(), kind="joined") for _, rows in by(models, "patch")]
    return Chart(
        "residuals",
        "What the power law leaves over",
        f"Score over the law's, from {number(min(models['ratio']))} to {number(max(models['ratio']))}; 1 is the law.",
        Axis(unit, True),
        Axis(f"{study.called(metric)} over the law's", True),
        looks.points(models, point),
        looks.legend(),
        [_rule(models["at"], 1.0), *joined],
        "Above 1: worse than the law. Thin lines join the models of a patch size: if they lie apart or slope, compute "
        "alone does not order the models.",
    )


def seeds(study: Study, metric: str) -> Chart | None:
    """Each seed's score against the mean of its model's; None with one seed."""
    scores, _ = study.at_last(metric)
    groups: Any = scores.groupby("label")
    mean, count = groups[metric].transform("mean"), groups["seed"].transform("nunique")
    unit, size = unit_of(scores["gmacs"])
    rows = scores.assign(percent=100 * (scores[metric].astype(float) / mean - 1), at=scores["gmacs"] / size)
    rows = rows.loc[(count > 1) & (mean != 0)]
    if rows.empty:
        return None

    def point(row: Row) -> Point:
        away = minus(f"{row['percent']:+.1f} % of its mean\n{study.called(metric)} {number(row[metric])}")
        return Point(row["at"], row["percent"], f"{row['label']}, seed {row['seed']}\n{away}")

    looks = Looks(rows)
    low, high = (minus(f"{end(rows['percent']):+.1f}") for end in (min, max))
    return Chart(
        "seeds",
        "Spread over the training seeds",
        f"From {low} % to {high} % of the model's mean.",
        Axis(unit, True),
        Axis("Distance from the model's mean, %"),
        looks.groups(rows, point, line=False),
        looks.legend(),
        [_rule(rows["at"], 0.0)],
        "Each seed's score at the last step, above or below the mean of its model's seeds.",
    )


def power_law(law: FitReport) -> tuple[int, Any] | None:
    """Where in the report the law of compute alone is, and how its intervals are made; None where it was not fitted."""
    for place, (fit, (how, _)) in enumerate(zip(law.comparison.fits, law.intervals, strict=True)):
        if fit.form.name == "power":
            return place, how
    return None


def _ends(models: pd.DataFrame, metric: str, called: str) -> str:
    """The models with the least and the most compute, in words."""
    ends = [
        f"{row['label']}: {called} {minus(number(row[metric]))} at {number(row['gmacs'])} GMACs"
        for row in models.iloc[[0, -1]].to_dict("records")
    ]
    return f"{len(models)} models, from {ends[0]}, to {ends[1]}." if len(models) > 1 else f"{ends[0]}."


def _rule(across: Any, at: float) -> Curve:
    """A level line."""
    return Curve([min(across), max(across)], [at, at], kind="rule")


def _stairs(across: Sequence[float], up: Sequence[float], end: float) -> Curve:
    """A frontier: what is reached holds until the next better point."""
    x = [across[0], *(at for each in across[1:] for at in (each, each)), end]
    y = [at for each in up for at in (each, each)]
    return Curve(x, y, kind="frontier")
