"""Models in a panel: a marker's area and colour say the size, its shape the patch size, its fill the source.

The same is said twice wherever colour says it, so that the figures are right in black and white.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.drawing import style
from analysis.drawing.labels import place_labels
from analysis.drawing.levels import points_of
from analysis.drawing.picture import NothingToDraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

MOST_IN_A_CELL = 7  # entries of a legend in place of a panel
LEGEND_FONT = 7  # points
CORNER_FONT = 7


def model_mark(look: style.Look, patch_rank: int, source: int, scale: float = 1.0) -> dict[str, Any]:
    """The marker of a model as arguments of `Axes.plot`; `scale` makes it smaller on a line of many."""
    return {
        "color": look.colour,
        "marker": style.PATCH_MARKERS[patch_rank],
        "markersize": scale * look.area**0.5,
        "fillstyle": style.SOURCE_FILLS[source],
        "markerfacecoloralt": "white",
        # A hollow marker's edge is all there is of it.
        "markeredgecolor": look.colour if style.SOURCE_FILLS[source] == "none" else "black",
        "markeredgewidth": 1.2 if style.SOURCE_FILLS[source] == "none" else 0.6,
    }


def series_mark(index: int) -> dict[str, Any]:
    """Colour, marker and line of the n-th of a few things told apart in one panel, as arguments of `Axes.plot`.

    Raises:
        NothingToDraw: there are more of them than can be told apart.
    """
    if index >= len(style.SERIES):
        raise NothingToDraw(f"more than {len(style.SERIES)} in one panel cannot be told apart; needed: fewer of them")
    colour, marker, line = style.SERIES[index]
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.5}
    return {"color": colour, "marker": marker, "linestyle": line, "markersize": 4.5} | edge


def compute_unit(gmacs: Sequence[float]) -> tuple[str, float]:
    """The unit that keeps the numbers readable, and its size in GMACs."""
    return ("GMACs", 1.0) if max(gmacs) >= 1 else ("MMACs", 1e-3)


def scatter(axes: Axes, points: pd.DataFrame, x: str, y: str, source: int = 0, unit: float = 1.0) -> None:
    """Each model's marker at its column `x` / `unit` and its column `y`, with the range over seeds as a bar."""
    ranks, looks = style.patch_ranks(points["patch"].tolist()), style.looks(points["size"])
    if f"{y}_min" in points.columns and max(points["num_seeds"]) > 1:
        # The mean of equal numbers may be a rounding error outside of their range.
        bars = np.maximum(0, [points[y] - points[f"{y}_min"], points[f"{y}_max"] - points[y]])
        axes.errorbar(points[x] / unit, points[y], bars, fmt="none", ecolor="#555555", elinewidth=0.8, capsize=1.5)
    for model in points.to_dict("records"):
        axes.plot(
            model[x] / unit,
            model[y],
            linestyle="none",
            zorder=3 - list(looks).index(model["size"]) / 10,  # small markers above large ones
            **model_mark(looks[model["size"]], ranks[model["patch"]], source),
        )


def gmacs_axis(axes: Axes, unit: str) -> None:
    """A logarithmic axis of one forward pass's compute."""
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.set_xlabel(f"{unit} (one forward pass of one image)")
    style.log_ticks(axes.xaxis)


def name_points(
    axes: Axes,
    x: Sequence[float],
    points: pd.DataFrame,
    y: str,
    texts: Sequence[str],
    line: NDArray | None = None,
    radii: Sequence[float] | None = None,
    colours: Sequence[str] | None = None,
) -> list[str]:
    """Write each model's name, of `texts`, beside its marker, clear of the bars and of `line`, (N, 2) in the panel.

    Returns the names for which there is no room.
    radii, colours: of the markers, in points; those of `scatter` if not given.
    """
    avoid = [points_of(axes), *([] if line is None else [line])]
    if f"{y}_min" in points.columns:
        avoid += [
            np.column_stack([np.full(20, at), np.linspace(low, high, 20)])
            for at, low, high in zip(x, points[f"{y}_min"], points[f"{y}_max"], strict=True)
        ]
    if radii is None or colours is None:
        looks = style.looks(points["size"])
        radii = [looks[size].area ** 0.5 / 2 for size in points["size"]]
        colours = [looks[size].colour for size in points["size"]]
    return place_labels(axes, x, points[y].tolist(), texts, np.concatenate(avoid), radii, colours)


