"""`ditbench export-samples`: samples in the forms that other evaluators read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import InputError


def export_samples(
    samples: Annotated[Path, typer.Argument(help="Samples of a run (.npy), an ADM .npz, or a folder of images.")],
    out: Annotated[str, typer.Argument(help="FILE.npz for ADM's evaluator, or FOLDER/ for PNG files.")],
) -> None:
    """Write samples as an ADM .npz or as PNG files, bit for bit. Run again, it writes the missing PNG files."""
    from bench.data.images import open_images, write_npz, write_pngs

    target = Path(out)
    if target.resolve() == samples.resolve():
        raise InputError(f"{out}: is where the samples are; give another place")
    images = open_images(samples)
    if target.suffix == ".npz":
        write_npz(images, target)
    elif out.endswith("/") or target.is_dir() or not target.suffix:
        write_pngs(images, target)
    else:
        raise InputError(f"{out}: neither FILE.npz nor FOLDER/")
    typer.echo(f"{len(images)} images: {out}")
