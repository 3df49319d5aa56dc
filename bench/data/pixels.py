"""Pixels between the model's range, -1 to 1, and bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Any shape, -1 .. 1 -> 0 .. 255 uint8, clamped and rounded."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """Any shape, uint8 -> float32, -1 .. 1."""
    return images.float() / 127.5 - 1
