"""Every metric against the compute of one forward pass (DiT paper, Fig. 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols
from analysis.figures.scores import (
    METRICS,
    Scores,
    at_last_shared_step,
    axis_name,
    by_study,
    finite,
    has_line,
    over_seeds,
    scaling_scores,
    side_by_side,
    sources_of,
    titles,
)
from analysis.figures.sources import Source, from_each
from analysis.laws.power_law import log_linear
from analysis.results.tables import own_metrics
from analysis.results.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_PRINTED = "the paper prints no number of its Fig. 12; needed: a results folder with two metrics"
SMALL = 0.1  # scores below are named by their thousandths


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture metrics.

    A row of panels a source, one panel for each metric that was measured; means over seeds with bars from the lowest to
    the highest, at the last shared step; block designs of a study as different fills. Data columns: source, label,
    size, patch, gmacs, num_seeds, metric, mean, min, max.

    Raises:
        NothingToDraw: no source has two metrics.
        ResultsError: values that are not finite, or scores that are not comparable.
    """
    scores, left_out = from_each(sources, _with_metrics)
    groups = [group for study in by_study(scores) for group in side_by_side(study, also=("step",))]
    measured = [[name for name in _called(group) if any(name in _measured(one) for one in group)] for group in groups]
    data = pd.concat([_points(one, metric) for one in scores for metric in _measured(one)])
    columns = 2 if width == "one" else 3
    heights = [1.75 * -(-len(metrics) // columns) + 0.5 for metrics in measured]
    with style.look():
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)
        for part, group, metrics in zip(parts.flat, groups, measured, strict=True):
            step = style.steps_text(int(group[0].evals["step"].iloc[0]))
            part.suptitle(f"{titles(group)}, {step} steps", fontsize=9)
            free = len(metrics) % columns > 0 and len(metrics) > columns  # a cell for the legend
            panels = style.panels(part, len(metrics) + free, columns)
            for axes, metric in zip(panels, metrics, strict=False):
                if metric == "fid":
                    draw_baselines(axes, group, named=False)  # for want of room
                _panel(axes, group, metric)
            evals = pd.concat([one.evals for one in group])
            marks.shape_legend(part, evals, sources_of(group), panels[-1] if free else None)
    return Picture(
        "metrics",
        figure,
        data,
        in_short(scores),
        f"{MACS} ↓: lower is better.\n{protocols(scores)}",
        keys(scores),
        left_out,
    )


def _called(group: Sequence[Scores]) -> dict[str, str]:
    """Column -> title and direction: of the suite's metrics, then of the studies' own."""
    own = {name: visible(title) for one in group for name, title in own_metrics(one.runs).items()}
    return {**METRICS, **own}


def _measured(scores: Scores) -> list[str]:
    columns = [name for name in _called([scores]) if name in scores.evals.columns]
    return [name for name in columns if not scores.evals[name].isna().to_numpy().all()]


def _with_metrics(source: Source) -> Scores:
    if source.published:
        raise NothingToDraw(NOT_PRINTED)
    scores = at_last_shared_step(scaling_scores(source))
    metrics = _measured(scores)
    if len(metrics) < 2:
        raise NothingToDraw(f"its models have {', '.join(metrics)} alone; needed: a second metric")
    for name in metrics:
        finite(scores.evals, name)
    return scores


def _points(scores: Scores, metric: str) -> pd.DataFrame:
    points = over_seeds(scores.evals, metric=metric)
    points.insert(0, "source", scores.source.called)
    points = points.rename(columns={metric: "mean", f"{metric}_min": "min", f"{metric}_max": "max"})
    points.insert(points.columns.get_loc("mean"), "metric", metric)  # pyright: ignore[reportArgumentType]
    return points


def _panel(axes: Axes, group: list[Scores], metric: str) -> None:
    unit, size = marks.compute_unit([gmacs for scores in group for gmacs in scores.evals["gmacs"]])
    for index, scores in enumerate(group):
        if metric in _measured(scores):
            marks.scatter(axes, over_seeds(scores.evals, metric=metric), "gmacs", metric, index, size)
    _name(axes, axis_name(group, metric), [scores.evals[metric] for scores in group if metric in _measured(scores)])
    marks.gmacs_axis(axes, unit)
    axes.set_xlabel(unit)
    low, high = sorted(axes.get_xlim())
    style.log_ticks(axes.xaxis, (1,) if high / low > 10 else (1, 2, 5))
    points = over_seeds(group[0].evals, metric=metric)
    if len(group) == 1 and has_line(points) and len(set(points[metric])) > 1:
        axes.set_title(f"r = {log_linear(points['gmacs'], points[metric]).r:.3f}".replace("-", "−"), fontsize=7.5)


def _name(axes: Axes, name: str, values: Sequence[Any]) -> None:
    """Name the axis, with the power of a thousand that its numbers leave out: KID (× 10⁻³)."""
    largest = max(float(np.max(np.abs(one.astype(float)))) for one in values)
    if largest >= 1000 or 0 < largest < SMALL:
        power = 3 * int(np.floor(np.log10(largest) / 3))
        superscript = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        title, _, arrow = name.rpartition(" ")
        name = f"{title} (× 10{superscript}) {arrow}"
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / 10**power:g}")
    axes.set_ylabel(name)
