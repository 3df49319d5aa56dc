"""`ditbench paper`: a study's figures and tables, ready for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.commands.options import DrawnDataArgument
from analysis.errors import ResultsError
from analysis.results.named import PUBLISHED


def paper(
    data: DrawnDataArgument = None,
    out: Annotated[Path, typer.Option(help="The folder that the files go to.")] = Path("paper"),
    width: Annotated[
        Literal["one", "two"], typer.Option(help="Columns of the paper that a figure fills: 3.25 or 6.75 inches.")
    ] = "two",
) -> None:
    """Figures by the paper's numbers as PDFs without captions, tables, LaTeX for each, and paper.tex that has them all.

    Where pdflatex is installed, paper.tex is compiled too.
    """
    from analysis.figures.sources import open_sources
    from analysis.paper.write import compile_page, write_paper

    written = write_paper(open_sources(data or [PUBLISHED]), out, width)
    for path in written.files:
        typer.echo(path)
    for line in written.left_out:
        typer.echo(line, err=True)
    try:
        page = compile_page(out)
    except ResultsError as error:  # what is written is sound for another LaTeX
        typer.echo(f"ditbench: {error}", err=True)
        raise typer.Exit(1) from None
    if page is None:
        typer.echo(f"{out / 'paper.tex'} is not compiled: pdflatex is not installed here", err=True)
    else:
        typer.echo(page)
