"""Pixels between the model's range, -1 to 1, and bytes; and images that are held in memory.

Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.device import sent

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.data.captions import CaptionBank
    from models.conditions import Condition


def is_clip(shape: Sequence[int | None]) -> bool:
    """Whether (C, *sides) is a clip, (C, T, H, W), and no image, (C, H, W)."""
    return len(shape) == 4


def layout(shape: Sequence[int | None]) -> str:
    """What its numbers are: "(C, H, W)", of a clip "(C, T, H, W)"."""
    return "(C, T, H, W)" if is_clip(shape) else "(C, H, W)"


def to_uint8(x: Tensor) -> Tensor:
    """(N, ...), -1 .. 1 -> 0 .. 255 uint8, clamped and rounded.

    Raises:
        ValueError: NaN, which would become black without a word.
    """
    import torch

    if x.isnan().any():
        check_finite(x, "images")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def check_finite(x: Tensor, what: str) -> None:
    """Refuse a batch (N, ...) with a value that is not finite.

    Raises:
        ValueError: how many of the N have one.
    """
    bad = int((~x.isfinite().reshape(len(x), math.prod(x.shape[1:])).all(1)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(x)} {what} are not finite")


def from_uint8(images: Tensor) -> Tensor:
    """Any shape, uint8 -> float32, -1 .. 1."""
    return images.float() / 127.5 - 1


class PixelExamples:
    """Images held whole on the device as bytes, and scaled when they are asked for: a `bench.data.Dataset`."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        num_classes: int,
        device: torch.device,
        mirror: bool = False,
        captions: CaptionBank | None = None,
    ) -> None:
        """Of pixels (N, C, *spatial) and labels (N,); `mirror` flips half of what is asked for; `captions`, one an
        image, are what is said of them instead of their labels."""
        import torch

        self.num_classes = num_classes
        self._pixels = torch.tensor(pixels, device=device)
        self._labels = torch.tensor(labels, device=device)
        self._mirror = mirror
        every = torch.arange(len(pixels))
        self._condition: Condition = self._labels if captions is None else captions.take(every, device)

    def __len__(self) -> int:
        return len(self._pixels)

    def scaled(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, *spatial) as the model sees it, float32."""
        return from_uint8(pixels)

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Any]:
        import torch

        from models.conditions import rows

        own = sent(indices[share], self._pixels.device)
        pixels = self._pixels[own]
        if self._mirror:
            # Drawn for the whole batch, so that a flip does not depend on the ranks; without mirroring nothing is
            # drawn, so that what is drawn afterwards stays what it was.
            flipped = torch.rand(len(indices), generator=random, device=random.device)[share] < 0.5
            of_each = flipped.to(pixels.device).view(-1, *[1] * (pixels.ndim - 1))
            pixels = torch.where(of_each, pixels.flip(-1), pixels)
        return self.scaled(pixels), rows(self._condition, own)

    def read_ahead(self, indices: Tensor) -> None:
        """All of it is read already."""
