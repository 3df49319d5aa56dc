"""`ditbench export`: a run's weights for diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    step: Annotated[int | None, typer.Option(min=1, help="Which kept step; default: the last one kept.")] = None,
    vae: Annotated[
        str | None, typer.Option(help="Autoencoder to put beside it, by name or folder; default: the recipe's decoder.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only files that are in the cache.")] = False,
) -> None:
    """Write a run's EMA weights as a diffusers DiTPipeline that samples the suite's latents, with a model card."""
    from bench.export.pipeline import export as write

    write(run, out, step, vae, offline)
    typer.echo(out)
