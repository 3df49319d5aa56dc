"""Scores against the scale of classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import fewer_seeds, in_short, keys, paper, protocol
from analysis.figures.scores import Scores, axis_name
from analysis.figures.sources import Source, from_each
from analysis.figures.varied import varied
from analysis.results.sampled import GUIDANCE, guidance_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

METRICS = ("fid", "inception_score", "precision", "recall")
MOST_TICKS = 6  # scales that are marked one by one
WIDE = 2.5  # scales, and distances, whose largest is so many times the smallest are on logarithmic axes
LEAST_APART = 0.12  # of a panel's width, between scales that are marked
PAPER = (
    "Published: Peebles & Xie 2022 (arXiv:2212.09748), Tables 2 and 3: DiT-XL/2 at 7M steps (256 x 256) and 3M "
    "(512 x 512), 50,000 samples, {steps}, EMA weights, ft-EMA decoder, guidance on 3 of 4 channels."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture guidance.

    A row of panels for each group of scores that differ in guidance only, one panel for each metric; one line for each
    model, mean over seeds, and for each way of guidance: on which channels, at which times, by what. All begin at
    scale 1, which is none. Bands go from the lowest to the highest of the seeds. Data columns: source, gmacs, label,
    data, step, guidance_scale, guided (the way, where there are several), num_seeds, and of each metric the mean,
    METRIC_min and METRIC_max.

    Raises:
        NothingToDraw: no model was scored at two scales.
        ResultsError: scores that are not finite.
    """
    found, left_out = from_each(sources, _scores, by_design=False)
    groups = [scores for of_source in found for scores in of_source]
    caption = (
        "\n".join(dict.fromkeys(_conditions(scores) for scores in groups))
        + "\nScale 1: no guidance. Ringed: the lowest of the scales that were scored."
    )
    metrics = [_measured(scores) for scores in groups]
    columns = 2 if width == "one" else max(map(len, metrics))
    keys_below = [0.2 * len(_ways(scores.evals)) if len(_ways(scores.evals)) > 1 else 0.0 for scores in groups]
    heights = [1.55 * -(-len(names) // columns) + 0.3 + key for names, key in zip(metrics, keys_below, strict=True)]
    with style.look():
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights)
        for part, scores, names in zip(parts.flat, groups, metrics, strict=True):
            part.suptitle(_title(scores), fontsize=9)
            lines = {}
            for axes, metric in zip(style.panels(part, len(names), columns), names, strict=True):
                if metric == "fid":
                    draw_baselines(axes, [scores], named=False)  # for want of room
                lines = _panel(axes, scores, metric)
            if len(_ways(scores.evals)) > 1:
                marks.below_legend(part, list(lines.values()), list(lines), handlelength=3.2)
    data = pd.concat([_points(scores) for scores in groups])
    short = in_short(groups, ("guidance_scale",))
    return Picture("guidance", figure, data, short, caption, keys(groups), left_out)


def _scores(source: Source) -> list[Scores]:
    groups = varied(source, "guidance_scale", ignored=GUIDANCE)
    # Tables 4 and 5 have two scales too, of the other decoder, but only their FID in common.
    return [one for one in groups if not source.published or one.evals["decoder"].iloc[0].endswith("ft-ema")]


def _measured(scores: Scores) -> list[str]:
    """The metrics that all of these scores have."""
    return [name for name in METRICS if not scores.evals[name].isna().to_numpy().any()]


def _points(scores: Scores) -> pd.DataFrame:
    found = {"": "mean", "_min": "min", "_max": "max"}
    means = {f"{name}{end}": (name, how) for name in METRICS for end, how in found.items()}
    by, evals = ["gmacs", "label", "data", "step", "guidance_scale"], scores.evals
    ways, said = _ways(evals), pd.Series([_way(row) for row in evals.to_dict("records")], evals.index)
    if len(ways) > 1:
        by.insert(4, "guided")
        without = evals["guidance_scale"] == 1
        evals = pd.concat([evals.loc[without | (said == way)].assign(guided=way) for way in ways])
    points: Any = evals.groupby(by, as_index=False).agg(num_seeds=("seed", "nunique"), **means)
    points.insert(0, "source", scores.source.called)
    if len(ways) > 1:  # as they were asked for, not by the alphabet
        points = points.sort_values("guided", key=lambda guided: guided.map(ways.index), kind="stable")
    return points


def _title(scores: Scores) -> str:
    """The study, and the model if there is one alone."""
    labels = scores.evals["label"].unique()
    title = scores.title.replace("imagenet-512-latents", "ImageNet 512 x 512")
    return f"{title}, {labels[0]}" if len(labels) == 1 else title


def _conditions(scores: Scores) -> str:
    if scores.source.published:
        return paper(PAPER, scores)
    ways = _ways(scores.evals)
    only = (
        [f"Guided {ways[0]}."] if len(ways) == 1 and not ways[0].endswith(("channel", "channels")) else []
    )  # as by default
    return " ".join([protocol(scores, ("guidance_scale",)), *only, *fewer_seeds(scores, ("guidance_scale",))])


def _ways(evals: pd.DataFrame) -> list[str]:
    """Of the rows with guidance: "on all channels", "on 3 channels at times 200 to 800"."""
    guided = evals.loc[evals["guidance_scale"] != 1]
    return list(dict.fromkeys(_way(row) for row in guided.to_dict("records")))


def _way(row: dict[Any, Any]) -> str:
    return guidance_text(row).strip() or "on all channels"


def _panel(axes: Axes, scores: Scores, metric: str) -> dict[str, Line2D]:
    """The lines by their names; a model alone is in the title."""
    from matplotlib.ticker import NullLocator

    points, ways = _points(scores), len(_ways(scores.evals)) > 1
    lines: dict[str, Line2D] = {}
    by = ["label", "guided"] if ways and len(set(points["label"])) > 1 else ["guided" if ways else "label"]
    groups: Any = points.groupby(by, sort=False)
    for index, (named, line) in enumerate(groups):
        label = ", ".join(map(str, named))
        lines[label] = marks.curve(axes, line, "guidance_scale", metric, marks.series_mark(index))
        if metric == "fid":
            best = line.loc[line["fid"].idxmin()]
            at = (best["guidance_scale"], best["fid"])
            colour = lines[label].get_color()
            axes.plot(*at, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=colour)
            below: Any = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 7}
            if not ways or best["fid"] == points["fid"].min():  # of many lines, one number is legible
                axes.annotate(f"{at[1]:.3g}", at, (0, -6), **below)
    axes.set_xlabel("Guidance scale")
    axes.set_ylabel(axis_name([scores], metric))
    axes.margins(0.14, 0.25)
    if metric == "fid" and _is_wide(points["fid_min"].tolist() + points["fid_max"].tolist()):
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
    scales = sorted(set(points["guidance_scale"]))
    if _is_wide(scales):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    if len(scales) <= MOST_TICKS:
        axes.set_xticks(scales, _texts(axes, scales))
    if metric == "fid" and len(lines) > 1 and not ways:
        axes.legend(list(lines.values()), list(lines))  # given, as labels with an underscore first are left out
    return lines


def _is_wide(values: list[float]) -> bool:
    return min(values) > 0 and max(values) >= WIDE * min(values)


def _texts(axes: Axes, scales: list[float]) -> list[str]:
    """The scales as they are marked: those that would stand too close to the one before are not named."""
    axes.get_xlim()  # settles the view
    place = axes.get_xaxis_transform() + axes.transAxes.inverted()
    texts, last = [], -1.0
    for scale in scales:
        at = float(place.transform((scale, 0))[0])
        texts.append(f"{scale:g}" if at - last >= LEAST_APART else "")
        last = at if texts[-1] else last
    return texts
