"""A chart as plain data, and where everything in it goes: the template writes it as SVG, in which points have names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 12.0, 46.0  # room around the panel for ticks and titles
MARGIN = 0.06  # share of an axis that stays free at either end
CHARACTER, LINE = 6.4, 13.0  # of a label, its size is 11
# Where a label may go: from its point, and which of its ends is there; the first free place is taken.
PLACES = (
    (9, 4, "start"),
    (-9, 4, "end"),
    (0, -10, "middle"),
    (0, 19, "middle"),
    (8, -7, "start"),
    (8, 15, "start"),
    (-8, -7, "end"),
    (-8, 15, "end"),
)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Point:
    """`title`: what is said of it, its name, then each number in a line; `low` to `high`: its range, drawn as a bar."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """The points of a model; `groups`: by what they are switched on and off, such as {"size": "XL", "patch": "2"}.

    line: whether they are joined; label: what is written beside the last; the page says of `colour`, `shape` and `fill`
    what they look like.
    """

    points: Sequence[Point]
    groups: Mapping[str, str] = field(default_factory=dict)
    colour: int = 0
    shape: int = 0
    fill: int = 0
    line: bool = False
    label: str = ""


@dataclass(frozen=True)
class Curve:
    """A line that is no model's, such as a law; `low` and `high`: its band. `kind` is the page's name for its look."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    kind: str = "law"


@dataclass(frozen=True)
class Axis:
    """`is_log` only where all values are positive."""

    title: str
    is_log: bool = False


@dataclass(frozen=True)
class Chart:
    """`title` and `description` are read aloud, `caption` stands below. `legend`: group -> value -> a sample series."""

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    legend: Mapping[str, Mapping[str, Series]]
    curves: Sequence[Curve] = ()
    caption: str = ""
    width: int = 460
    height: int = 340

    def drawn(self) -> Drawing:
        """With everything in its place."""
        return Drawing(self)


class Scale:
    """From values to pixels."""

    def __init__(self, axis: Axis, values: Iterable[float], start: float, end: float) -> None:
        self.is_log = axis.is_log
        inner = [self._at(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(inner), max(inner)
        span = high - low or (0.5 if self.is_log else abs(high) or 1.0)
        self.low, self.high = low - MARGIN * span, high + MARGIN * span
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (self._at(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Pixel and text, at round numbers."""
        values = (_round_logs if self.is_log else _round_numbers)(self.low, self.high)
        return [(self(value), tick_text(value)) for value in values]

    def _at(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


class Drawing:
    """Of a chart, all that the template writes: pixels, paths and places of labels."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.right, self.bottom = chart.width - RIGHT, chart.height - BOTTOM
        self.left, self.top = LEFT, TOP
        points = [point for series in chart.series for point in series.points]
        across = [point.x for point in points] + [x for curve in chart.curves for x in curve.x]
        up = [y for point in points for y in (point.y, point.low, point.high) if y is not None]
        up += [y for curve in chart.curves for y in (*curve.y, *curve.low, *curve.high)]
        self.x = Scale(chart.x, across, self.left, self.right)
        self.y = Scale(chart.y, up, self.bottom, self.top)
        self.labels = self._labels()

    def path(self, x: Sequence[float], y: Sequence[float]) -> str:
        """A line through the points."""
        places = (f"{self.x(across):g} {self.y(up):g}" for across, up in zip(x, y, strict=True))
        return "M" + "L".join(places)

    def band(self, curve: Curve) -> str:
        """The outline of the curve's band."""
        there, back = self.path(curve.x, curve.high), self.path(curve.x[::-1], curve.low[::-1])
        return f"{there}L{back[1:]}Z"

    def _labels(self) -> list[tuple[Series, float, float, str]]:
        """Series, place and text anchor of each label that has room; the others' points say their names when asked."""
        markers = [(self.x(p.x), self.y(p.y)) for series in self.chart.series for p in series.points]
        taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in markers]
        found = []
        for series in self.chart.series:
            if not series.label:
                continue
            x, y = self.x(series.points[-1].x), self.y(series.points[-1].y)
            width = CHARACTER * len(series.label)
            for across, down, anchor in PLACES:
                left = x + across - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
                box = (left, y + down - LINE + 3, left + width, y + down + 3)
                inside = box[0] >= self.left and box[2] <= self.chart.width and box[1] >= 0 and box[3] <= self.bottom
                if inside and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    found.append((series, round(x + across, 1), round(y + down, 1), anchor))
                    break
        return found


def tick_text(value: float) -> str:
    """Plain from a thousandth to 99,999; others as powers of ten: 2·10⁶."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.6g}".replace("-", "−")
    factor, _, exponent = f"{value:e}".partition("e")
    power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
    return power if float(factor) == 1 else f"{float(factor):g}·{power}"


def _round_logs(low: float, high: float) -> list[float]:
    """Of the logarithms' range: decades, or enough of what is round between them."""
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        powers = range(math.floor(low) - 1, math.ceil(high) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors]
        found = [value for value in found if low <= math.log10(value) <= high]
        if len(found) >= 3:
            return found[:: -(-len(found) // 7)]
    return _round_numbers(10**low, 10**high)


def _round_numbers(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
