"""`ditbench reference`: statistics of images, to score samples against. Modules are loaded inside: help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import DeviceOption, OfflineOption
from bench.errors import InputError
from bench.score.extractors import EXTRACTORS
from bench.stopping import StopRequest


def reference(
    images: Annotated[Path, typer.Argument(help="A folder of images, or a .npy or .npz of uint8 images.")],
    out: Annotated[Path, typer.Option(help="The statistics, a .npz for --reference.")],
    extractor: Annotated[
        str, typer.Option(help=f"Whose features: {', '.join(EXTRACTORS.builtin)}, or the path of your own.")
    ] = EXTRACTORS.default,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Crop a folder with a folder for each class to this, as ADM does; default: no crop."),
    ] = None,
    work: Annotated[Path, typer.Option(help="Features go here until the statistics are written.")] = Path(
        "runs/references"
    ),
    device: DeviceOption = "cpu",
    offline: OfflineOption = False,
) -> None:
    """Compute the mean and covariance of images' features, such as a whole training set's, to score samples against.

    Under torchrun its processes share the work. Interrupted, the same command continues.
    """
    import signal

    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: accepted: a .npz file")
    try:
        EXTRACTORS.find(extractor)
    except ValueError as error:
        raise InputError(f"--extractor {extractor}: {error}") from None
    from bench.parallel import joined, prepare_device
    from bench.score.extractors import load_extractor
    from bench.score.make_reference import make_reference

    with joined(device) as ranks:
        torch_device = prepare_device(device, "fp32", ranks.local_rank)
        network = load_extractor(extractor, work, offline)
        count = make_reference(images, image_size, network, out, work, torch_device, ranks, stop)
        if ranks.is_first:
            typer.echo(f"statistics of {network.id} features of {count:,} images: {out}")
