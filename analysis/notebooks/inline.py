"""Figures and tables as the output of a notebook's cell. Nothing is written beside the notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Image, Markdown, display
from PIL import Image as Picture

from analysis import figures
from analysis.drawing.picture import NothingToDraw
from analysis.drawing.write import rendered
from analysis.figures.captions import MACS, protocols
from analysis.figures.scores import at_last_shared_step, scaling_scores
from analysis.figures.sources import Source, from_each, open_sources
from analysis.paper.table_formats import Table, columns_of, markdown, significant
from analysis.results.named import PUBLISHED

RESULTS = Path(__file__).parents[2] / "results"
COLOURS = 256  # of a committed picture: a third of the bytes, and no marker changes its colour visibly
DIGITS = 5


def sources_of(*names: str) -> list[Source]:
    """ "published", or folders of `RESULTS` by name.

    Raises:
        ResultsError: see `open_sources`.
    """
    return open_sources([name if name == PUBLISHED else str(RESULTS / name) for name in names])


def show_figure(name: str, *sources: str) -> pd.DataFrame:
    """Show a figure of `ditbench figure` with its whole caption, and say what it leaves out.

    Returns the plotted data, empty where these are no table. Where no source has what the figure shows, the reason is
    printed instead.

    Raises:
        ResultsError: an unknown figure or source, or scores that are not finite or not comparable.
    """
    try:
        picture = figures.picture(name, sources_of(*sources))
    except NothingToDraw as error:
        print(f"{name} is not drawn: {error}")
        return pd.DataFrame()
    display(Image(_small(rendered(picture, "png")), alt=picture.title))
    print(f"{picture.title}. {picture.caption}")
    for reason in picture.left_out:
        print(f"{name} is drawn without {reason}")
    return picture.data.reset_index(drop=True) if isinstance(picture.data, pd.DataFrame) else pd.DataFrame()


def show_protocol(*sources: str) -> None:
    """Print how the scores of a scaling study were made: sampler, steps, guidance, decoder, samples, reference."""
    scores, _ = from_each(sources_of(*sources), lambda source: at_last_shared_step(scaling_scores(source)))
    print(f"{MACS}\n{protocols(scores)}")


def show_table(table: Table) -> None:
    """Show a table with its caption and conventions."""
    display(Markdown(markdown(table)))


def show_data(data: pd.DataFrame, caption: str, conventions: str = "") -> None:
    """Show all columns of `data`; numbers to `DIGITS` significant digits, whole ones in full."""
    show_table(Table("data", caption, conventions, columns_of(data, _short), data))


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """Show rows of text under `headings`, as fits and comparisons give them."""
    data: Any = pd.DataFrame(list(rows), columns=list(headings))
    show_data(data, caption)


def _short(value: float) -> str:
    """Rounded to `DIGITS` significant digits, without the zeros that these append to a printed 9.62."""
    text = significant(DIGITS)(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _small(png: bytes) -> bytes:
    """The picture with at most `COLOURS` colours."""
    buffer = io.BytesIO()
    with Picture.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Picture.Quantize.FASTOCTREE, dither=Picture.Dither.NONE)
        few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
