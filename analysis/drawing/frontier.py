"""The frontier of compute against score: the best that so much compute has bought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAID = "Grey: the frontier, the lowest mean score for that much compute or less."
MARKER, SMALLEST = 0.6, 2.8  # of the usual size, and points: of many markers none may hide another


def frontier(compute: Sequence[float], score: Sequence[float]) -> list[bool]:
    """Whether each point has a lower score than every point of less or equal compute; of equal points, the first."""
    x, y, order = np.asarray(compute, dtype=float), np.asarray(score, dtype=float), np.arange(len(compute))
    better = ((x[i] > x) | (y[i] > y) | (order[i] > order) for i in order)
    return [not np.any((x <= x[i]) & (y <= y[i]) & each) for i, each in zip(order, better, strict=True)]


def models_and_frontier(axes: Axes, points: pd.DataFrame, x: str, source: int) -> None:
    """Each model's line of its column fid over `x`, and the frontier through those `on_frontier`; both logarithmic."""
    best = points.loc[points["on_frontier"]].sort_values(x)
    end = pd.concat([best, best.tail(1).assign(**{x: max(points[x])})])
    axes.step(end[x], end["fid"], where="post", color="#777777", linewidth=0.7, zorder=1)
    ranks, looks = style.patch_ranks(points["patch"].tolist()), style.looks(points["size"])
    lines: list[Any] = list(points.groupby(["size", "patch", "label"]))
    for (size, patch, _), line in lines:
        mark = marks.model_mark(looks[size], ranks[patch], source, MARKER)
        mark["markersize"] = max(SMALLEST, mark["markersize"])
        dashes = {"linestyle": style.PATCH_LINES[ranks[patch]], "linewidth": 1.0}
        marks.curve(axes, line, x, "fid", mark | dashes | {"zorder": 3 - list(looks).index(size) / 10})
    axes.set_xscale("log")
    if min(points["fid"]) > 0:
        axes.set_yscale("log")
