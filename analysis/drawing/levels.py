"""Level lines across a panel, each with its name at the right end, the names clear of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLOUR = "#444444"
FONT_SIZE = 6
AWAY = 7.0  # points from the panel to the names, for the short lines that lead to them
LEVEL = "level "  # begins the mark of a line or a name; what follows is its key


def add_level(axes: Axes, y: float, key: str, dashes: Any, name: str = "") -> None:
    """A thin line at the height `y`, which the panel's scale then reaches; without a `name` none stands at its end."""
    look: dict[str, Any] = {"color": COLOUR, "linewidth": 0.7, "linestyle": dashes, "zorder": 0.9}
    axes.axhline(y, gid=LEVEL + key, **look)
    if name:
        axes.annotate(
            name, (1, y), (AWAY, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", gid=LEVEL + key,
            va="center", ha="left", fontsize=FONT_SIZE, color=COLOUR, linespacing=1.0, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": COLOUR, "shrinkA": 0, "shrinkB": 0,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def levels(axes: Axes) -> list[Line2D]:
    """The level lines of a panel."""
    return [line for line in axes.lines if str(line.get_gid()).startswith(LEVEL)]


def keys_of(figure: Figure) -> list[str]:
    """The keys of all level lines in a figure, each once."""
    found = [str(line.get_gid()).removeprefix(LEVEL) for axes in figure.axes for line in levels(axes)]
    return list(dict.fromkeys(found))


def points_of(axes: Axes) -> NDArray[np.float64]:
    """Points along a panel's level lines, (N, 2) in data coordinates: for labels to keep off."""
    heights = [_height(line) for line in levels(axes)]
    if not heights:
        return np.empty((0, 2))
    across = axes.transData.inverted().transform(np.column_stack([np.linspace(*axes.bbox.intervalx, 100), [0] * 100]))
    return np.concatenate([np.column_stack([across[:, 0], np.full(100, y)]) for y in heights])


def settle(figure: Figure) -> None:
    """Move names at lines' ends off each other, and let no line run through what is written in a panel.

    The figure has to be laid out: its panels move no more.
    """
    point = figure.dpi / 72
    for axes in figure.axes:
        lines = levels(axes)
        if not lines:
            continue
        ends: list[Any] = [text for text in axes.texts if str(text.get_gid()).startswith(LEVEL)]
        at = [float(axes.transData.transform((0, text.xy[1]))[1]) for text in ends]
        heights = [1.15 * FONT_SIZE * point * (1 + text.get_text().count("\n")) for text in ends]
        for text, low, place in zip(ends, at, apart(at, heights), strict=True):
            text.set_position((AWAY, (place - low) / point))
        through = [float(axes.transData.transform((0, _height(line)))[1]) for line in lines]
        for text in axes.texts:
            extent = text.get_window_extent()
            if text not in ends and any(extent.y0 < height < extent.y1 for height in through):
                text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.9)
            legend.set_frame_on(True)


def apart(centres: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Where names of these `heights` are centred so that none is on another: as near to `centres` as can be, in order.

    Those that would touch stand together around the mean of where they would be.
    """
    order = np.argsort(centres, kind="stable").tolist()
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _top(groups[-2], centres, heights) > _bottom(groups[-1], centres, heights):
            last = groups.pop()
            groups[-1] += last
    found = [0.0] * len(order)
    for group in groups:
        place = _bottom(group, centres, heights)
        for index in group:
            found[index] = place + heights[index] / 2
            place += heights[index]
    return found


def _height(line: Line2D) -> float:
    return float(np.asarray(line.get_ydata(), dtype=float)[0])


def _bottom(group: list[int], centres: Sequence[float], heights: Sequence[float]) -> float:
    return sum(centres[index] for index in group) / len(group) - sum(heights[index] for index in group) / 2


def _top(group: list[int], centres: Sequence[float], heights: Sequence[float]) -> float:
    return _bottom(group, centres, heights) + sum(heights[index] for index in group)
