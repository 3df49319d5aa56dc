"""`ditbench table`: a study's tables for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.commands.options import OldDataOption, named_data, one_of
from analysis.errors import ResultsError, about
from analysis.results.named import ACCEPTED, PUBLISHED, results_folder

TableName = Literal["summary", "published", "correlations", "transfer", "families", "reproductions"]
TableFormat = Literal["markdown", "latex", "csv"]
DEFAULT = "results/digits"


def table(
    name: Annotated[TableName, typer.Argument(help="Which table.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help=f"What to read: {ACCEPTED}; default: {DEFAULT}. Of families and reproductions: {PUBLISHED} alone.",
        ),
    ] = None,
    source: OldDataOption = None,
    format: Annotated[TableFormat, typer.Option(help="csv has every digit, and columns that the others leave out.")] = (
        "markdown"
    ),
    out: Annotated[Path | None, typer.Option(help="The file to write; default: print it.")] = None,
) -> None:
    """A study's table for a paper: its models, published scores beside ours, correlations with compute, or how the best
    learning rate of one width does at others.

    Of published numbers alone: families, a power law through each and its largest model predicted from the smaller
    ones; or reproductions, what others got who trained a published model again, and how much laboratories differ.
    """
    from analysis.figures.sources import published_source, scaling_study
    from analysis.paper import table_formats
    from analysis.paper import tables as paper_tables
    from analysis.paper.of_papers import OF_PAPERS
    from analysis.results import tables
    from analysis.results.files import write_whole

    of_papers = OF_PAPERS.get(name)
    folder = results_folder(one_of(data, source) if named_data(data, source) else PUBLISHED if of_papers else DEFAULT)
    if folder is None and name == "published":
        raise ResultsError("published beside published says nothing; accepted: a results folder")
    if folder is not None and of_papers:
        raise ResultsError(f"{folder}: {name} are of published numbers alone; accepted: {PUBLISHED}")
    if of_papers:
        made = of_papers()
    else:
        with about(folder or PUBLISHED):
            made = paper_tables.TABLES[name](tables.load(folder) if folder else scaling_study(published_source()))
    text = table_formats.FORMATS[format](made)
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(write_whole(out, text.encode()))
