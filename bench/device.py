"""Where tensors live, how precise sums of products are, and how a training step is carried out: what a command line, a
profile and a run choose from. Imports no torch."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.errors import InputError
from models.registry import family_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Modes:
    """How a training step is carried out. Nothing here decides a result, but by how sums are rounded.

    Attributes:
        compile_blocks: each block of the network is one compiled function (torch.compile), the same for all that are
            alike.
        checkpoint_activations: a block's activations are computed again on the way back instead of being kept.
        shard: weights, gradients, moments and averages are divided among the ranks (FSDP2).
    """

    compile_blocks: bool = False
    checkpoint_activations: bool = False
    shard: bool = False


PLAIN = Modes()


def check_modes(modes: Modes, model: str, ranks: int, where: str) -> None:
    """Refuse what cannot be done with a model, by its name, on so many ranks.

    Raises:
        InputError: its family has no blocks, or a single rank is to share with others; `where` begins the message.
    """
    asked = [name for name, is_asked in vars(modes).items() if is_asked]
    if asked and not family_of(model).has_blocks:
        raise InputError(
            f"{where}: {asked[0]}: true, but {model} is not of a family with blocks (has_blocks of its Family); "
            "accepted: false"
        )
    if modes.shard and ranks == 1:
        raise InputError(f"{where}: shard: true, but {model} is trained by one rank; accepted: false, or more ranks")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, without waiting until it is there; pageable memory's copies are waited for."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is what torch raises where a device, or a CPU's memory, is full."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def release_memory() -> None:
    """Give back what nothing refers to any more. The handler of an error still does, so call it after that."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
