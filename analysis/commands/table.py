"""`ditbench table`: a study's tables for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

TableName = Literal["summary", "published", "correlations"]
TableFormat = Literal["markdown", "latex", "csv"]


def table(
    name: Annotated[TableName, typer.Argument(help="Which table.")],
    results: Annotated[Path, typer.Option(help="A folder that `ditbench collect` made.")] = Path("results/digits"),
    format: Annotated[TableFormat, typer.Option(help="csv has every digit, and columns that the others leave out.")] = (
        "markdown"
    ),
    out: Annotated[Path | None, typer.Option(help="The file to write; default: print it.")] = None,
) -> None:
    """A study's table for a paper: its models, published scores beside ours, or correlations with compute."""
    from analysis.results import export_tables, table_formats, tables
    from analysis.results.files import write_whole

    text = table_formats.FORMATS[format](export_tables.TABLES[name](tables.load(results)))
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(write_whole(out, text.encode()))
