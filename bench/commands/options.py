"""Options that several commands of the command line share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class PrecisionChoice(StrEnum):
    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"


DeviceOption = Annotated[Device, typer.Option(help="Where tensors live.")]
PrecisionOption = Annotated[PrecisionChoice, typer.Option(help="tf32 on CUDA only; bf16 by autocast.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Fetch nothing: use only files that are in the cache.")]
