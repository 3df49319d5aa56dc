"""Options that the commands of laws share, and how they print what they found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from analysis.results.visible import visible

Source = Literal["published"]
MetricOption = Annotated[str, typer.Option(help="fid, fid_percent, fid_infinity, sfid, kid or loss.")]
StepOption = Annotated[int | None, typer.Option(min=1, help="Default: the last that most runs share.")]
LevelOption = Annotated[float, typer.Option(help="Confidence level.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what is drawn.")]
Format = Literal["table", "json"]
FormatOption = Annotated[Format, typer.Option(help="How to print.")]
JsonOption = Annotated[Path | None, typer.Option(help="A file for it as JSON, whatever is printed.")]


def print_result(said: dict[str, Any], format: Format, out: Path | None, print_table: Callable[[], None]) -> None:
    """Print `said` as JSON, or by `print_table`; and write it as JSON to `out`, whatever is printed."""
    import json

    from analysis.results.files import write_whole

    content = json.dumps(said, indent=1, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, content.encode())
    if format == "json":
        typer.echo(content, nl=False)
    else:
        print_table()


def print_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under `headings`, columns two spaces apart."""
    lines = [[visible(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
