"""Two block designs, families or objectives at equal compute: a law through each, and the compute between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.compare.collected import collected_designs
from analysis.compare.designs import DesignComparison, compare_designs
from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.errors import ResultsError
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols
from analysis.figures.scores import Scores, at_last_shared_step, axis_name, for_a_law, has_line, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.laws.intervals import Interval
from analysis.results.tables import MIN_MODELS, Tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHOD = (
    "Small markers: seeds; large ones: their geometric means. Lines: log(score) = a - alpha log(GMACs), one alpha for "
    "both designs. Bar: the interval of the compute that the worse design needs for the score of the better one."
)
MARKER = 6.0  # points


@dataclass(frozen=True)
class _Compared:
    """The scores of a source's two designs at one step; points: design, model, seed, gmacs, fid, mean, line."""

    scores: Scores
    comparison: DesignComparison
    points: pd.DataFrame


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture designs.

    One panel for each source, at its last shared step, both axes logarithmic. Data columns: source, design, model,
    seed, gmacs, fid, mean (over the model's seeds, geometric), line (the law's fid).

    Raises:
        NothingToDraw: no source has two designs of three models each.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _compared, by_design=False)
    with style.look():
        columns = 1 if width == "one" else min(2, len(found))
        figure = style.new_figure(width, 3.0 * -(-len(found) // columns))
        axes = style.panels(figure, len(found), columns)
        for panel, each in zip(axes, found, strict=True):
            _panel(panel, each)
        style.lay_out(figure)
        for panel, each in zip(axes, found, strict=True):
            _name(panel, each)
    scores = [each.scores for each in found]
    data = pd.concat([each.points for each in found])
    caption = f"{METHOD}\n{MACS}\n{protocols(scores)}"
    return Picture("designs", figure, data, in_short(scores), caption, keys(scores), left_out)


def _compared(source: Source) -> _Compared:
    scores = at_last_shared_step(scaling_scores(source))
    names = list(dict.fromkeys(scores.evals["block"]))
    if len(names) != 2:
        raise NothingToDraw(f"{len(names)} block design{'s' * (len(names) > 1)}; needed: two")
    for _, rows in scores.evals.groupby("block"):
        if not has_line(rows.drop_duplicates("network")):
            raise NothingToDraw(f"needed: two designs, each of at least {MIN_MODELS} models of different compute")
        for_a_law(rows)
    step = int(scores.evals["step"].iloc[0])
    families = dict(zip(scores.runs["block"], scores.runs["family"], strict=True))
    parts = {name or families[name]: _of(source, name) for name in names}
    try:
        comparison = compare_designs(collected_designs(parts, "source", step=step))
    except ResultsError as error:
        raise NothingToDraw(str(error)) from None
    return _Compared(scores, comparison, _points(scores, families, comparison.exponent.estimate))


def _of(source: Source, block: str) -> Tables:
    def chosen(table: pd.DataFrame) -> pd.DataFrame:
        return table.loc[table["block"] == block]

    tables = source.tables
    return replace(tables, runs=chosen(tables.runs), train=chosen(tables.train), evals=chosen(tables.evals))


def _points(scores: Scores, families: dict[str, str], alpha: float) -> pd.DataFrame:
    evals = scores.evals
    points = pd.DataFrame(
        {
            "source": scores.source.name,
            "design": [block or families[block] for block in evals["block"]],
            "model": evals["network"],
            "seed": evals["seed"],
            "gmacs": evals["gmacs"],
            "fid": evals["fid"],
        }
    )
    logs: Any = np.log(points["fid"])
    points["mean"] = np.exp(logs.groupby([points["design"], points["model"]]).transform("mean"))
    models = points.drop_duplicates(["design", "model"])
    levels: Any = np.log(models["mean"]) + alpha * np.log(models["gmacs"])
    points["line"] = np.exp(
        points["design"].map(levels.groupby(models["design"]).mean()) - alpha * np.log(points["gmacs"])
    )
    return points.reset_index(drop=True)


def _panel(axes: Axes, each: _Compared) -> None:
    unit, size = marks.compute_unit(each.points["gmacs"].tolist())
    for index, design in enumerate(dict.fromkeys(each.points["design"])):
        rows = each.points.loc[each.points["design"] == design]
        mark = marks.series_mark(index)
        line = rows.drop_duplicates("model").sort_values("gmacs")
        axes.plot(line["gmacs"] / size, line["line"], color=mark["color"], linestyle=mark["linestyle"], zorder=1)
        axes.plot(line["gmacs"] / size, line["mean"], **(mark | {"linestyle": "none", "markersize": MARKER}), zorder=3)
        small = mark | {"linestyle": "none", "markersize": 2.5, "markeredgewidth": 0, "alpha": 0.6}
        axes.plot(rows["gmacs"] / size, rows["fid"], **small, zorder=2)
        axes.plot([], [], **mark, label=design)
    step = style.steps_text(int(each.scores.evals["step"].iloc[0]))
    axes.set_title(f"{each.scores.study}, {step} steps")
    axes.set_ylabel(axis_name([each.scores]))
    draw_baselines(axes, [each.scores])
    axes.set_yscale("log")
    marks.gmacs_axis(axes, unit)
    style.log_ticks(axes.yaxis, (1, 2, 3, 5, 7))
    axes.legend(loc="lower left")
    if each.comparison.multiplier is None:
        marks.corner_text(axes, ["not distinguishable in compute"])
    else:
        _bar(axes, each, each.comparison.multiplier, size)


def _bar(axes: Axes, each: _Compared, multiplier: Interval, size: float) -> None:
    """From the better design's line to the worse one's, at one score, and how far that could reach."""
    better = each.points.loc[each.points["design"] == each.comparison.better].iloc[0]
    alpha, start = each.comparison.exponent.estimate, each.comparison.at_gmacs
    score = better["line"] * (better["gmacs"] / start) ** alpha
    limits = axes.get_xlim()
    low, high = np.clip([start * multiplier.low / size, start * multiplier.high / size], *limits)
    axes.plot([low, high], [score, score], color="#555555", linewidth=4, alpha=0.35, solid_capstyle="butt", zorder=1)
    axes.plot([start / size, start * multiplier.estimate / size], [score, score], color="black", linewidth=1, zorder=2)
    axes.set_xlim(limits)
    interval = f"{multiplier.level:.0%}: {times(multiplier.low)} to {times(multiplier.high)}"
    factor = f"{times(multiplier.estimate)}x ({interval})"
    verdict = f"{each.comparison.worse}: {factor}\nthe compute of {each.comparison.better}"
    marks.corner_text(axes, [verdict, *([] if each.comparison.distinguishable else ["not distinguishable"])])


def times(factor: float) -> str:
    """A factor of compute: 0.82, 2.9, 26,000."""
    return f"{factor:.2g}" if factor < 100 else f"{float(f'{factor:.2g}'):,.0f}"


def _name(axes: Axes, each: _Compared) -> None:
    """The models' names, once where both designs have the same."""
    models = each.points.drop_duplicates(["design", "model"])
    size = marks.compute_unit(each.points["gmacs"].tolist())[1]
    lines = []
    for _, line in models.groupby("design"):
        first, last = line.sort_values("gmacs").iloc[[0, -1]].loc[:, ["gmacs", "line"]].to_numpy(float) / [size, 1]
        lines.append(np.geomspace(first, last, 100))
    if each.comparison.paired:
        models = models.loc[models["design"] == each.comparison.better]
    x = (models["gmacs"] / size).tolist()
    order = list(dict.fromkeys(each.points["design"]))
    colours = [marks.series_mark(order.index(design))["color"] for design in models["design"]]
    radii = [MARKER / 2] * len(models)
    names = models["model"].tolist()
    marks.name_points(axes, x, models, "mean", names, np.concatenate(lines), radii, colours)
