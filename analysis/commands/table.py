"""`ditbench table`: a study's tables for papers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class TableName(StrEnum):
    SUMMARY = "summary"
    PUBLISHED = "published"
    CORRELATIONS = "correlations"


class TableFormat(StrEnum):
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"


def table(
    name: Annotated[TableName, typer.Argument(help="Which table.")],
    results: Annotated[Path, typer.Option(help="A folder that `ditbench collect` made.")] = Path("results/digits"),
    format: Annotated[TableFormat, typer.Option(help="csv has every digit, and columns that the others leave out.")] = (
        TableFormat.MARKDOWN
    ),
    out: Annotated[Path | None, typer.Option(help="The file to write; default: print it.")] = None,
) -> None:
    """A study's table for a paper: its models, published scores beside ours, or correlations with compute."""
    from analysis.results import export_tables, table_formats, tables
    from analysis.results.files import write_whole

    text = table_formats.FORMATS[format.value](export_tables.TABLES[name.value](tables.load(results)))
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(write_whole(out, text.encode()))
