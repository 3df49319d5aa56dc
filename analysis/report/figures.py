"""A report's figures: each that the study has data for, for wide pages and for phones, with its numbers."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.drawing.picture import Drawn, NothingToDraw
from analysis.drawing.style import Width
from analysis.errors import ResultsError
from analysis.figures import draw
from analysis.figures.sources import Source, measured, published_source
from analysis.report.pictures import PICTURES, Picture
from analysis.report.tables import names, plain_table
from analysis.results.csv_text import read_csv
from analysis.results.export_tables import GMACS
from analysis.results.table_formats import Table
from analysis.results.tables import Tables


@dataclass(frozen=True)
class Image:
    """A picture as a data: URL, and its size in pixels."""

    url: str
    width: int
    height: int


@dataclass(frozen=True)
class Figure:
    """A drawn figure of the catalogue: `alt` says what both images show; `numbers` is None where there is no table."""

    name: str
    title: str
    convention: str
    alt: str
    wide: Image
    narrow: Image
    numbers: Table | None


def figures(tables: Tables) -> tuple[list[Figure], list[str]]:
    """The figures, and a line for each that could not be drawn."""
    source = measured(tables, names(tables.runs["sweep"]))
    drawn, undrawn = [], []
    for name, picture in PICTURES.items():
        try:
            drawn.append(_figure(name, picture, source))
        except ResultsError as error:
            undrawn.append(f"Figure not drawn: {picture.title}: {str(error).removeprefix(f'{source.name}: ')}")
    return drawn, undrawn


def _figure(name: str, picture: Picture, source: Source) -> Figure:
    """Raises ResultsError where it cannot be drawn."""
    with TemporaryDirectory() as folder:
        wide, narrow = (_drawn(name, picture, source, Path(folder) / width, width) for width in ("two", "one"))
        data, images = _data(wide), (_image(wide), _image(narrow))
    caption = f"Numbers of the figure: {picture.title}"
    numbers = None if data is None else plain_table(name, caption, GMACS, data)
    return Figure(name, picture.title, picture.convention, picture.describe(data, source.tables), *images, numbers)


def _drawn(name: str, picture: Picture, source: Source, out: Path, width: Width) -> Drawn:
    drawn = draw(name, [source, published_source()] if picture.published else [source], out, width)
    own = [reason for reason in drawn.left_out if reason.startswith(f"{source.name}: ")]
    if own:  # the published scores alone are not the study
        raise NothingToDraw(own[0])
    return drawn


def _data(drawn: Drawn) -> pd.DataFrame | None:
    """What is plotted; None for a figure whose data are no table."""
    tables = [path for path in drawn.files if path.suffix == ".csv"]
    return read_csv(tables[0]) if tables else None


def _image(drawn: Drawn) -> Image:
    """The picture as lossless WebP, a third of the size of the PNG."""
    from PIL import Image as Picture

    (path,) = (path for path in drawn.files if path.suffix == ".png")
    with Picture.open(path) as png:
        rgb = png.convert("RGB")
    buffer = io.BytesIO()
    rgb.save(buffer, "WEBP", lossless=True)
    return Image(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", *rgb.size)
