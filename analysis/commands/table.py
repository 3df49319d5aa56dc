"""`ditbench table`: a study's tables for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.commands.options import OldDataOption, named_data, one_of
from analysis.errors import ResultsError
from analysis.results.named import ACCEPTED, results_folder

TableName = Literal["summary", "published", "correlations"]
TableFormat = Literal["markdown", "latex", "csv"]
DEFAULT = "results/digits"

if TYPE_CHECKING:
    from analysis.results.tables import Tables


def table(
    name: Annotated[TableName, typer.Argument(help="Which table.")],
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", show_default=False, help=f"What to read: {ACCEPTED}; default: {DEFAULT}."),
    ] = None,
    source: OldDataOption = None,
    format: Annotated[TableFormat, typer.Option(help="csv has every digit, and columns that the others leave out.")] = (
        "markdown"
    ),
    out: Annotated[Path | None, typer.Option(help="The file to write; default: print it.")] = None,
) -> None:
    """A study's table for a paper: its models, published scores beside ours, or correlations with compute."""
    from analysis.results import export_tables, table_formats, tables
    from analysis.results.files import write_whole

    folder = results_folder(one_of(data, source) if named_data(data, source) else DEFAULT)
    if folder is None and name == "published":
        raise ResultsError("published beside published says nothing; accepted: a results folder")
    text = table_formats.FORMATS[format](export_tables.TABLES[name](tables.load(folder) if folder else _published()))
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(write_whole(out, text.encode()))


def _published() -> Tables:
    """The paper's Table 4 at 256 x 256: its scores at 512 x 512 have another reference."""
    from dataclasses import replace

    from analysis.figures.sources import published_source

    tables = published_source().tables
    runs = tables.runs.loc[tables.runs["data"] == "imagenet-256-latents"]
    return replace(tables, runs=runs, evals=tables.evals.loc[tables.evals["run"].isin(runs["run"])])
