"""Options that several commands of the command line share."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.device import Device, Precision

DeviceOption = Annotated[Device, typer.Option(help="Where tensors live.")]
PrecisionOption = Annotated[Precision, typer.Option(help="tf32 on CUDA only; bf16 by autocast.")]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile each block (torch.compile).")]
CheckpointOption = Annotated[
    bool, typer.Option("--checkpoint-activations", help="Compute activations again instead of keeping them.")
]
ShardOption = Annotated[bool, typer.Option("--shard", help="Divide weights and their moments among the ranks (FSDP2).")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Fetch nothing: use only files that are in the cache.")]
