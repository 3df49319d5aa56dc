"""Point labels that do not cover each other, the markers or the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

# Where a label may go, as (angle in degrees, distance in points): near ones first.
ANGLES = (0, 45, -90, 90, 180, -135, -45, 135)
PLACES = [(angle, distance) for distance in (7, 11, 16, 22) for angle in ANGLES]
TEXT_COST = OUTSIDE_COST = 100.0
MARKER_COST = 30.0
DOUBT_COST = 20.0  # another marker is nearer than the label's own
LINE_COST = 8.0
DISTANCE_COST = 0.4  # a point
USUAL_RADIUS = 4.0  # points: what the nearest places already keep off


def place_labels(
    axes: Axes, x: list[float], y: list[float], texts: list[str], avoid: NDArray, radii: Sequence[float] | None = None
) -> None:
    """Write `texts` next to the points (x, y), each at the cheapest free place, in the order given.

    avoid: (N, 2) further points in data coordinates that the labels should keep off, such as those of lines.
    radii: of markers larger than usual, in points: their labels begin outside.
    The figure has to be laid out already: moving the axes afterwards moves the points under the labels.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    pixels_a_point = figure.dpi / 72
    markers = axes.transData.transform(np.column_stack([x, y]))
    lines = axes.transData.transform(avoid)
    frame = _corners(axes.get_window_extent())
    taken: list[NDArray] = []
    starts = np.maximum(0, np.array(radii or [0.0] * len(texts)) - USUAL_RADIUS)
    for point, here, text, start in zip(zip(x, y, strict=True), markers, texts, starts, strict=True):
        label = axes.annotate(text, point, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=7)
        half = _half_size(label)
        offsets = [_offset(angle, start + distance, half / pixels_a_point) for angle, distance in PLACES]
        boxes = [_box(here + offset * pixels_a_point, half) for offset in offsets]
        costs = [
            _cost(box, here, taken, markers, starts * pixels_a_point, lines, frame) + DISTANCE_COST * distance
            for box, (_, distance) in zip(boxes, PLACES, strict=True)
        ]
        best = int(np.argmin(costs))
        label.set_position(tuple(offsets[best]))
        taken.append(boxes[best])


def _offset(angle: float, distance: float, half: NDArray) -> NDArray:
    """From the marker to the label's centre, so that the label's edge is `distance` away; points."""
    direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    return direction * (distance + half)


def _half_size(label: Annotation) -> NDArray:
    extent = label.get_window_extent()
    return np.array([extent.width, extent.height]) / 2


def _corners(extent) -> NDArray:
    return np.array([extent.x0, extent.y0, extent.x1, extent.y1])


def _box(centre: NDArray, half: NDArray) -> NDArray:
    return np.concatenate([centre - half, centre + half])


def _cost(
    box: NDArray,
    here: NDArray,
    taken: list[NDArray],
    markers: NDArray,
    radii: NDArray,
    lines: NDArray,
    frame: NDArray,
) -> float:
    overlaps = sum(bool(np.all(box[:2] < other[2:]) and np.all(other[:2] < box[2:])) for other in taken)
    outside = bool(np.any(box[:2] < frame[:2]) or np.any(box[2:] > frame[2:]))
    to_markers, to_own = _distances(box, markers), _distances(box, here[None])
    return (
        TEXT_COST * overlaps
        + OUTSIDE_COST * outside
        + MARKER_COST * int(np.sum(to_markers - radii < 5))
        + DOUBT_COST * bool(np.any(to_markers - radii < to_own - max(radii[to_markers == to_own])))
        + LINE_COST * bool(np.any(_distances(box, lines) < 2))
    )


def _distances(box: NDArray, points: NDArray) -> NDArray:
    """From the box's edge to each of the points, zero inside; pixels."""
    outside = np.maximum(0, np.maximum(box[:2] - points, points - box[2:]))
    return np.linalg.norm(outside, axis=1)
