"""Names beside the points of a panel: off markers, lines and each other, in their markers' colours, with leader lines.

Every name has the same places around its marker; the names go where together they cost least, two at a time until no
two would rather be elsewhere. Not adjustText: its forces stop where they balance, which left names on lines, on markers
and nearest to another model's marker, in the paper's figures too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

# Where a name may go: the angle in degrees, the best first, and how far from its marker's edge, in points.
ANGLES = (0, 90, -90, 180, 45, -45, 135, -135, 22.5, -22.5, 67.5, -67.5, 112.5, -112.5, 157.5, -157.5)
DISTANCES = (2.5, 4.5, 7.0, 10.0, 14.0, 19.0, 26.0, 36.0, 50.0)
LEADER = 5.0  # points: a name further from its marker has a line to it
APART = 5.0  # points by which its own marker is nearer to a name than any other

NAME_COST = 100.0  # another name, or something else written in the panel
OUTSIDE_COST = 100.0
MARKER_COST = 40.0
DOUBT_COST = 15.0  # another marker is as near as its own, or nearer
LINE_COST = 8.0
DISTANCE_COST = 0.6  # a point
CHEAPEST = 40  # places of a name that are tried together with those of others
SWEEPS = 10
FONT_SIZE = 7
WIDEST = 0.5  # of the panel, before a name is broken into lines
MANY = 20  # names; fewer in one line each are all written, if need be over each other
READABLE = 4.5  # contrast of a name: WCAG 2.2, 1.4.3
BAND = "#e4e4e4"  # the darkest that a name stands on


def place_labels(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    texts: Sequence[str],
    avoid: Array,
    radii: Sequence[float],
    colours: Sequence[str],
) -> list[str]:
    """Write `texts` beside the points (x, y), whose markers have these radii, in points, and colours.

    Of many, or of long ones, those that would be on others are left out, and returned.
    avoid: (M, 2), further points in data coordinates that names keep off, such as those of lines.
    The figure has to be laid out already: moving the axes afterwards moves the points under the names.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    point = figure.dpi / 72  # in pixels, as all that follows
    written = [text.get_window_extent() for text in (*axes.texts, axes.get_legend()) if text is not None]
    names = [
        axes.annotate(
            text, at, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=FONT_SIZE,
            color=readable(colour),
        )
        for text, at, colour in zip(texts, zip(x, y, strict=True), colours, strict=True)
    ]  # fmt: skip
    markers, rims = axes.transData.transform(np.column_stack([x, y])), np.array(radii) * point
    room = axes.get_window_extent().width * WIDEST
    wide = [name for name in names if name.get_window_extent().width > room]
    for name in wide:
        lines, text = int(np.ceil(name.get_window_extent().width / room)), name.get_text()
        name.set_text(textwrap.fill(text, -(-len(text) // lines), break_on_hyphens=False))
    extents = [name.get_window_extent() for name in names]
    halves = np.array([(extent.width / 2 + point, extent.height / 2) for extent in extents])  # a space between two
    boxes, leaders = _places(markers, rims, halves, point)
    costs = _costs(boxes, leaders, markers, rims, axes.transData.transform(avoid), point)
    costs += NAME_COST * sum((_overlap(boxes, _corners(extent)) for extent in written), np.zeros(costs.shape))
    costs += OUTSIDE_COST * _outside(boxes, _corners(axes.get_window_extent())) / point
    cheapest = costs.argsort(axis=1, kind="stable")[:, :CHEAPEST]
    costs, boxes, leaders = (
        np.take_along_axis(of, cheapest.reshape(*cheapest.shape, *[1] * (of.ndim - 2)), axis=1)
        for of in (costs, boxes, leaders)
    )
    chosen = _chosen(costs, boxes, leaders)
    left_out: list[int] = []
    for index, place in enumerate(chosen):
        box, line = boxes[index, place], leaders[index, place]
        earlier = [boxes[other, chosen[other]] for other in range(index) if other not in left_out]
        if (len(texts) > MANY or wide) and any(_overlap(box, other) for other in earlier):
            names[index].remove()
            left_out.append(index)
            continue
        names[index].set_position(tuple(((box[:2] + box[2:]) / 2 - markers[index]) / point))
        if np.linalg.norm(line[-1] - line[0]) > LEADER * point:
            ends = axes.transData.inverted().transform(line[[0, -1]])
            axes.plot(*ends.T, color=readable(colours[index]), linewidth=0.5, zorder=2, scalex=False, scaley=False)
    return [texts[index] for index in left_out]


def readable(colour: str) -> str:
    """`colour`, darkened until text in it can be read on white and on a grey band."""
    from matplotlib.colors import to_hex, to_rgb

    channels = to_rgb(colour)
    while contrast(to_hex(channels), BAND) < READABLE:
        red, green, blue = channels
        channels = (0.97 * red, 0.97 * green, 0.97 * blue)
    return to_hex(channels)


def contrast(colour: str, other: str) -> float:
    """From 1 to 21, as WCAG 2.2 defines it."""
    from matplotlib.colors import to_rgb

    def luminance(of: str) -> float:
        channels = np.array(to_rgb(of))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(colour), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _places(markers: Array, rims: Array, halves: Array, point: float) -> tuple[Array, Array]:
    """Of each of N names at each of its C places: the box (N, C, 4) and points (N, C, 6, 2) from marker to name."""
    angles = np.radians(np.tile(ANGLES, len(DISTANCES)))
    ways = np.column_stack([np.cos(angles), np.sin(angles)])
    away = rims[:, None] + point * np.repeat(DISTANCES, len(ANGLES))
    # The name's corner or the middle of its side is what is so far from the rim: of whatever size the name is.
    centres = markers[:, None] + away[..., None] * ways + halves[:, None] * np.clip(1.6 * ways, -1, 1)
    boxes = np.concatenate([centres - halves[:, None], centres + halves[:, None]], axis=-1)
    ends = np.clip(markers[:, None], boxes[..., :2], boxes[..., 2:])
    towards = ends - markers[:, None]
    starts = markers[:, None] + towards * (rims[:, None] / np.linalg.norm(towards, axis=-1))[..., None]
    along = np.linspace(0, 1, 6)[:, None]
    return boxes, starts[..., None, :] + along * (ends - starts)[..., None, :]


def _costs(boxes: Array, leaders: Array, markers: Array, rims: Array, lines: Array, point: float) -> Array:
    """What each place costs whatever the other names do, (N, C)."""
    gaps = _distance(boxes[:, :, None], markers) - rims  # (N, C, N)
    own = np.diagonal(gaps, axis1=0, axis2=2).T
    others = np.where(np.eye(len(markers), dtype=bool)[:, None], np.inf, gaps)
    nearest = others.min(axis=-1) if len(markers) > 1 else np.full(own.shape, np.inf)
    led = own > LEADER * point
    crossed = np.linalg.norm(leaders[:, :, :, None] - markers, axis=-1) < rims + point  # (N, C, 6, N)
    crossed &= ~np.eye(len(markers), dtype=bool)[:, None, None]
    doubt = np.clip((own + APART * point - nearest) / (APART * point), 0, 2)
    from_centre = np.linalg.norm((boxes[..., None, :2] + boxes[..., None, 2:]) / 2 - markers, axis=-1) - rims
    further = np.diagonal(from_centre, axis1=0, axis2=2).T[..., None] - from_centre  # than from another marker
    doubt += np.clip(further.max(axis=-1) / (2 * APART * point), 0, 1)
    doubt *= np.where(led, 0.25, 1)
    on_line = np.zeros(own.shape) if not len(lines) else _distance(boxes[:, :, None], lines).min(axis=-1) < 1.5 * point
    return (
        MARKER_COST * ((others < point).sum(axis=-1) + led * crossed.any(axis=(2, 3)))
        + DOUBT_COST * doubt
        + LINE_COST * on_line
        + DISTANCE_COST * np.repeat(DISTANCES, len(ANGLES))
    )


def _chosen(costs: Array, boxes: Array, leaders: Array) -> list[int]:
    """A place for each name."""
    chosen = costs.argmin(axis=1)
    clashes: dict[tuple[int, int], Array] = {}
    for pair in combinations(range(len(costs)), 2):
        clash = _clashes(*pair, boxes, leaders)
        if clash.any():
            clashes[pair] = np.where(clash, NAME_COST, 0.0)
    for _ in range(SWEEPS):
        before = chosen.copy()
        for (one, other), clash in clashes.items():
            first = costs[one] + _against(one, {other}, chosen, clashes)
            second = costs[other] + _against(other, {one}, chosen, clashes)
            together = first[:, None] + second + clash
            chosen[[one, other]] = np.unravel_index(together.argmin(), together.shape)
        if np.array_equal(before, chosen):
            break
    return chosen.tolist()


def _against(name: int, but: set[int], chosen: NDArray, clashes: dict[tuple[int, int], Array]) -> Array:
    """What each place of a name costs for the places that the others have, (C,)."""
    cost = np.zeros(next(iter(clashes.values())).shape[0])
    for (one, other), clash in clashes.items():
        if one == name and other not in but:
            cost += clash[:, chosen[other]]
        elif other == name and one not in but:
            cost += clash[chosen[one]]
    return cost


def _clashes(one: int, other: int, boxes: Array, leaders: Array) -> NDArray[np.bool_]:
    """Whether a name or its leader line is on the other's, for each place of the two, (C, C)."""
    first, second = boxes[one][:, None], boxes[other][None]
    over = _within(leaders[one][:, None], second[:, :, None]).any(axis=-1)
    under = _within(leaders[other][None], first[:, :, None]).any(axis=-1)
    return _overlap(first, second) | over | under


def _corners(extent) -> Array:
    return np.array([extent.x0, extent.y0, extent.x1, extent.y1])


def _overlap(one: Array, other: Array) -> NDArray[np.bool_]:
    return np.all((one[..., :2] < other[..., 2:]) & (other[..., :2] < one[..., 2:]), axis=-1)


def _within(points: Array, box: Array) -> NDArray[np.bool_]:
    return np.all((box[..., :2] < points) & (points < box[..., 2:]), axis=-1)


def _outside(boxes: Array, frame: Array) -> Array:
    """How far boxes reach out of the frame, in all directions together."""
    return np.maximum(0, np.concatenate([frame[:2] - boxes[..., :2], boxes[..., 2:] - frame[2:]], axis=-1)).sum(axis=-1)


def _distance(box: Array, points: Array) -> Array:
    """From the box's edge to the points, zero inside."""
    outside = np.maximum(0, np.maximum(box[..., :2] - points, points - box[..., 2:]))
    return np.linalg.norm(outside, axis=-1)
