"""scikit-learn's handwritten digits: 1,797 real 8x8 images with 17 grey levels, 10 classes, no download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.data import DatasetFacts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.score.reference import Reference

NAME = "digits"


class Digits:
    """Held whole on the device; pixels 0 .. 16 become x / 8 - 1."""

    num_classes = 10

    def __init__(self, device: torch.device) -> None:
        import torch
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        self._x = torch.tensor(pixels, dtype=torch.float32, device=device).view(-1, 1, 8, 8) / 8 - 1
        self._y = torch.tensor(labels, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        own = indices[share].to(self._x.device)
        return self._x[own], self._y[own]

    def read_ahead(self, indices: Tensor) -> None:
        """All of it is read already."""

    def images(self) -> Tensor:
        """All of them, (1797, 1, 8, 8) uint8 on the CPU: what samples are compared with."""
        from bench.data.pixels import to_uint8

        return to_uint8(self._x).cpu()

    def examples(self) -> tuple[Tensor, Tensor]:
        """All x (1797, 1, 8, 8) and labels (1797,), for training the feature network."""
        return self._x, self._y


@dataclass(frozen=True)
class DigitsOptions:
    """There are none: everything is known."""


class _DigitsPart:
    options = DigitsOptions

    def facts(self, name: str, options: DigitsOptions) -> DatasetFacts:
        return DatasetFacts(1797, shape=(1, 8, 8), image_shape=(1, 8, 8), num_classes=10)

    def load(self, name: str, options: DigitsOptions, device: torch.device) -> Digits:
        return Digits(device)

    def reference(self, name: str, options: DigitsOptions) -> Reference:
        import torch

        from bench.data.images import ArrayImages
        from bench.score.reference import Reference

        images = Digits(torch.device("cpu")).images()
        digest = hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:8]
        return Reference(NAME, f"{NAME}-{len(images)}-{digest}", ArrayImages(images.numpy()), {})

    def check_ready(self, name: str, options: DigitsOptions) -> None:
        """They come with scikit-learn."""


DIGITS = _DigitsPart()
