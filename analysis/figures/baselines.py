"""What no network made, as level lines in the panels of models' scores: how good is good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from analysis.drawing import levels, style
from analysis.drawing.picture import Picture
from analysis.figures.scores import Scores
from analysis.figures.sources import Source
from analysis.results.baselines import beside, differing, explanation, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REAL = ("real", "real-halves")
FITTED, OF_DATA = (0, (6, 2)), (0, (1, 1.5))  # dashes of lines: what is fitted to the data, and real images
ASKED = "scores"  # marks a panel that would have lines
NAME_CHARACTERS = 16  # of a name's line beside a panel


def draw_baselines(axes: Axes, group: Sequence[Scores], named: bool = True) -> None:
    """A line for each baseline under the conditions of a panel's Fréchet distances, `named` at its right end.

    Before the panel's ticks are set: its scale reaches every line.
    """
    axes.set_gid(ASKED)
    drawn: set[str] = set()
    for one in group:
        for place, row in zip(*_beside(one), strict=True):
            if row["baseline"] in drawn:
                continue
            drawn.add(row["baseline"])
            name = "\n".join(wrap(name_of(row["baseline"]), NAME_CHARACTERS)) if named else ""
            dashes = OF_DATA if row["baseline"] in REAL else FITTED
            levels.add_level(axes, float(row["fid"]), f"{place} {one.source.name}", dashes, name)


def explained(picture: Picture, sources: Sequence[Source]) -> Picture:
    """The `picture` with its lines' names apart, and what the lines are in the caption; or why there are none."""
    if not any(axes.get_gid() == ASKED for axes in picture.figure.axes):
        return picture
    drawn = [key.split(" ", 1) for key in levels.keys_of(picture.figure)]
    tables = {source.name: source.tables.baselines for source in sources}
    rows = [tables[name].loc[int(place)] for place, name in drawn]
    without = [source for source in sources if source.name not in {name for _, name in drawn}]
    missing = [
        f"{source.name}: no baseline beside its scores (baselines.csv has {reason})"
        for source in without
        if (reason := _why_not(source))
    ]
    left_out = [*picture.left_out, *missing]
    if not rows:
        return replace(picture, left_out=left_out)
    with style.look():
        style.lay_out(picture.figure)
        levels.settle(picture.figure)
    caption = f"Level lines: {explanation(rows)}\n{picture.caption}"
    return replace(picture, caption=caption, short=f"{_short(rows)} {picture.short}", left_out=left_out)


def _beside(scores: Scores) -> tuple[list[Any], list[dict[Any, Any]]]:
    """The places in the source's baselines, and the rows there."""
    rows = beside(scores.source.tables.baselines, scores.evals)
    # All real images against themselves are no measure of anything, and zero is on no logarithmic scale.
    itself = (rows["baseline"] == "real") & (rows["images"] >= rows["against"])
    rows = rows.loc[~itself & (rows["fid"] > 0)]
    return rows.index.tolist(), rows.to_dict("records")


def _why_not(source: Source) -> str:
    evals = source.tables.evals
    if source.tables.baselines.empty or evals.empty:
        return ""
    return differing(source.tables.baselines, evals) if beside(source.tables.baselines, evals).empty else ""


def _short(rows: Sequence[Any]) -> str:
    kinds = [row["baseline"] in REAL for row in rows]
    said = ["Gaussians fitted to the real images (dashed)"] if not all(kinds) else []
    said += ["real images themselves (dotted)"] if any(kinds) else []
    return f"Level lines: {' and '.join(said)}."
