"""Options that the commands of analysis share, and how they print what they found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import Annotated, Any, Literal

import typer

from analysis.errors import ResultsError
from analysis.results.named import ACCEPTED
from analysis.results.visible import visible

WIDTH = 100  # of lines, where the terminal is no narrower

DataArgument = Annotated[
    str | None, typer.Argument(metavar="DATA", show_default=False, help=f"What to read: {ACCEPTED}.")
]
SeveralDataArgument = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", show_default=False, help=f"What to read, each: {ACCEPTED}.")
]
DrawnDataArgument = Annotated[
    list[str] | None, typer.Argument(metavar="DATA", show_default="published", help=f"What to draw, each: {ACCEPTED}.")
]
OldDataOption = Annotated[list[str] | None, typer.Option("--source", "--results", hidden=True)]
"""How data were named before they were arguments."""
MetricOption = Annotated[str, typer.Option(help="fid, fid_percent, fid_infinity, sfid, kid or loss.")]
StepOption = Annotated[
    int | None, typer.Option(min=1, show_default=False, help="Default: the last that most runs share.")
]
LevelOption = Annotated[float, typer.Option(help="Confidence level.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what is drawn.")]
Format = Literal["table", "json"]
FormatOption = Annotated[Format, typer.Option(help="How to print.")]
JsonOption = Annotated[Path | None, typer.Option(help="A file for it as JSON, whatever is printed.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Also how it was computed, what was left out, and every test.")
]


def named_data(data: str | Sequence[str] | None, old: Sequence[str] | None) -> list[str]:
    """All data that were named, by arguments and by the options of earlier versions."""
    given = [data] if isinstance(data, str) else data or ()
    return [*given, *(old or ())]


def one_of(data: str | None, old: Sequence[str] | None) -> str:
    """The one that was named.

    Raises:
        ResultsError: none, or several.
    """
    names = named_data(data, old)
    if len(names) != 1:
        raise ResultsError(f"DATA: {' and '.join(names) or 'missing'}; accepted: one of {ACCEPTED}")
    return names[0]


def print_answer(headline: Sequence[str]) -> None:
    """Print the answer, and a rule between it and all the rest."""
    for line in headline:
        typer.echo(visible(line))
    typer.echo("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * _width())


def print_lines(lines: Iterable[str]) -> None:
    """Print sentences, each from a line of its own on, no wider than a page."""
    for line in lines:
        typer.echo(fill(visible(line), _width(), break_long_words=False, break_on_hyphens=False))


def print_result(said: dict[str, Any], format: Format, out: Path | None, print_table: Callable[[], None]) -> None:
    """Print `said` as JSON, or by `print_table`; and write it as JSON to `out`, whatever is printed."""
    import json

    from analysis.results.files import write_whole

    content = json.dumps(_finite(said), indent=1, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, content.encode())
    if format == "json":
        typer.echo(content, nl=False)
    else:
        print_table()


def _finite(said: Any) -> Any:
    """JSON has no infinity, at which an open interval ends: null."""
    if isinstance(said, dict):
        return {key: _finite(value) for key, value in said.items()}
    if isinstance(said, list | tuple):
        return [_finite(value) for value in said]
    return None if isinstance(said, float) and not math.isfinite(said) else said


def print_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under `headings`, columns two spaces apart."""
    lines = [[visible(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _width() -> int:
    return min(WIDTH, get_terminal_size((WIDTH, 0)).columns)
