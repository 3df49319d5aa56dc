"""Block designs at the same size: the Fréchet distance over training (DiT paper, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols
from analysis.figures.scores import Scores, axis_name, checked, names, one_study, over_seeds
from analysis.figures.sources import Source, from_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# As in the legend of the paper's figure, from the highest curve to the lowest, and ours.
DESIGNS = ("in-context", "cross-attention", "adaln", "adaln-zero", "adaln-single")
TICKS = "Markers and numbers: means over seeds; ticks: the seeds."
NOT_PRINTED = (
    "The paper prints the designs' numbers at 400K steps, where the curves of its Fig. 5 end; the curves themselves "
    "are not available as numbers."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture blocks.

    One panel for each source and model: lines over training, means over seeds with bands from the lowest to the
    highest; or, where there is one step only, one row for each design with its score, a tick for each seed, and in a
    second panel its compute. Designs are called as the study's labels have it, else by what they are, as the column
    block. Data columns: source, label, size, patch, block, design (what it is called), step, gmacs, num_seeds, fid,
    fid_min, fid_max.

    Raises:
        NothingToDraw: no source has two designs of one model.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _with_designs, by_design=False)
    groups: list[Any] = [
        (scores, f"{scores.title}, {model}", points)
        for scores in found
        for model, points in _points(scores).groupby("label", sort=False)
    ]
    columns = 1 if width == "one" or any(_at_one_step(points) for *_, points in groups) else min(2, len(groups))
    heights = [
        max(_height(points) for *_, points in groups[row : row + columns]) for row in range(0, len(groups), columns)
    ]
    with style.look():
        figure = style.new_figure(width, sum(heights))
        grid = figure.subfigures(len(heights), columns, squeeze=False, height_ratios=heights)
        parts: list[Any] = list(grid.flat)
        for part, (scores, title, points) in zip(parts, groups, strict=False):
            (_rows if _at_one_step(points) else _lines)(part, title, points, scores)
    ticks = f"\n{TICKS}" if any(_at_one_step(points) and max(points["num_seeds"]) > 1 for *_, points in groups) else ""
    short, caption = in_short(found), f"{MACS}{ticks}\n{protocols(found)}"
    if any(scores.source.published for scores in found):
        short += " The paper's curves are not published as numbers."
        caption = f"{caption.replace('adaln-zero, ', '')}\n{NOT_PRINTED}"
    data = pd.concat([_points(scores) for scores in found])
    return Picture("blocks", figure, data, short, caption, keys(found), left_out)


def _with_designs(source: Source) -> Scores:
    """The scores of the models that have several designs."""
    evals = source.tables.evals
    if source.published:
        evals = evals.loc[(evals["step"] == 400_000) & evals["run"].str.endswith("imagenet-256-latents")]
    if evals.empty:
        raise NothingToDraw("nothing to draw: no run has a score yet; needed: runs of two block designs")
    designs: Any = evals.groupby("network")["block"].transform("nunique")
    several = designs > 1
    if not several.any():
        only = names(evals, "block") or "or none"
        raise NothingToDraw(f"every model has one block design ({only}); needed: one model with at least two")
    scores = Scores(source, checked(evals.loc[several]))
    one_study(scores.runs)
    return scores


def _points(scores: Scores) -> pd.DataFrame:
    points = over_seeds(_by_network(scores.evals), ["block", "design", "step"])
    points.insert(0, "source", scores.source.name)
    return points


def _by_network(evals: pd.DataFrame) -> pd.DataFrame:
    """`evals` whose `label` is the network, and what its label says besides is in a column of its own, `design`."""
    rows = evals.loc[:, ["label", "network", "block"]].itertuples(index=False)
    said = [
        label.removeprefix(f"{network} ") if label.startswith(f"{network} ") else block
        for label, network, block in rows
    ]
    return evals.assign(label=evals["network"], design=said)


def _designs(points: pd.DataFrame) -> list[str]:
    present = points["design"].unique().tolist()
    return sorted(present, key=lambda name: (DESIGNS.index(name) if name in DESIGNS else len(DESIGNS), name))


def _at_one_step(points: pd.DataFrame) -> bool:
    return len(set(points["step"])) == 1


def _height(points: pd.DataFrame) -> float:
    return 0.75 + 0.23 * len(set(points["design"])) if _at_one_step(points) else 2.5


def _lines(part: Any, title: str, points: pd.DataFrame, scores: Scores) -> None:
    axes: Axes = part.subplots()
    lines: dict[str, Line2D] = {}
    for index, design in enumerate(_designs(points)):
        chosen = points.loc[points["design"] == design]
        unit, size = marks.compute_unit(chosen["gmacs"].tolist())
        label = f"{design} ({chosen['gmacs'].iloc[0] / size:.4g} {unit})"
        lines[label] = marks.curve(axes, chosen, "step", "fid", marks.series_mark(index))
    axes.set_title(title)
    axes.set_ylabel(axis_name([scores]))
    draw_baselines(axes, [scores])
    style.step_ticks(axes)
    if min(points["fid_min"]) > 0:
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
    marks.below_legend(part, list(lines.values()), list(lines), handlelength=3.2)


def _rows(part: Any, title: str, points: pd.DataFrame, scores: Scores) -> None:
    """One row for each design: its marker at its score, a tick for each seed; in a second panel its compute."""
    designs = _designs(points)
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    part.suptitle(f"{title}, {style.steps_text(points['step'].iloc[0])} steps", fontsize=8.5)
    left, right = part.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = [points.loc[points["design"] == design].iloc[0] for design in designs]
    looks = [marks.series_mark(index % len(style.SERIES)) for index in range(len(rows))]  # their place tells them apart
    evals = _by_network(scores.evals)
    evals = evals.loc[evals["label"] == rows[0]["label"]]
    for index, (design, row) in enumerate(zip(designs, rows, strict=True)):
        if row["num_seeds"] > 1:
            seeds = evals.loc[evals["design"] == design, "fid"]
            left.plot(seeds, [index] * len(seeds), "|", color=looks[index]["color"], markersize=9)
    for axes, label, values, furthest in (
        (left, axis_name([scores]), [row["fid"] for row in rows], [row["fid_max"] for row in rows]),
        (right, unit, [row["gmacs"] / size for row in rows], [row["gmacs"] / size for row in rows]),
    ):
        for index, (value, end) in enumerate(zip(values, furthest, strict=True)):
            axes.plot([0, value], [index, index], color="#bbbbbb", linewidth=0.8, zorder=1)
            axes.plot(value, index, **looks[index])
            axes.annotate(
                f"{value:.2f}" if value >= 10 else f"{value:.4g}",
                (end, index),
                (6, 0),
                textcoords="offset points",
                va="center",
            )
        axes.grid(False, axis="y")
        axes.set_xlim(0, 1.35 * max(furthest))
        axes.set_xlabel(label)
    left.set_yticks(range(len(designs)), designs)
    left.set_ylim(len(designs) - 0.5, -0.5)
