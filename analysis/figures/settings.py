"""Scores and losses against a setting of the training, such as the learning rate: a line for each way of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import MACS, absent, in_short, keys, protocols
from analysis.figures.scores import Scores, at_last_shared_step, axis_name, checked, names
from analysis.figures.sources import Source, from_each
from analysis.laws.observed import mean_losses
from analysis.results.model_names import differing_settings, settings_said
from analysis.results.run_folders import RUNS_TYPES, SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

NUMBERS = tuple(name for name in SETTINGS if RUNS_TYPES[name] in ("float64", "Int64"))
ENOUGH = 3  # values of a setting, which then is not drawn beside one that has fewer
MOST_TICKS = 6  # values that are marked one by one
CROSS = "A cross: that many of so many runs have not come so far or have failed; the mean leaves them out."
LOSS = "Training loss: mean over the last tenth of the steps."
COUNTS = {"fid": "num_seeds", "loss": "num_losses"}
NOT_PRINTED = "the paper varies no setting of the training; needed: a results folder with two values of one"


@dataclass(frozen=True)
class _Varied:
    """One setting of one model: `points` of the columns that `draw` names."""

    scores: Scores
    setting: str
    points: pd.DataFrame


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture settings.

    For each source, model and setting of which runs that agree in all else have several values: the Fréchet distance
    at the last shared step, and the training loss, a line for each such way of training; means over seeds with bands
    from the lowest to the highest. A setting of two values is drawn only where none has more. Data columns: source,
    label, design, setting, value, step, num_runs, num_seeds (with a score), num_losses, fid, fid_min, fid_max, loss,
    loss_min, loss_max.

    Raises:
        NothingToDraw: no setting has two values, or runs differ in data.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _varied, by_design=False)
    rows = [row for of_source in found for row in of_source]
    scores = [of_source[0].scores for of_source in found]
    columns = 1 if width == "one" else 2
    with style.look():
        heights = [(3.6 if columns == 1 else 2.0) + _legend_height(row, width) for row in rows]
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)
        for part, row in zip(parts.flat, rows, strict=True):
            steps = style.steps_text(int(row.points["step"].iloc[0]))
            part.suptitle(f"{row.scores.study}, {row.points['label'].iloc[0]}, {steps} steps", fontsize=8.5)
            fid, loss = style.panels(part, 2, columns)
            lines = _panel(fid, row, "fid", axis_name([row.scores]))
            _panel(loss, row, "loss", "Training loss ↓")
            marks.below_legend(part, list(lines.values()), list(lines), handlelength=3.2)
    data = pd.concat([row.points for row in rows])
    crosses = [CROSS] if min(sum(data[count]) for count in COUNTS.values()) < sum(data["num_runs"]) else []
    short = " ".join([in_short(scores), *crosses])
    missing = [line for one in scores for line in absent(one)]
    caption = "\n".join(dict.fromkeys([f"{MACS} {LOSS}", *crosses, *protocols(scores).split("\n"), *missing]))
    return Picture("settings", figure, data, short, caption, keys(scores), left_out)


def _varied(source: Source) -> list[_Varied]:
    if source.published:
        raise NothingToDraw(NOT_PRINTED)
    runs = source.tables.runs.assign(block=source.tables.runs["block_alone"])
    if len(set(runs["data"])) > 1:
        raise NothingToDraw(f"the runs differ in data ({names(runs, 'data')}); keep one value to draw them")
    counts = {name: _values(runs, name) for name in NUMBERS}
    most = max(int(max(count)) for count in counts.values())
    if most < 2:
        raise NothingToDraw(
            "no setting alone differs between runs of one model; needed: two values, as of learning_rate"
        )
    own = replace(source, tables=replace(source.tables, runs=runs))
    scores = at_last_shared_step(Scores(own, checked(source.tables.evals)))
    runs = _measured(runs, scores)
    return [
        _Varied(scores, name, _points(scores, rows, name))
        for name, count in counts.items()
        if max(count) >= min(ENOUGH, most)
        for _, rows in runs.loc[count > 1].groupby("network", sort=False)
    ]


def _values(runs: pd.DataFrame, name: str) -> pd.Series:
    """Of each run how many values `name` has among those that agree in all else."""
    rest = [other for other in ("network", "block", "objective", *SETTINGS) if other != name]
    groups: Any = runs.groupby(rest, dropna=False)
    return groups[name].transform("nunique")


def _measured(runs: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """`runs` with their `fid` and `loss` at the step of `scores`, NaN where there is none."""
    tables, fid, loss = scores.source.tables, dict(zip(scores.evals["run"], scores.evals["fid"], strict=True)), {}
    if len(tables.train):
        losses = mean_losses(tables)
        losses = losses.loc[losses["step"] == scores.evals["step"].iloc[0]]
        loss = dict(zip(losses["run"], losses["score"], strict=True))
    of_runs = {name: [float(of.get(run, np.nan)) for run in runs["run"]] for name, of in (("fid", fid), ("loss", loss))}
    return runs.assign(**of_runs)


def _points(scores: Scores, runs: pd.DataFrame, name: str) -> pd.DataFrame:
    apart = differing_settings(runs, ["network"], ("block", "objective", *SETTINGS))
    said = settings_said(runs, [other for other in apart if other != name])
    runs = runs.assign(
        design=[text or block for text, block in zip(said, runs["block"], strict=True)], value=runs[name]
    )
    spread = {
        f"{column}{end}": (column, how)
        for column in ("fid", "loss")
        for end, how in (("", "mean"), ("_min", "min"), ("_max", "max"))
    }
    points: Any = runs.groupby(["design", "value"], as_index=False, sort=False).agg(
        num_runs=("run", "size"), **{count: (column, "count") for column, count in COUNTS.items()}, **spread
    )
    points = points.sort_values("value", kind="stable", ignore_index=True)
    said_first = {
        "source": scores.source.name,
        "label": runs["network"].iloc[0],
        "setting": name,
        "step": int(scores.evals["step"].iloc[0]),
    }
    points = points.assign(**said_first)
    return points.loc[
        :, ["source", "label", "design", "setting", "value", "step", "num_runs", *COUNTS.values(), *spread]
    ]


def _legend_height(row: _Varied, width: style.Width) -> float:
    return marks.legend_height(_designs(row), 3.2, style.WIDTHS[width])


def _designs(row: _Varied) -> list[str]:
    """The plainest first."""
    return sorted(set(row.points["design"]), key=lambda design: (len(design), design))


def _panel(axes: Axes, row: _Varied, column: str, name: str) -> dict[str, Line2D]:
    """One metric over the setting; the lines by their designs."""
    lines: dict[str, Line2D] = {}
    for index, design in enumerate(_designs(row)):
        line = row.points.loc[row.points["design"] == design]
        lines[design] = marks.curve(axes, line, "value", column, marks.series_mark(index))
    values = sorted(set(row.points["value"]))
    if min(values) > 0:
        axes.set_xscale("log")
    if len(values) <= MOST_TICKS:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    axes.margins(0.1)
    axes.set_xlabel(row.setting.replace("_", " ").capitalize())
    axes.set_ylabel(name)
    lowest = [value for value in row.points[f"{column}_min"].tolist() if np.isfinite(value)]
    if lowest and min(lowest) > 0:
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
    _crosses(axes, row, COUNTS[column])
    return lines


def _crosses(axes: Axes, row: _Varied, count: str) -> None:
    """Above the lines, where runs are missing, how many of how many: one below the other."""
    found = row.points.loc[row.points[count] < row.points["num_runs"]]
    deepest = int(found.groupby("value").size().max()) if len(found) else 0
    room = 0.09 * deepest  # as a share of the panel
    top = axes.transData.inverted().transform(axes.transAxes.transform((0, 1 / (1 - room))))[1]
    axes.set_ylim(axes.get_ylim()[0], top)
    designs = _designs(row)
    for value, points in found.groupby("value"):
        for rank, point in enumerate(
            points.sort_values("design", key=lambda of: of.map(designs.index)).to_dict("records")
        ):
            height, colour = 0.97 - 0.09 * rank, style.SERIES[designs.index(point["design"])][0]
            axes.plot(value, height, "x", color=colour, transform=axes.get_xaxis_transform(), markersize=5)
            at: Any = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 7}
            text = f"{point['num_runs'] - point[count]} of {point['num_runs']}"
            axes.annotate(text, (value, height), (-5, 0), ha="right", va="center", color=colour, **at)
