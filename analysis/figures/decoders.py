"""The same samples through different autoencoder decoders (DiT paper, Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.captions import in_short, keys, paper, protocol
from analysis.figures.scores import Scores, axis_name
from analysis.figures.sources import Source, from_each
from analysis.figures.varied import varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("fid", "sfid", "inception_score", "precision", "recall")
PAPER = (
    "Published: Peebles & Xie 2022 (arXiv:2212.09748), Table 5: DiT-XL/2 at 7M steps, ImageNet 256 x 256, 50,000 "
    "samples, {steps}, EMA weights, guidance 1.5 on 3 of 4 channels."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture decoders.

    A row of panels for each model of a source whose scores differ in the decoder only: one panel per metric, one row
    per decoder with its number, mean over seeds. Each panel has a scale of its own that does not begin at zero. Data
    columns: source, gmacs, label, step, decoder, num_seeds, and the metrics.

    Raises:
        NothingToDraw: no model was scored with two decoders.
        ResultsError: scores that are not finite.
    """
    found, left_out = from_each(sources, _scores, by_design=False)
    groups = [(scores, points) for of_source in found for scores in of_source for points in _models(scores)]
    caption = "\n".join(dict.fromkeys(_conditions(scores) for scores, _ in groups))
    caption += "\nScales do not begin at zero."
    columns = 2 if width == "one" else 5
    metrics = [[name for name in METRICS if not points[name].isna().to_numpy().any()] for _, points in groups]
    rows = [-(-len(names) // columns) for names in metrics]
    heights = [count * (0.6 + 0.2 * len(points)) + 0.35 for count, (_, points) in zip(rows, groups, strict=True)]
    with style.look():
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)
        for part, (scores, points), names in zip(parts.flat, groups, metrics, strict=True):
            part.suptitle(f"{scores.title}, {points['label'].iloc[0]}", fontsize=9)
            for index, (axes, metric) in enumerate(zip(style.panels(part, len(names), columns), names, strict=True)):
                _panel(axes, points, metric, named=index % columns == 0)
                axes.set_xlabel(axis_name([scores], metric))
    data = pd.concat([points for _, points in groups])
    scores = [one for one, _ in groups]
    return Picture("decoders", figure, data, in_short(scores, ("decoder",)), caption, keys(scores), left_out)


def _scores(source: Source) -> list[Scores]:
    groups = varied(source, "decoder")
    # Without guidance the paper's tables have two decoders too, but only their FID in common.
    return [one for one in groups if not source.published or one.evals["guidance_scale"].iloc[0] == 1.5]


def _models(scores: Scores) -> list[pd.DataFrame]:
    """A table for each model; a metric that not all of its scores have is empty."""
    means = {name: (name, "mean") for name in METRICS}
    by = ["gmacs", "label", "step", "decoder"]
    points: Any = scores.evals.groupby(by, as_index=False).agg(num_seeds=("seed", "nunique"), **means)
    points.insert(0, "source", scores.source.called)
    return [rows.sort_values("fid", ascending=False) for _, rows in points.groupby("label", sort=False)]


def _conditions(scores: Scores) -> str:
    return paper(PAPER, scores) if scores.source.published else protocol(scores, ("decoder",))


def _panel(axes: Axes, points: pd.DataFrame, metric: str, named: bool) -> None:
    places = range(len(points))
    for index, value in zip(places, points[metric], strict=True):
        axes.plot(value, index, **marks.series_mark(index))
        axes.annotate(f"{value:.2f}", (value, index), (0, 4), textcoords="offset points", ha="center")
    texts = [str(name).rsplit("/", 1)[-1].partition("@")[0] for name in points["decoder"]]
    axes.set_yticks(places, texts if named else [""] * len(points))
    axes.grid(False, axis="x")
    axes.set_ylim(len(points) - 0.5, -0.8)
    axes.margins(x=0.3)
    axes.set_xticks([])
