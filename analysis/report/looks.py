"""How a study's models look in charts, and what is said of their points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.report.chart import Point, Series
from analysis.report.tables import minus, number
from analysis.results.run_folders import SIZES
from analysis.results.tables import coarsest_first

MOST_POINTS = 25  # of a line that can be pointed at: losses are logged often
LOG_RATIO = 8.0  # scores that differ by less need no logarithms
LOGARITHMIC = ("fid", "sfid", "kid", "loss")  # but those of which there are laws

Row = Mapping[Any, Any]


class Looks:
    """How the models of a table look: colour says the size, shape the patch size, fill the block design.

    Of models of one size, colour says the design too.
    """

    def __init__(self, models: pd.DataFrame) -> None:
        sizes = set(models["size"])
        self.sizes = [size for size in SIZES if size in sizes]
        self.sizes += [size for size in dict.fromkeys(models.sort_values("gmacs")["size"]) if size not in SIZES]
        self.patches = coarsest_first(models["patch"])
        self.blocks = list(dict.fromkeys(models["block"]))

    def points(self, models: pd.DataFrame, point: Callable[[Row], Point], named: bool = False) -> list[Series]:
        """A point for each row; `named`: with its label beside it."""
        return [self._series(row, [point(row)], label=row["label"] if named else "") for row in _rows(models)]

    def groups(self, table: pd.DataFrame, point: Callable[[Row], Point], line: bool) -> list[Series]:
        """A series for each label, of its rows in their order; as a line, with at most `MOST_POINTS` of them."""
        found = []
        for _, rows in by(table, "label"):
            step = -(-len(rows) // MOST_POINTS) if line else 1
            chosen = rows.iloc[::-step].iloc[::-1]  # the last is among them
            found.append(self._series(rows.iloc[0].to_dict(), [point(row) for row in _rows(chosen)], line))
        return found

    def legend(self) -> dict[str, dict[str, Series]]:
        """Group -> value -> what it looks like, of the groups that have several values."""
        found = {
            "size": {size: Series([], colour=self._colour(size)) for size in self.sizes},
            "patch": {str(patch): Series([], colour=-1, shape=rank) for rank, patch in enumerate(self.patches)},
            "design": {
                block: Series([], colour=rank if len(self.sizes) == 1 else -1, fill=rank)
                for rank, block in enumerate(self.blocks)
            },
        }
        return {group: values for group, values in found.items() if len(values) > 1}

    def _series(self, model: Row, points: Sequence[Point], line: bool = False, label: str = "") -> Series:
        size, patch, block = model["size"], model["patch"], model["block"]
        groups = {"size": size, "patch": str(patch), "design": block}
        shape, fill = self.patches.index(patch), self.blocks.index(block)
        colour = fill if len(self.sizes) == 1 and len(self.blocks) > 1 else self._colour(size)
        return Series(points, groups, colour, shape, fill, line, label)

    def _colour(self, size: str) -> int:
        others = [other for other in self.sizes if other not in SIZES]
        return SIZES.index(size) if size in SIZES else len(SIZES) + others.index(size)


def against_compute(models: pd.DataFrame, metric: str, called: str) -> tuple[str, Callable[[Row], Point]]:
    """The unit of compute that keeps the numbers readable, and a model's point there, with its range over seeds."""
    unit, size = unit_of(models["gmacs"])

    def point(row: Row) -> Point:
        low, high = (row[f"{metric}_min"], row[f"{metric}_max"]) if row["num_seeds"] > 1 else (None, None)
        title = f"{row['label']}\n{number(row['gmacs'] / size)} {unit}\n{called} {with_range(row, metric)}"
        return Point(row["gmacs"] / size, row[metric], title, low, high)

    return unit, point


def with_range(row: Row, metric: str) -> str:
    """A model's score, with its range where it is a mean over seeds."""
    text = number(row[metric])
    if row["num_seeds"] > 1:
        text += f" ({number(row[f'{metric}_min'])} to {number(row[f'{metric}_max'])}, {row['num_seeds']} seeds)"
    return minus(text)


def unit_of(gmacs: Iterable[float]) -> tuple[str, float]:
    """GMACs, or MMACs for small models; and its size in GMACs."""
    return ("GMACs", 1.0) if max(gmacs) >= 1 else ("MMACs", 1e-3)


def is_log(points: pd.DataFrame, metric: str) -> bool:
    """Whether the metric's axis is logarithmic."""
    low, high = min(points[metric]), max(points[metric])
    return bool(low > 0 and (metric in LOGARITHMIC or high / low > LOG_RATIO))


def by(points: pd.DataFrame, column: str) -> list[tuple[Any, pd.DataFrame]]:
    """The rows of each value, in the order in which the values come."""
    return [(value, rows) for value, rows in points.groupby(column, sort=False)]


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")
