"""Where tensors live and how precise sums of products are: what a command line, a profile and a run choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "tf32", "bf16"]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, without waiting until it is there; pageable memory's copies are waited for."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
