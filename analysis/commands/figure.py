"""`ditbench figure`: the figures of papers and own runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.errors import ResultsError
from analysis.figures import ALL, CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.drawing.picture import Picture
    from analysis.drawing.style import Width
    from analysis.figures.sources import Source

    OwnFigure = Callable[[Sequence[Source], Width], Picture]

# Paragraphs of the help keep their lines after \b.
HELP = "\n".join(
    [
        "Draw a figure, or all: PNG, PDF, the plotted data, and the caption as text and for LaTeX.",
        "",
        "\b",
        *(f"{entry.number:7}  {name:17} {entry.shows}" for name, entry in CATALOGUE.items()),
    ]
)


def find_own(path: str) -> OwnFigure:
    """A figure of one's own by its dotted path. The top floor puts its loader here: analysis imports none of it."""
    raise ResultsError(f"{path}: a figure of one's own is drawn by the command `ditbench figure`")


def figure(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Which figure, by name or number (8, fig8), or your own as module:draw; all: each that has data."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="published, or folders that `ditbench collect` made; several to compare.", show_default="published"
        ),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(hidden=True, help="An older way to name data.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Each figure's number, name, and what it needs.")] = False,
    caption: Annotated[
        Literal["none", "short", "full"],
        typer.Option(help="What stands under the panels; the whole caption is in NAME.txt and NAME.tex."),
    ] = "short",
    width: Annotated[
        Literal["one", "two"], typer.Option(help="Columns of a paper that it fills: 3.25 or 6.75 inches.")
    ] = "two",
    out: Annotated[
        Path | None,
        typer.Option(help="Where the files go.", show_default="the first results folder, or figures"),
    ] = None,
) -> None:
    from analysis.commands.options import print_columns

    if list_all:
        rows = [[entry.number, name, entry.shows, entry.needs] for name, entry in CATALOGUE.items()]
        print_columns(["paper", "name", "shows", "needs"], rows)
        return
    if name is None:
        raise ResultsError(f"which figure? accepted: {ALL}, {', '.join(CATALOGUE)}; --list says what each needs")
    from analysis import figures
    from analysis.drawing.style import as_delivered
    from analysis.drawing.write import write_picture
    from analysis.figures.sources import PUBLISHED, open_sources

    if ":" not in name and name != ALL:
        name = figures.named(name)  # a wrong one is refused before anything is read
    chosen = [*(data or []), *(source or [])] or [PUBLISHED]
    folders = [Path(one) for one in chosen if one != PUBLISHED]
    folder = out or (folders or [Path("figures")])[0]
    if ":" in name:
        with as_delivered():  # it may import matplotlib
            picture = _own_picture(name, open_sources(chosen), width)
        files, left_out = write_picture(picture, folder, caption), picture.left_out
    else:
        draw = figures.draw_available if name == ALL else partial(figures.draw, name)
        drawn = draw(open_sources(chosen), folder, width, caption)
        files, left_out = drawn.files, drawn.left_out
    for path in files:
        typer.echo(path)
    for line in left_out:
        typer.echo(line, err=True)


def _own_picture(path: str, sources: Sequence[Source], width: Width) -> Picture:
    import inspect

    from analysis.drawing.picture import Picture

    draw = find_own(path)
    try:
        inspect.signature(draw).bind(sources, width)
    except TypeError as error:
        raise ResultsError(
            f"{path}: {error}; accepted: a function of (sources, width) that returns a Picture"
        ) from None
    picture = draw(sources, width)
    if not isinstance(picture, Picture):
        returned = type(picture).__name__
        raise ResultsError(f"{path} returned a {returned}; accepted: a Picture of analysis.drawing.picture")
    return picture


figure.__doc__ = HELP
