"""`ditbench figure`: the figures of papers and own runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.figures import CATALOGUE

# Paragraphs of the help keep their lines after \b.
HELP = "\n".join(
    [
        "Draw a figure, or all: PNG, PDF and the plotted data beside them.",
        "",
        "\b",
        *(f"{name:17} {entry.shows}" for name, entry in CATALOGUE.items()),
    ]
)


def figure(
    name: Annotated[str, typer.Argument(help="Which figure; all: every one that there is data for.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="published, or a folder that `ditbench collect` made; several to compare. Default: published."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where the pictures go; default: the first results folder, else figures.")
    ] = Path(),
    width: Annotated[
        Literal["one", "two"], typer.Option(help="Columns of a paper that it fills: 3.25 or 6.75 inches.")
    ] = "two",
) -> None:
    from analysis import figures
    from analysis.figures.sources import PUBLISHED, open_sources

    figures.check_name(name)
    names = source or [PUBLISHED]
    folders = [Path(one) for one in names if one != PUBLISHED]
    folder = out if out != Path() else (folders or [Path("figures")])[0]
    sources = open_sources(names)
    if name == figures.ALL:
        drawn = figures.draw_available(sources, folder, width)
    else:
        drawn = figures.draw(name, sources, folder, width)
    for path in drawn.files:
        typer.echo(path)
    for line in drawn.left_out:
        typer.echo(line, err=True)


figure.__doc__ = HELP
