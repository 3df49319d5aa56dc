"""`ditbench coordinates`: how large a recipe's activations are at several widths, in both parametrisations.

Beside ditbench.py, because it asks all packages: sweeps for recipes, bench for training, analysis for the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import InputError

PICTURES = (".png", ".pdf")


def coordinates(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe's file, or a sweep (a file, or a shipped one's name), whose first recipe it is."),
    ],
    widths: Annotated[
        str | None, typer.Option(help="Hidden sizes, such as 32,64,128; default: 2, 4, 8 and 16 heads of the recipe's.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of training before activations are measured.")] = 4,
    out: Annotated[
        Path, typer.Option(help="The picture, PNG and PDF, and as csv; its name ends in .png or .pdf.")
    ] = Path("coordinates.png"),
) -> None:
    """Coordinate check of muP: sizes of activations over the width after a few steps, sp beside mup, on the CPU."""
    from ditbench_flops import recipes_of

    if out.suffix not in PICTURES:
        raise InputError(f"--out {out}: a file that ends in .png or .pdf; both are written")
    chosen = None if widths is None else _widths(widths)
    recipes = recipes_of(recipe)
    if not recipes:
        raise InputError(
            f"{recipe}: no recipe; accepted: a recipe's or sweep's file, or a shipped sweep (`ditbench sweep list`)"
        )
    from analysis.coordinates import draw_coordinates, exponents
    from bench.commands.text_table import print_table
    from bench.training.coordinates import coordinates as measured

    rows = measured(recipes[0], chosen, steps, lambda line: typer.echo(line, err=True))
    table = exponents(rows)
    cells = [[f"{value:+.2f}" if isinstance(value, float) else value for value in row] for row in table.to_numpy()]
    print_table([name.replace("_", " ") for name in table.columns], cells, [True] + [False] * (len(table.columns) - 1))
    typer.echo("Exponents of the width: 0 is level. nan: zero so far.")
    for path in draw_coordinates(rows, out.parent, out.stem):
        typer.echo(path, err=True)


def _widths(text: str) -> list[int]:
    sizes = text.split(",")
    if not all(size.strip().isdecimal() for size in sizes):
        raise InputError(f"--widths {text}: accepted: whole numbers, such as 32,64,128")
    return [int(size) for size in sizes]
