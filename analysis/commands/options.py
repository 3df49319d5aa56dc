"""Options that several commands of laws share, and how they print a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

Source = Literal["published"]
MetricOption = Annotated[str, typer.Option(help="fid, fid_percent, fid_infinity, sfid, kid or loss.")]
StepOption = Annotated[int | None, typer.Option(min=1, help="Default: the last that most runs share.")]
LevelOption = Annotated[float, typer.Option(help="Confidence level.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what is drawn.")]
FormatOption = Annotated[Literal["table", "json"], typer.Option(help="How to print.")]
JsonOption = Annotated[Path | None, typer.Option(help="A file for it as JSON, whatever is printed.")]


def print_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under `headings`, columns two spaces apart."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
