"""Options that several commands of the command line share."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.device import Device, Precision

DeviceOption = Annotated[Device, typer.Option(help="Where tensors live.")]
PrecisionOption = Annotated[Precision, typer.Option(help="tf32 on CUDA only; bf16 by autocast.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Fetch nothing: use only files that are in the cache.")]
