"""A picture as files: PNG, PDF, what is plotted, and its caption as text and for LaTeX."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from analysis.drawing import style
from analysis.drawing.picture import Picture
from analysis.results.files import write_arrays, write_csv, write_whole
from analysis.results.table_formats import latex_text

Caption = Literal["none", "short", "full"]

DPI = 200
SMALL_PRINT = 7.0  # points
LINE = 1.3 * SMALL_PRINT / 72  # inches from one line to the next
GAP = 0.08  # inches between the panels and the small print
# Without dates: the same figure is the same bytes.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def write_picture(picture: Picture, out: Path, caption: Caption = "short") -> list[Path]:
    """Write NAME.png, .pdf, .csv (or .npz), .txt and .tex into the folder `out`, and return their paths.

    caption: what stands under the panels, in the picture itself: nothing, the conditions in a line, or all of them. The
    whole caption is in NAME.txt, there with the keys of the scores too, and in NAME.tex, which includes NAME.pdf.
    """
    under = {"none": "", "short": picture.short, "full": picture.caption}[caption]
    pictures = {f".{kind}": _rendered(picture, kind, under) for kind in METADATA}
    paths = [write_whole(out / f"{picture.name}{suffix}", content) for suffix, content in pictures.items()]
    if isinstance(picture.data, Mapping):
        paths.append(write_arrays(out / f"{picture.name}.npz", picture.data))
    else:
        paths.append(write_csv(out / f"{picture.name}.csv", picture.data))
    text = "\n\n".join(part for part in (picture.title, picture.caption, picture.keys) if part)
    paths.append(write_whole(out / f"{picture.name}.txt", f"{text}\n".encode()))
    paths.append(write_whole(out / f"{picture.name}.tex", latex_figure(picture).encode()))
    return paths


def latex_figure(picture: Picture) -> str:
    """The picture as a LaTeX float: figure, or figure* for one that is wider than a column."""
    wide = picture.figure.get_figwidth() > style.WIDTHS["one"]
    environment, width = ("figure*", r"\textwidth") if wide else ("figure", r"\columnwidth")
    title = f"{picture.title}. " if picture.title else ""
    sentences = " ".join(latex_text(line) for line in picture.caption.splitlines() if line)
    return (
        f"\\begin{{{environment}}}[t]\n  \\centering\n  \\includegraphics[width={width}]{{{picture.name}.pdf}}\n"
        f"  \\caption{{{latex_text(title)}{sentences}}}\n  \\label{{fig:{picture.name.replace('_', '-')}}}\n"
        f"\\end{{{environment}}}\n"
    )


def _rendered(picture: Picture, kind: str, under: str) -> bytes:
    """The file's content. The small print lies below the figure, which keeps its own layout whatever is said there."""
    from matplotlib.transforms import Bbox

    figure = picture.figure
    with style.look():
        style.lay_out(figure)
        width, height = figure.get_size_inches()
        lines = wrapped(under, width)
        pixels = math.ceil((len(lines) * LINE + GAP) * DPI) if lines else 0  # whole ones: the panels' stay the same
        text = figure.text(
            0.05 / width, -GAP / height, "\n".join(lines),
            fontsize=SMALL_PRINT, color="#333333", linespacing=1.3, va="top", ha="left",
        )  # fmt: skip
        buffer = io.BytesIO()
        try:
            whole = Bbox([[0, -pixels / DPI], [width, height]])
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=METADATA[kind], bbox_inches=whole)
        finally:
            text.remove()
    return buffer.getvalue()


def wrapped(text: str, width: float) -> list[str]:
    """Small print in lines that fit `width` inches."""
    characters = int(18 * width)
    return [line for part in text.splitlines() for line in textwrap.wrap(part, characters, break_on_hyphens=False)]
