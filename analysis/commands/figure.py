"""`ditbench figure`: the figures of papers and own runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from analysis.errors import ResultsError
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


def find_own(path: str) -> Any:
    """A figure of one's own by its dotted path. The top floor puts its loader here: analysis imports none of it."""
    raise ResultsError(f"{path}: a figure of one's own is drawn by the command `ditbench figure`")


def figure(
    name: Annotated[
        str,
        typer.Argument(
            help="Which figure, or the path of your own, module:draw; all: every one that there is data for."
        ),
    ],
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
    from analysis.figures.style import as_delivered

    is_own = ":" in name
    if not is_own:
        figures.check_name(name)
    names = source or [PUBLISHED]
    folders = [Path(one) for one in names if one != PUBLISHED]
    folder = out if out != Path() else (folders or [Path("figures")])[0]
    if is_own:
        with as_delivered():  # it may import matplotlib
            drawn = find_own(name)(open_sources(names), folder, width)
    elif name == figures.ALL:
        drawn = figures.draw_available(open_sources(names), folder, width)
    else:
        drawn = figures.draw(name, open_sources(names), folder, width)
    for path in drawn.files:
        typer.echo(path)
    for line in drawn.left_out:
        typer.echo(line, err=True)


figure.__doc__ = HELP
