"""How a model looks in every figure, and how figures are written."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; area and line style say the same.
SIZE_COLOURS = {"S": "#56B4E9", "B": "#E69F00", "L": "#009E73", "XL": "#D55E00"}
SIZE_AREAS = {"S": 22.0, "B": 42.0, "L": 68.0, "XL": 100.0}  # square points
SIZE_LINES = {"S": ":", "B": "-.", "L": "--", "XL": "-"}
# By rank, coarsest first, so that the patch sizes 4, 2, 1 of small images look like the paper's 8, 4, 2.
PATCH_MARKERS = ("s", "^", "o", "D", "v")
PATCH_LINES = (":", "--", "-", "-.", "-")

DPI = 200
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "pdf.fonttype": 42,  # text stays text
}


@contextmanager
def look() -> Iterator[None]:
    """The suite's matplotlib settings, for the time of a `with` block."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def patch_ranks(patches: list[int]) -> dict[int, int]:
    """Patch size -> its rank, 0 for the coarsest."""
    return {patch: rank for rank, patch in enumerate(sorted(set(patches), reverse=True))}


def caption(figure: Figure, text: str) -> None:
    """Small print under the figure, wrapped at its width."""
    width = int(19 * figure.get_figwidth())  # characters of this size in so many inches
    lines = "\n".join(textwrap.fill(line, width) for line in text.splitlines())
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=6.5, color="#444444", linespacing=1.4)


def write_figure(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write `figure` as NAME.png and NAME.pdf into `out`, without dates: same figure, same bytes."""
    metadata = {
        "png": {"Software": None},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
    paths = []
    for kind, entries in metadata.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=entries)
        paths.append(write_whole(out / f"{name}.{kind}", buffer.getvalue()))
    return paths
