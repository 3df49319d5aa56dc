"""Scores of averages of the weights, by how far back they reach and at which training step (EDM2, Figs. 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import in_short, keys, protocol
from analysis.figures.scores import Scores, axis_name
from analysis.figures.sources import Source, from_each
from analysis.figures.varied import varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = "Filled: made afterwards of snapshots; hollow: kept in training; triangles: exponential; crosses: no average."
WIDTH = (
    "Relative width: the standard deviation of the steps that an average sums, each as often as it does, as a share of "
    "the steps so far. Circles are averages by a power function of time: filled, made afterwards of snapshots; hollow, "
    "kept in training. Triangles are exponential averages at the width of their own steps; a cross at 0 is the trained "
    "weights themselves. Ringed: the lowest of a line."
)
NEEDED = "no run was scored with two averages of its weights that have a width; needed: two, by evaluation.ema"
PLAIN, RAW, DECAY, STD = "ema", "raw", "ema decay=", "ema std="


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture averages.

    A panel for each model, a line for each training step: means over seeds, bands over their range. Data columns:
    source, gmacs, label, data, weights, step, width, post_hoc, num_seeds, fid, fid_min, fid_max; post_hoc: of how many
    snapshots, none of averages that were kept in training.

    Raises:
        NothingToDraw: no model was scored with two averages.
        ResultsError: scores that are not finite.
    """
    found, left_out = from_each(sources, _scores)
    groups = [(scores, points) for of_source in found for scores in of_source for points in _models(scores)]
    scores = list({id(one): one for one, _ in groups}.values())
    caption = "\n".join([WIDTH, *(protocol(one, ("weights",)) for one in scores)])
    columns = 1 if width == "one" else min(2, len(groups))
    with style.look():
        figure = style.new_figure(width, 2.7 * -(-len(groups) // columns))
        for part, (one, points) in zip(style.parts(figure, len(groups), columns), groups, strict=True):
            _panel(part, one, points)
    data = pd.concat([points for _, points in groups])
    short = f"{KINDS} {in_short(scores, ('weights',))}"
    return Picture("averages", figure, data, short, caption, keys(scores), left_out)


def _scores(source: Source) -> list[Scores]:
    if source.published:
        raise NothingToDraw("the paper prints no scores of other averages; needed: a results folder with some")
    found = [scores for scores in varied(source, "weights", every_step=True) if _models(scores)]
    if not found:
        raise NothingToDraw(NEEDED)
    return found


def _models(scores: Scores) -> list[pd.DataFrame]:
    """The points of each model that has several widths at one step."""
    evals = scores.evals.merge(scores.runs.loc[:, ["run", "ema_decay"]], on="run", how="left")
    evals["width"] = [_width(row["weights"], row["step"], row["ema_decay"]) for row in evals.to_dict("records")]
    by = ["gmacs", "label", "data", "weights", "step"]
    points: Any = (
        evals.dropna(subset="width")
        .groupby(by, as_index=False)
        .agg(
            width=("width", "first"),
            post_hoc=("post_hoc", "max"),
            num_seeds=("seed", "nunique"),
            fid=("fid", "mean"),
            fid_min=("fid", "min"),
            fid_max=("fid", "max"),
        )
        .sort_values([*by[:3], "step", "width"], ignore_index=True)
    )
    points.insert(0, "source", scores.source.called)
    models = [model for _, model in points.groupby("label", sort=False)]
    return [model for model in models if (model.groupby("step")["width"].nunique() > 1).any()]


def _width(weights: str, step: int, ema_decay: float) -> float:
    """The relative width of an average at `step`; NaN where nothing says."""
    if weights.startswith(STD):
        return float(weights.removeprefix(STD))
    if weights == RAW:
        return 0.0
    decay = float(weights.removeprefix(DECAY)) if weights.startswith(DECAY) else ema_decay if weights == PLAIN else nan
    if pd.isna(decay):
        return nan
    # Step 0, the initial weights, has what is left for it.
    share = np.array([decay**step, *((1 - decay) * decay ** np.arange(step - 1, -1, -1.0))])
    steps = np.arange(step + 1)
    return float(sqrt(max(0.0, share @ steps**2 - (share @ steps) ** 2)) / step)


def _panel(part: Any, scores: Scores, points: pd.DataFrame) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes: Axes = part.subplots()
    lines: dict[str, Any] = {}
    steps: Any = points.groupby("step")
    for index, (step, rows) in enumerate(steps):
        look = marks.series_mark(index)
        plain = {"color": look["color"], "linestyle": look["linestyle"]}
        powers = rows.loc[rows["weights"].str.startswith(STD)]
        mark = plain | {"marker": "o", "markersize": 4, "markerfacecolor": look["color"]}
        if len(powers):
            marks.curve(axes, powers, "width", "fid", plain)
        for row in rows.to_dict("records"):
            axes.plot(row["width"], row["fid"], **mark | _shape(row))
        lines[f"{style.steps_text(int(step))} steps"] = marks.line_handle(look["color"], look["linestyle"])
        best = rows.loc[rows["fid"].idxmin()]
        at = (best["width"], best["fid"])
        axes.plot(*at, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=look["color"])
        below: Any = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 7}
        axes.annotate(f"{at[1]:.3g}", at, (0, -6), **below)
    axes.set_title(f"{scores.title}, {points['label'].iloc[0]}")
    axes.set_xlabel("Relative width of the average")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.set_ylabel(axis_name([scores]))
    axes.margins(0.08, 0.16)
    if min(points["fid_min"]) > 0:
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
    marks.below_legend(part, list(lines.values()), list(lines), handlelength=3.2)


def _shape(row: dict[Any, Any]) -> dict[str, Any]:
    """The marker of an average by its kind."""
    if row["weights"] == RAW:
        return {"marker": "x"}
    kind = {"marker": "o"} if row["weights"].startswith(STD) else {"marker": "^"}
    return kind if pd.notna(row["post_hoc"]) else kind | {"markerfacecolor": "white"}
