"""How a model looks in every figure, and how figures are laid out."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.results.run_folders import SIZES
from analysis.results.tables import coarsest_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Width = Literal["one", "two"]
WIDTHS: dict[Width, float] = {"one": 3.25, "two": 6.75}  # inches: one and two columns of a paper

# Okabe and Ito's palette, which colour-blind readers can tell apart; area and line style say the same.
SIZE_COLOURS = {"S": "#56B4E9", "B": "#E69F00", "L": "#009E73", "XL": "#D55E00"}
SIZE_AREAS = {"S": 14.0, "B": 27.0, "L": 44.0, "XL": 66.0}  # square points
SIZE_LINES = {"S": ":", "B": "-.", "L": "--", "XL": "-"}
# Models of no known size: their names tell them apart, and beyond so many colours nothing else does.
OTHERS = (
    ("#0072B2", (0, (5, 1, 1, 1, 1, 1))),
    ("#CC79A7", (0, (8, 2))),
    ("#555555", (0, (1, 3))),
    ("#000000", (0, (3, 1))),
)
OTHER_AREA = 27.0
# By rank, coarsest first, so that the patch sizes 4, 2, 1 of small images look like the paper's 8, 4, 2.
PATCH_MARKERS = ("s", "^", "o", "D", "v")
PATCH_LINES = (":", "--", "-", "-.", "-")
# Anything else that is told apart in one panel: colour, marker and line style of the first, second, ...
SERIES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#56B4E9", "P", (0, (1, 3))),
    ("#000000", "X", (0, (8, 2))),
)
# Which source a marker comes from, and a line through its points.
SOURCE_FILLS = ("full", "none", "left", "bottom")
SOURCE_LINES = ("-", "--", "-.", ":")

MOST_TICKS = 100
SAME_PLACE = 1e-3  # pixels
MOST_NARROW = 16  # characters of a line that no panel is too narrow for
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "pdf.fonttype": 42,  # fonts embedded, text stays text
    "ps.fonttype": 42,  # which matplotlib reads for PDF too: at 3, it embeds the font twice
    "text.parse_math": False,  # a name with dollar signs in it is no formula; `parse_math=True` where one is meant
}


@dataclass(frozen=True)
class Look:
    """Of a size: colour, marker area in square points, and line style."""

    colour: str
    area: float
    line: Any


def looks(sizes: Iterable[str]) -> dict[str, Look]:
    """How each of `sizes` looks: the known ones first, smallest first, then the models of no known size."""
    present = list(dict.fromkeys(sizes))
    others = [size for size in present if size not in SIZES]
    known = {size: Look(SIZE_COLOURS[size], SIZE_AREAS[size], SIZE_LINES[size]) for size in SIZES if size in present}
    for index, size in enumerate(others):
        colour, line = OTHERS[index % len(OTHERS)]
        known[size] = Look(colour, OTHER_AREA, line)
    return known


def size_text(size: str) -> str:
    return f"size {size}" if size in SIZES else size


def patch_text(patch: int | str) -> str:
    return f"patch {patch}" if patch else "no patches"


@contextmanager
def look() -> Iterator[None]:
    """The suite's matplotlib settings, and nothing of this machine's, for the time of a `with` block."""
    with as_delivered() as matplotlib, matplotlib.rc_context(SETTINGS):
        yield


@contextmanager
def as_delivered() -> Iterator[Any]:
    """Matplotlib without this machine's settings, for the time of a `with` block: pictures are of the tables alone.

    Neither a matplotlibrc nor variables such as MPLBACKEND count, be they sound or broken.
    """
    with _environment(MPLBACKEND="agg", SOURCE_DATE_EPOCH=None), _silent("matplotlib"), warnings.catch_warnings():
        matplotlib = _imported()
        warnings.filterwarnings("ignore", category=matplotlib.MatplotlibDeprecationWarning)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # a name longer than the picture
        # Not `rcdefaults`: that reads the user's styles first.
        defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
        with matplotlib.rc_context(defaults):
            yield matplotlib


def _imported() -> Any:
    """Matplotlib. Its import reads the user's settings, and may end in what is wrong with them, so not here.

    It takes the first file called matplotlibrc, and looks for one in the working folder first.
    """
    if "matplotlib" not in sys.modules:
        with TemporaryDirectory() as folder:
            (Path(folder) / "matplotlibrc").touch()
            with chdir(folder):
                importlib.import_module("matplotlib")
    import matplotlib
    import matplotlib.font_manager

    return matplotlib


@contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    """These variables, None for none, for the time of a `with` block."""
    before = {name: os.environ.pop(name, None) for name in variables}
    os.environ.update({name: value for name, value in variables.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what that logger warns of: fonts of this machine that are not used, folders that cannot be written."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def patch_ranks(patches: list[Any]) -> dict[Any, int]:
    """Patch, such as 2 or "1x2x2" -> its rank, 0 for the coarsest."""
    return {patch: rank for rank, patch in enumerate(coarsest_first(patches))}


def new_figure(width: Width, height: float) -> Figure:
    """An empty figure, `height` inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTHS[width], height), layout="constrained")
    FigureCanvasAgg(figure)  # it keeps its renderer; the base class makes one for every text that is measured
    return figure


