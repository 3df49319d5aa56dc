"""The study's charts: scores against compute, over training, every metric, losses, what a law leaves, seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.scores import over_seeds, scaling_scores
from analysis.figures.sources import published_source
from analysis.figures.training_compute import frontier
from analysis.laws.compute import training_gmacs
from analysis.laws.report import FitReport
from analysis.report.chart import Axis, Chart, Curve, Point, Series
from analysis.report.study import Study
from analysis.report.tables import minus, number, percent
from analysis.results.run_folders import SIZES

SMALL = {"width": 340, "height": 250}
MOST_POINTS = 25  # of a line that can be pointed at: losses are logged often
LOG_RATIO = 8.0  # scores that differ by less need no logarithms
ACROSS = "Compute of one forward pass of one image"


class Looks:
    """How the models of a table look: colour says the size, shape the patch size, fill the block design."""

    def __init__(self, models: pd.DataFrame) -> None:
        sizes = set(models["size"])
        self.sizes = [size for size in SIZES if size in sizes]
        self.sizes += [size for size in dict.fromkeys(models.sort_values("gmacs")["size"]) if size not in SIZES]
        self.patches = sorted(set(map(int, models["patch"])), reverse=True)
        self.blocks = list(dict.fromkeys(models["block"]))

    def series(self, model: Mapping[Any, Any], points: Sequence[Point], line: bool = False, label: str = "") -> Series:
        """Of the model in a row of the table."""
        size, patch, block = model["size"], int(model["patch"]), model["block"]
        groups = {"size": size, "patch": str(patch), "design": block}
        shape, fill = self.patches.index(patch), self.blocks.index(block)
        return Series(points, groups, self._colour(size), shape, fill, line, label)

    def legend(self) -> dict[str, dict[str, Series]]:
        """Group -> value -> what it looks like, of the groups that have several values."""
        point = [Point(0, 0, "")]
        found = {
            "size": {size: Series(point, colour=self._colour(size)) for size in self.sizes},
            "patch": {str(patch): Series(point, colour=-1, shape=rank) for rank, patch in enumerate(self.patches)},
            "design": {block: Series(point, colour=-1, fill=rank) for rank, block in enumerate(self.blocks)},
        }
        return {group: values for group, values in found.items() if len(values) > 1}

    def _colour(self, size: str) -> int:
        others = [other for other in self.sizes if other not in SIZES]
        return SIZES.index(size) if size in SIZES else len(SIZES) + others.index(size)


def compute(study: Study, metric: str, law: FitReport | None) -> Chart:
    """The models at their last step; with the power law through them, where there is one."""
    models, called = study.models(metric), study.called(metric)
    unit, size = _unit(models["gmacs"])
    curves, caption = [], study.at_last(metric)[1].capitalize()
    if several := max(models["num_seeds"]) > 1:
        caption += ", means over the seeds with bars from the lowest to the highest"
    caption += "."
    fitted = power_law(law) if law else None
    if fitted and law and law.rows.metric == metric:
        place, how = fitted
        x = np.geomspace(min(models["gmacs"]), max(models["gmacs"]), 24)
        predicted = [how.predict({"compute": at}, law.level).law for at in x.tolist()]
        curves = [
            Curve(
                (x / size).tolist(),
                [each.estimate for each in predicted],
                [each.low for each in predicted],
                [each.high for each in predicted],
            )
        ]
        exponent = -law.comparison.fits[place].parameters["alpha"]
        caption += (
            f" Line: the power law, exponent {minus(f'{exponent:.2f}')}; band: its {percent(law.level)} interval."
        )
    looks = Looks(models)
    series = [
        looks.series(row, [_point(row, "gmacs", metric, unit, size, called)], label=row["label"])
        for row in models.to_dict("records")
    ]
    is_log = _is_log(models, metric)
    return Chart(
        f"{metric}-compute",
        f"{called} against compute",
        f"{_falls(models, metric, called)} {'Bars are the range over seeds.' if several else ''}".strip(),
        Axis(f"{ACROSS} ({unit})", True),
        Axis(study.titles[metric], is_log),
        series,
        looks.legend(),
        curves,
        caption,
    )


def of_paper() -> Chart:
    """The same picture of the DiT paper's models, at their published 400K steps."""
    scores = scaling_scores(published_source())
    tables = replace(scores.source.tables, runs=scores.runs, evals=scores.evals)
    return replace(
        compute(Study(tables, replace(scores.source, tables=tables)), "fid", None),
        name="published-compute",
        title="The DiT paper's models, for orientation",
        caption="FID-50K of Table 4, at 400,000 steps on ImageNet: another data set and protocol, so another scale.",
        **SMALL,
    )


