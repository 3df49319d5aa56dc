"""Every metric against the compute of one forward pass (DiT paper, Fig. 12)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.figures import marks, style
from analysis.figures.drawn import Drawn, NothingToDraw
from analysis.figures.scores import MACS, Scores, at_last_shared_step, finite, over_seeds, protocols, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.laws.power_law import log_linear
from analysis.results.files import write_csv
from analysis.results.tables import MIN_MODELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = {
    "fid": "Fréchet distance ↓",
    "sfid": "sFID ↓",
    "kid": "KID ↓",
    "inception_score": "Inception Score ↑",
    "precision": "Precision ↑",
    "recall": "Recall ↑",
}


def draw(sources: Sequence[Source], out: Path, width: style.Width) -> Drawn:
    """Into metrics.png, .pdf and .csv.

    A row of panels a source, a panel a metric that was measured; means over seeds with bars from the lowest to the
    highest, at the last shared step. Data columns: source, label, size, patch, gmacs, num_seeds, metric, mean, min,
    max.

    Raises:
        NothingToDraw: no source has two metrics.
        ResultsError: values that are not finite, or scores that are not comparable.
    """
    found, left_out = from_each(sources, _with_metrics)
    data = pd.concat([_points(scores, metric) for scores, metrics in found for metric in metrics])
    scores = [one for one, _ in found]
    columns = 2 if width == "one" else 3
    heights = [1.75 * -(-len(metrics) // columns) + 0.5 for _, metrics in found]
    with style.look():
        figure = style.new_figure(width, sum(heights), f"{MACS} ↓: lower is better.\n{protocols(scores)}")
        parts = figure.subfigures(len(found), 1, squeeze=False, height_ratios=heights)
        for part, (one, metrics) in zip(parts.flat, found, strict=True):
            part.suptitle(f"{one.title}, {style.steps_text(int(one.evals['step'].iloc[0]))} steps", fontsize=9)
            for axes, metric in zip(style.panels(part, len(metrics), columns), metrics, strict=True):
                _panel(axes, one, metric)
            marks.shape_legend(part, one.evals)
        files = style.write_figure(figure, out, "metrics")
    return Drawn([*files, write_csv(out / "metrics.csv", data)], left_out)


def _with_metrics(source: Source) -> tuple[Scores, list[str]]:
    scores = at_last_shared_step(scaling_scores(source))
    metrics = [name for name in METRICS if not scores.evals[name].isna().to_numpy().all()]
    if len(metrics) < 2:
        raise NothingToDraw(f"of its models only {', '.join(metrics)} is known; needed: a second metric")
    for name in metrics:
        finite(scores.evals, name)
    return scores, metrics


def _points(scores: Scores, metric: str) -> pd.DataFrame:
    points = over_seeds(scores.evals, metric=metric)
    points.insert(0, "source", scores.source.name)
    points = points.rename(columns={metric: "mean", f"{metric}_min": "min", f"{metric}_max": "max"})
    points.insert(points.columns.get_loc("mean"), "metric", metric)  # pyright: ignore[reportArgumentType]
    return points


def _panel(axes: Axes, scores: Scores, metric: str) -> None:
    points = over_seeds(scores.evals, metric=metric)
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    marks.scatter(axes, points, "gmacs", metric, unit=size)
    axes.set_ylabel(METRICS[metric])
    marks.gmacs_axis(axes, unit)
    axes.set_xlabel(unit)
    style.log_ticks(axes.xaxis, (1,))
    if len(points) >= MIN_MODELS:
        axes.set_title(f"r = {log_linear(points['gmacs'], points[metric]).r:.3f}".replace("-", "−"), fontsize=7.5)