def fits_in_corner(axes: Axes, lines: Sequence[str]) -> bool:
    """Whether a corner of the panel has room for `corner_text`: its width, and less than half of its height."""
    extent, point = axes.get_window_extent(), axes.get_figure(root=True).dpi / 72  # pyright: ignore[reportOptionalMemberAccess]
    widest = max(map(_text_width, lines), default=0)
    return CORNER_FONT * widest * point < extent.width and 1.2 * CORNER_FONT * len(lines) * point < extent.height / 2


def corner_text(axes: Axes, lines: Sequence[str], at_bottom: bool = False) -> None:
    """Lines of text in the right corner that a falling (or, `at_bottom`, rising) trend leaves free."""
    y, side = (0.02, "bottom") if at_bottom else (0.98, "top")
    axes.text(0.98, y, "\n".join(lines), transform=axes.transAxes, ha="right", va=side, fontsize=CORNER_FONT)


def curve(axes: Axes, points: pd.DataFrame, x: str, y: str, mark: Mapping[str, Any]) -> Line2D:
    """One model's line over `x`, drawn as `mark` says, with a band over the seeds' range; returns the line."""
    (line,) = axes.plot(points[x].astype(float), points[y].astype(float), **mark)
    if max(points["num_seeds"]) > 1:
        low, high = points[f"{y}_min"].astype(float), points[f"{y}_max"].astype(float)
        axes.fill_between(points[x].astype(float), low, high, color=mark["color"], alpha=0.2, linewidth=0)
    return line


def size_legend(
    part: Any, looks: Mapping[str, style.Look], sources: Sequence[str] = (), cell: Axes | None = None
) -> None:
    """Which line is which size, and which fill which source if there are several: see `line_legend`."""
    handles = [_handle(look.colour, "o", look.line, look.area**0.5) for look in looks.values()]
    line_legend(part, handles, [style.size_text(size) for size in looks], sources, cell)


def patch_legend(part: Any, ranks: Mapping[int, int], sources: Sequence[str] = (), cell: Axes | None = None) -> None:
    """Which line is which patch size, and which fill which source: see `line_legend`."""
    handles = [_handle("#777777", style.PATCH_MARKERS[rank], style.PATCH_LINES[rank], 5) for rank in ranks.values()]
    line_legend(part, handles, [style.patch_text(patch) for patch in ranks], sources, cell)


def source_legend(axes: Axes, sources: Sequence[str]) -> None:
    """Which marker fill and trend line is which source, if there are several."""
    if len(sources) > 1:
        handles = _fills(len(sources), style.SOURCE_LINES)
        axes.legend(handles, list(sources), loc="lower left", handlelength=2.5)


def line_legend(
    part: Any, handles: list[Any], texts: list[str], sources: Sequence[str] = (), cell: Axes | None = None
) -> None:
    """A legend under the panels of a figure or a part of it, or in a `cell` that no panel needs, if it has room."""
    if len(sources) > 1:
        handles, texts = [*handles, *_fills(len(sources), ["none"] * len(sources))], [*texts, *sources]
    _place_legend(part, handles, texts, 3.2, cell)


def _place_legend(part: Any, handles: list[Any], texts: list[str], handlelength: float, cell: Axes | None) -> None:
    if cell is not None:
        cell.axis("off")
    if cell is not None and len(texts) <= MOST_IN_A_CELL:
        cell.legend(handles, texts, loc="center", handlelength=handlelength)
    else:
        below_legend(part, handles, texts, handlelength)