def training(study: Study, metric: str) -> Chart:
    """Each model at each of its scored steps against the compute of training that far, and the frontier."""
    points = study.over_training(metric)
    points = points.assign(training=training_gmacs(points["gmacs"], points["batch_size"], points["step"].astype(float)))
    points, called = points.loc[points["training"] > 0], study.called(metric)
    lower = study.lower_is_better(metric)
    sign = 1 if lower else -1
    best = points.loc[frontier(points["training"].tolist(), (sign * points[metric]).tolist())].sort_values("training")
    looks = Looks(points)
    series = [
        looks.series(
            rows.iloc[0].to_dict(),
            [
                Point(
                    row["training"],
                    row[metric],
                    f"{label}\nstep {row['step']:,}\n{number(row['training'])} training GMACs\n"
                    f"{called} {with_range(row, metric)}",
                )
                for row in _thinned(rows).to_dict("records")
            ],
            line=True,
        )
        for label, rows in _by(points, "label")
    ]
    steps = [pair for row in best.to_dict("records") for pair in [(row["training"], row[metric])]]
    across, up = _stairs(steps, max(points["training"]))
    return Chart(
        f"{metric}-training",
        f"{called} against training compute",
        f"A line a model over its {points['step'].nunique()} scored steps. {len(best)} of {len(points)} points are on "
        f"the frontier, of the models {', '.join(dict.fromkeys(best['label']))}.",
        Axis("Training compute (GMACs × 3 × batch × steps)", True),
        Axis(study.titles[metric], _is_log(points, metric)),
        series,
        looks.legend(),
        [Curve(across, up, kind="frontier")],
        f"A line a model, a point a scored step. Broad line: the {'lowest' if lower else 'highest'} "
        f"{called} for at most so much compute.",
    )


def steps(study: Study, metric: str) -> Chart | None:
    """Each model over the training steps; None where only one step was scored."""
    points, called = study.over_training(metric), study.called(metric)
    if points["step"].nunique() < 2:
        return None
    return _lines(
        points,
        metric,
        called,
        Chart(
            f"{metric}-steps",
            f"{called} over the training steps",
            f"A line a model, over {points['step'].nunique()} scored steps.",
            Axis("Training steps", min(points["step"]) > 0 and max(points["step"]) / min(points["step"]) > 10),
            Axis(study.titles[metric], _is_log(points, metric)),
            [],
            {},
            **SMALL,
        ),
    )


