"""A report's figures: each that the study has data for, for wide pages and for phones, with its numbers."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.errors import ResultsError
from analysis.figures import draw
from analysis.figures.drawn import Drawn, NothingToDraw
from analysis.figures.sources import Source, measured, published_source
from analysis.figures.style import Width
from analysis.report import page
from analysis.report.pictures import PICTURES, Picture
from analysis.report.tables import names, plain_table
from analysis.results.export_tables import GMACS
from analysis.results.tables import Tables


def figures(tables: Tables) -> tuple[str, list[str]]:
    """The figures as HTML, and a line for each that could not be drawn."""
    source = measured(tables, names(tables.runs["sweep"]))
    body, undrawn = "", []
    for name, picture in PICTURES.items():
        try:
            body += _figure(name, picture, source)
        except ResultsError as error:
            undrawn.append(f"Figure not drawn: {picture.title}: {str(error).removeprefix(f'{source.name}: ')}")
    return body, undrawn


def _figure(name: str, picture: Picture, source: Source) -> str:
    """Raises ResultsError where it cannot be drawn."""
    with TemporaryDirectory() as folder:
        wide, narrow = (_drawn(name, picture, source, Path(folder) / width, width) for width in ("two", "one"))
        data = _data(wide)
        images = [_image(drawn) for drawn in (wide, narrow)]
    below = ""
    if data is not None:
        shown = plain_table(name, f"Numbers of the figure: {picture.title}", GMACS, data)
        below = page.folded("The numbers in it", page.table(shown))
    alt = picture.describe(data, source.tables)
    return page.heading(picture.title) + page.picture(
        name, images[0], images[1], alt, picture.title, picture.convention, below
    )


def _drawn(name: str, picture: Picture, source: Source, out: Path, width: Width) -> Drawn:
    drawn = draw(name, [source, published_source()] if picture.published else [source], out, width)
    own = [reason for reason in drawn.left_out if reason.startswith(f"{source.name}: ")]
    if own:  # the published scores alone are not the study
        raise NothingToDraw(own[0])
    return drawn


def _data(drawn: Drawn) -> pd.DataFrame | None:
    """What is plotted; None of a figure whose data are no table."""
    tables = [path for path in drawn.files if path.suffix == ".csv"]
    return pd.read_csv(tables[0], keep_default_na=False, na_values=[""]) if tables else None


def _image(drawn: Drawn) -> page.Image:
    """The picture as lossless WebP, which is a third of the PNG."""
    from PIL import Image

    (path,) = (path for path in drawn.files if path.suffix == ".png")
    with Image.open(path) as png:
        rgb = png.convert("RGB")
    buffer = io.BytesIO()
    rgb.save(buffer, "WEBP", lossless=True)
    return page.Image(buffer.getvalue(), *rgb.size)