def below_legend(part: Any, handles: list[Any], texts: list[str], handlelength: float = 2.0) -> Legend:
    """A legend under the panels of a figure or a part of it, in as many columns as there is room for.

    handlelength: of the lines or markers in front of the texts, in their font's size.
    """
    look: dict[str, Any] = {"handlelength": handlelength, "columnspacing": 1}
    width = part.bbox.width / part.dpi
    columns = _columns(texts, handlelength, width)
    lines = ["\n".join(_lines(text, handlelength, width)) for text in texts]
    return part.legend(handles, lines, loc="outside lower center", ncols=columns, **look)


def legend_height(texts: Sequence[str], handlelength: float, width: float) -> float:
    """How high a `below_legend` is under panels `width` inches wide; inches."""
    rows = -(-len(texts) // _columns(texts, handlelength, width))
    lines = max(len(_lines(text, handlelength, width)) for text in texts)
    return 1.6 * LEGEND_FONT / 72 * rows * lines + 0.1


def _columns(texts: Sequence[str], handlelength: float, width: float) -> int:
    """As many columns as fit in `width`, fewer if the rows stay as many; a legend is filled column by column."""
    lengths = np.array([_text_width(text) for text in texts])
    for columns in range(len(texts), 1, -1):
        longest = [max(column) for column in np.array_split(lengths, columns)]
        # Beside each handle and text: the space between the two, and that to the next column.
        if sum(length + handlelength + 1.8 for length in longest) - 0.9 < 72 * width / LEGEND_FONT:
            return -(-len(texts) // -(-len(texts) // columns))
    return 1


def _lines(text: str, handlelength: float, width: float) -> list[str]:
    """A text, in as many lines as it needs to fit beside its handle."""
    room = 72 * width / LEGEND_FONT - handlelength - 1.5
    characters = max(1, int(len(text) * min(1, room / _text_width(text))))
    return textwrap.wrap(text, characters, break_on_hyphens=False)


def _text_width(text: str) -> float:
    """In the size of its font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=style.SETTINGS["font.sans-serif"], size=10)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 10


def _fills(count: int, lines: Sequence[Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    fills: Any = style.SOURCE_FILLS
    return [
        Line2D([], [], linestyle=line, color="#666666", marker="o", markersize=5, fillstyle=fill)
        for line, fill, _ in zip(lines, fills, range(count), strict=False)
    ]


def line_handle(colour: str, line: Any) -> Any:
    """A line without markers, for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=line)


def model_handle(points: pd.DataFrame, model: Any) -> Any:
    """The marker of one of the models `points`, for a legend."""
    from matplotlib.lines import Line2D

    rank = style.patch_ranks(points["patch"].tolist())[model["patch"]]
    return Line2D([], [], linestyle="none", **model_mark(style.looks(points["size"])[model["size"]], rank, 0))


def _handle(colour: str, marker: str, line: Any, size: float) -> Any:
    from matplotlib.lines import Line2D

    look: Any = {"color": colour, "marker": marker, "linestyle": line, "markersize": size}
    return Line2D([], [], markeredgecolor="black", markeredgewidth=0.6, **look)


def shape_legend(part: Any, points: pd.DataFrame, sources: Sequence[str] = (), cell: Axes | None = None) -> None:
    """What area, colour and shape of the markers say, under the panels of `part`, which show the models `points`.

    sources: what the fills say, if they say anything; cell: as of `line_legend`.
    """
    looks, ranks = style.looks(points["size"]), style.patch_ranks(points["patch"].tolist())
    handles = [_handle(look.colour, "o", "none", look.area**0.5) for look in looks.values()]
    handles += [_handle("#777777", style.PATCH_MARKERS[rank], "none", 5) for rank in ranks.values()]
    if len(sources) > 1:
        handles += _fills(len(sources), ["none"] * len(sources))
    _place_legend(part, handles, shape_texts(points, sources), 1, cell)


def shape_texts(points: pd.DataFrame, sources: Sequence[str] = ()) -> list[str]:
    """The texts of the `shape_legend`."""
    patches = [style.patch_text(patch) for patch in style.patch_ranks(points["patch"].tolist())]
    return [*style.looks(points["size"]), *patches, *(sources if len(sources) > 1 else ())]