def loss(study: Study) -> Chart | None:
    """The training loss of each model, in windows of steps; None without one."""
    train = study.source.tables.train
    train = train.loc[np.isfinite(train["loss"].to_numpy(float)) & train["gmacs"].notna()]
    if train.empty:
        return None
    window = max(1, -(-int(max(train["step"])) // 100))
    last = -(-train["step"].astype(int) // window) * window
    means: Any = (
        train.assign(step=last)
        .groupby(["gmacs", "label", "size", "patch", "block", "seed", "step"], as_index=False)["loss"]
        .mean()
    )
    points = over_seeds(means, ["block", "step"], "loss")
    is_log = min(points["loss"]) > 0
    return _lines(
        points,
        "loss",
        "training loss",
        Chart(
            "loss",
            "Training loss",
            "A line a model over the training steps.",
            Axis("Training steps", min(points["step"]) > 0),
            Axis("Training loss ↓", is_log),
            [],
            {},
            caption=f"Means over windows of {window} steps and over the seeds." if window > 1 else "As logged.",
            **SMALL,
        ),
    )


def metrics(study: Study) -> list[Chart]:
    """Every other score against compute, a small chart each."""
    found = []
    for metric in study.titles:
        if metric == study.metric:
            continue
        models, called = study.models(metric), study.called(metric)
        unit, size = _unit(models["gmacs"])
        looks = Looks(models)
        series = [
            looks.series(row, [_point(row, "gmacs", metric, unit, size, called)]) for row in models.to_dict("records")
        ]
        found.append(
            Chart(
                f"{metric}-compute",
                f"{called} against compute",
                _falls(models, metric, called),
                Axis(unit, True),
                Axis(study.titles[metric], _is_log(models, metric)),
                series,
                looks.legend(),
                **SMALL,
            )
        )
    return found


def residuals(study: Study, metric: str, law: FitReport) -> Chart | None:
    """What the power law leaves: score over law, the models of a patch size joined; None without that law."""
    fitted = power_law(law)
    models = study.models(metric)
    if fitted is None:
        return None
    expected = law.comparison.fits[fitted[0]](compute=models["gmacs"].to_numpy(float))
    models, looks = models.assign(ratio=models[metric] / expected), Looks(models)
    unit, size = _unit(models["gmacs"])
    series = [
        looks.series(
            row,
            [
                Point(
                    row["gmacs"] / size,
                    row["ratio"],
                    f"{row['label']}\n{percent(abs(row['ratio'] - 1))} {'above' if row['ratio'] > 1 else 'below'} the law",
                )
            ],
        )
        for row in models.to_dict("records")
    ]
    joined = [
        Curve((rows["gmacs"] / size).tolist(), rows["ratio"].tolist(), kind="joined")
        for _, rows in _by(models, "patch")
    ]
    ends = [min(models["gmacs"]) / size, max(models["gmacs"]) / size]
    return Chart(
        "residuals",
        "What the power law leaves over",
        f"Score over the law's, from {number(min(models['ratio']))} to {number(max(models['ratio']))}; 1 is the law.",
        Axis(unit, True),
        Axis(f"{study.called(metric)} over the law's", True),
        series,
        looks.legend(),
        [Curve(ends, [1.0, 1.0], kind="rule"), *joined],
        "Above 1: worse than the law. Thin lines join the models of a patch size: if they lie apart or slope, compute "
        "alone does not order the models.",
    )


def seeds(study: Study, metric: str) -> Chart | None:
    """Each seed's score against the mean of its model's; None with one seed."""
    scores, _ = study.at_last(metric)
    means: Any = scores.groupby("label")[metric].transform("mean")
    count: Any = scores.groupby("label")["seed"].transform("nunique")
    rows = scores.assign(percent=100 * (scores[metric].astype(float) / means - 1)).loc[(count > 1) & (means != 0)]
    if rows.empty:
        return None
    unit, size = _unit(rows["gmacs"])
    looks = Looks(rows)
    series = [
        looks.series(
            seeds.iloc[0].to_dict(),
            [
                Point(
                    row["gmacs"] / size,
                    row["percent"],
                    f"{label}, seed {row['seed']}\n{minus(format(row['percent'], '+.1f'))} % of its mean\n"
                    f"{study.called(metric)} {number(row[metric])}",
                )
                for row in seeds.to_dict("records")
            ],
        )
        for label, seeds in _by(rows, "label")
    ]
    ends = [min(rows["gmacs"]) / size, max(rows["gmacs"]) / size]
    return Chart(
        "seeds",
        "Spread over the training seeds",
        f"From {minus(f'{min(rows.percent):+.1f}')} % to {minus(f'{max(rows.percent):+.1f}')} % of the model's mean.",
        Axis(unit, True),
        Axis("Distance from the model's mean, %"),
        series,
        looks.legend(),
        [Curve(ends, [0.0, 0.0], kind="rule")],
        "Each seed's score at the last step, above or below the mean of its model's seeds.",
    )


def power_law(law: FitReport) -> tuple[int, Any] | None:
    """Where in the report the law of compute alone is, and how its intervals are made; None where it was not fitted."""
    for place, (fit, (how, _)) in enumerate(zip(law.comparison.fits, law.intervals, strict=True)):
        if fit.form.name == "power":
            return place, how
    return None


def _lines(points: pd.DataFrame, metric: str, called: str, empty: Chart) -> Chart:
    """`empty` with a line a model over its steps."""
    looks = Looks(points)
    series = [
        looks.series(
            rows.iloc[0].to_dict(),
            [
                Point(row["step"], row[metric], f"{label}\nstep {row['step']:,}\n{called} {with_range(row, metric)}")
                for row in _thinned(rows).to_dict("records")
            ],
            line=True,
        )
        for label, rows in _by(points, "label")
    ]
    return replace(empty, series=series, legend=looks.legend())


def _point(row: Mapping[Any, Any], x: str, metric: str, unit: str, size: float, called: str) -> Point:
    several = row["num_seeds"] > 1
    low, high = (row[f"{metric}_min"], row[f"{metric}_max"]) if several else (None, None)
    title = f"{row['label']}\n{number(row[x] / size)} {unit}\n{called} {with_range(row, metric)}"
    return Point(row[x] / size, row[metric], title, low, high)


def with_range(row: Mapping[Any, Any], metric: str) -> str:
    """A model's score, with its range where it is a mean over seeds."""
    text = number(row[metric])
    if row["num_seeds"] > 1:
        text += f" ({number(row[f'{metric}_min'])} to {number(row[f'{metric}_max'])}, {row['num_seeds']} seeds)"
    return minus(text)


def _falls(models: pd.DataFrame, metric: str, called: str) -> str:
    """The ends in compute, in words."""
    low, high = models.iloc[0], models.iloc[-1]
    if len(models) == 1:
        return f"{low['label']}: {called} {number(low[metric])} at {number(low['gmacs'])} GMACs."
    return (
        f"{len(models)} models, from {low['label']} with {minus(number(low[metric]))} at {number(low['gmacs'])} GMACs to "
        f"{high['label']} with {minus(number(high[metric]))} at {number(high['gmacs'])} GMACs."
    )


def _unit(gmacs: Iterable[float]) -> tuple[str, float]:
    """The unit that keeps the numbers readable, and its size in GMACs."""
    return ("GMACs", 1.0) if max(gmacs) >= 1 else ("MMACs", 1e-3)


def _is_log(points: pd.DataFrame, metric: str) -> bool:
    low, high = min(points[metric]), max(points[metric])
    return bool(low > 0 and (metric in ("fid", "loss", "kid", "sfid") or high / low > LOG_RATIO))


def _by(points: pd.DataFrame, column: str) -> list[tuple[Any, pd.DataFrame]]:
    return [(value, rows) for value, rows in points.groupby(column, sort=False)]


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """At most so many, the last among them."""
    return rows.iloc[:: -1 * -(-len(rows) // MOST_POINTS)].iloc[::-1]


def _stairs(points: Sequence[tuple[float, float]], end: float) -> tuple[list[float], list[float]]:
    """A frontier that holds until the next better point."""
    across, up = [points[0][0]], [points[0][1]]
    for x, y in points[1:]:
        across += [x, x]
        up += [up[-1], y]
    return [*across, end], [*up, up[-1]]