def panels(figure: Any, count: int, columns: int, share: bool = False) -> list[Axes]:
    """`count` axes, row by row in so many columns; `share`: all with the same scales."""
    rows = -(-count // columns)
    grid = figure.subplots(rows, min(columns, count), sharex=share, sharey=share, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return axes[:count]


def parts(figure: Any, count: int, columns: int) -> list[Any]:
    """`count` subfigures, row by row in so many columns, for panels with legends of their own."""
    grid = figure.subfigures(-(-count // columns), min(columns, count), squeeze=False)
    return list(grid.flat)[:count]


def log_ticks(axis: Any, in_decade: tuple[float, ...] = (1, 2, 5)) -> None:
    """Plain numbers at `in_decade` of each decade of a logarithmic axis: at more if these are under three, or fewer."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    if high / low >= 2e4:
        return
    for places in (in_decade if high / low < 2e3 else (1,), (1, 1.5, 2, 3, 4, 5, 7), (1, 1.2, 1.4, 1.6, *range(2, 10))):
        axis.set_major_locator(LogLocator(subs=places))
        if sum(low <= place <= high for place in axis.get_majorticklocs()) >= 3:
            break
    else:
        axis.set_major_locator(MaxNLocator(4))  # a scale of less than a tenth of a decade is nearly even
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_locator(NullLocator())


def step_ticks(axes: Axes) -> None:
    """Training steps as 600, 400K, 7M; logarithmic where those of the panels that share them span over a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    together: list[Any] = axes.get_shared_x_axes().get_siblings(axes)
    low = min(one.dataLim.x0 for one in together)
    high = max(one.dataLim.x1 for one in together)
    axes.set_xlabel("Training steps")
    if low > 0 and high / low > 10:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: steps_text(value)))


def steps_text(steps: float) -> str:
    """600 -> 600, 400000 -> 400K, 7000000 -> 7M."""
    for size, letter in ((1e6, "M"), (1e3, "K")):
        if steps >= size:
            return f"{steps / size:g}{letter}"
    return f"{steps:g}"


def _read_powers(figure: Figure) -> None:
    """Let matplotlib's own labels of logarithmic axes be formulas, 10^3; its ticks are what it reuses."""
    from matplotlib.ticker import LogFormatterMathtext, NullLocator

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        for each, ticks in ((axis.major, axis.get_major_ticks), (axis.minor, axis.get_minor_ticks)):
            # To make a hundred ticks is as slow as to draw the figure: not where there are none.
            if isinstance(each.formatter, LogFormatterMathtext) and not isinstance(each.locator, NullLocator):
                for tick in ticks(MOST_TICKS):
                    tick.label1.set_parse_math(True)


def lay_out(figure: Figure) -> None:
    """Give everything its place, for good; later calls change nothing."""
    _read_powers(figure)
    engine = figure.get_layout_engine()
    if engine is None:  # laid out before
        return
    for _ in range(2):  # the second knows the ticks that the panels' sizes gave in the first, and the lines of texts
        before = _places(figure)
        engine.execute(figure)
        if not _wrap(figure) and np.allclose(_places(figure), before, rtol=0, atol=SAME_PLACE):
            break  # once more would change nothing
    else:
        engine.execute(figure)
    figure.set_layout_engine(None)  # "none" leaves a placeholder, for which every file is drawn twice


def _places(figure: Figure) -> Any:
    """(axes, 4): left, bottom, width and height in pixels."""
    return np.array([axes.bbox.bounds for axes in figure.axes])


def _wrap(figure: Figure) -> bool:
    """Break titles and names of axes that are longer than their panel, before what is in brackets or at blanks.

    Whether any was.
    """
    broken = False
    for axes in figure.axes:
        width, height = axes.bbox.size
        for text, room in ((axes.title, width), (axes.xaxis.label, width), (axes.yaxis.label, height)):
            extent = text.get_window_extent()
            length = extent.height if text is axes.yaxis.label else extent.width
            if length > 1.02 * room > 0 and "\n" not in text.get_text():
                most = max(MOST_NARROW, int(len(text.get_text()) * room / length))  # characters
                lines = text.get_text().replace(" (", "\n(", 1).splitlines()
                text.set_text("\n".join(textwrap.fill(line, most, break_long_words=False) for line in lines))
                broken = True
    return broken
