"""A picture as files: PNG, PDF, what is plotted, its caption as text and for LaTeX; and a GIF of what moves."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from analysis.drawing import style
from analysis.drawing.picture import Picture
from analysis.paper.latex import latex_prose
from analysis.results.csv_text import csv_text
from analysis.results.files import npz_bytes, write_whole

Caption = Literal["none", "short", "full"]

DPI = 200
SMALL_PRINT = 7.0  # points
LINE = 1.3 * SMALL_PRINT / 72  # inches from one line to the next
FRAME_MS = 150  # of an animation
GAP = 0.08  # inches between the panels and the small print
# Without dates: the same figure is the same bytes.
METADATA: dict[Literal["png", "pdf"], dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def write_picture(picture: Picture, out: Path, caption: Caption = "short") -> list[Path]:
    """Write NAME.png, .pdf, .csv (or .npz), .txt and .tex, and .gif of an animation, into the folder `out`.

    Returns their paths.

    caption: what stands under the panels, in the picture itself: nothing, the conditions in a line, or all of them. The
    whole caption is in NAME.txt, there with the keys of the scores too, and in NAME.tex, which includes NAME.pdf.
    """
    return [write_whole(out / name, content) for name, content in files(picture, caption).items()]


def files(picture: Picture, caption: Caption) -> dict[str, bytes]:
    """What `write_picture` writes: name -> content."""
    under = {"none": "", "short": picture.short, "full": picture.caption}[caption]
    found = {kind: rendered(picture, kind, under) for kind in METADATA}
    if isinstance(picture.data, Mapping):
        found["npz"] = npz_bytes(picture.data)
    else:
        found["csv"] = csv_text(picture.data).encode()
    text = "\n\n".join(part for part in (picture.title, picture.caption, picture.keys) if part)
    found["txt"] = f"{text}\n".encode()
    found["tex"] = latex_figure(picture, f"{picture.name}.pdf").encode()
    if picture.animation:
        frames = [rendered(replace(picture, figure=figure), "png", under) for figure in picture.animation]
        found["gif"] = animated(frames)
    return {f"{picture.name}.{kind}": content for kind, content in found.items()}


def latex_figure(picture: Picture, file: str) -> str:
    """The picture in `file` as a LaTeX float: figure, or figure* for one that is wider than a column."""
    column = style.WIDTHS["one"]
    wide = picture.figure.get_figwidth() > column
    environment, width = ("figure*", r"\textwidth") if wide else ("figure", r"\columnwidth")
    title = f"{picture.title}. " if picture.title else ""
    caption = latex_prose(title) + " ".join(latex_prose(line) for line in picture.caption.splitlines() if line)
    # A page has some 55 lines: what the caption leaves of it is the most that a high picture may take.
    lines = len(caption) / (16 * (style.WIDTHS["two"] if wide else column))
    height = max(0.3, 0.9 - lines / 55)
    return (
        "% needs \\usepackage{graphicx} and \\usepackage[T1]{fontenc}\n"
        f"\\begin{{{environment}}}[tp]\n  \\centering\n"
        f"  \\includegraphics[width={width},height={height:.2f}\\textheight,keepaspectratio]{{{file}}}\n"
        f"  \\caption{{{caption}}}\n  \\label{{fig:{picture.name.replace('_', '-')}}}\n"
        f"\\end{{{environment}}}\n"
    )


def rendered(picture: Picture, kind: Literal["png", "pdf"], under: str = "") -> bytes:
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


def animated(pngs: Sequence[bytes]) -> bytes:
    """PNG pictures of one size as a GIF that repeats: greys as they are, colours by the 256 nearest to all of them."""
    from PIL import Image

    frames = [Image.open(io.BytesIO(png)).convert("RGB") for png in pngs]
    greys = [frame.convert("L") for frame in frames]
    if all(grey.convert("RGB").tobytes() == frame.tobytes() for grey, frame in zip(greys, frames, strict=True)):
        frames = greys
    else:
        width, height = frames[0].size
        whole = Image.new("RGB", (width, height * len(frames)))
        for index, frame in enumerate(frames):
            whole.paste(frame, (0, index * height))
        palette = whole.quantize(256)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return buffer.getvalue()


def wrapped(text: str, width: float) -> list[str]:
    """Small print in lines that fit `width` inches."""
    characters = int(18 * width)
    return [line for part in text.splitlines() for line in textwrap.wrap(part, characters, break_on_hyphens=False)]
