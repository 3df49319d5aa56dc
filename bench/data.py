"""Training data: index -> (tensor, label), and what is known of a data set before it is loaded.

To add one, write a class with the interface of `Dataset` and a line in `DATASETS`. Importing this module does not
import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bench.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Dataset(Protocol):
    """Training examples scaled to the model's range, and the images that scores are measured against."""

    num_classes: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One example: x (C, H, W) float32, label."""
        ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, C, H, W) float32 and labels (N,) int64 on the data set's device, for indices (N,) int64."""
        ...

    def to_uint8(self, x: Tensor) -> Tensor:
        """Model range (N, C, H, W) -> images (N, C', H', W') uint8: pixels rounded, latents decoded."""
        ...

    def reference_images(self) -> Tensor:
        """All real images, (N, C', H', W') uint8, that samples are compared with."""
        ...

    @property
    def decoder(self) -> str:
        """What `to_uint8` decodes with, part of every score's key; `pixels` for none."""
        ...


@dataclass(frozen=True)
class DatasetFacts:
    """What recipes and plans are checked against.

    `shape` is (C, H, W) as the model sees it, `image_shape` of a sample as it is stored. `load` is None where this
    version can plan with the data but not read it.
    """

    length: int
    shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    num_classes: int
    load: Callable[[torch.device], Dataset] | None


class Digits:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images with 17 grey levels, 10 classes, no download.

    Pixels 0 .. 16 become x / 8 - 1. Held whole on the device.
    """

    num_classes = 10
    decoder = "pixels"

    def __init__(self, device: torch.device) -> None:
        import torch
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        self._x = torch.tensor(pixels, dtype=torch.float32, device=device).view(-1, 1, 8, 8) / 8 - 1
        self._y = torch.tensor(labels, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._x[index], int(self._y[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._x[indices], self._y[indices]

    def to_uint8(self, x: Tensor) -> Tensor:
        import torch

        return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def reference_images(self) -> Tensor:
        return self.to_uint8(self._x)

    def labels(self) -> Tensor:
        """(1797,) int64, for training the feature network."""
        return self._y


DATASETS = {
    "digits": DatasetFacts(1797, shape=(1, 8, 8), image_shape=(1, 8, 8), num_classes=10, load=Digits),
    "imagenet-256-latents": DatasetFacts(
        1_281_167, shape=(4, 32, 32), image_shape=(3, 256, 256), num_classes=1000, load=None
    ),
}


def check_readable(name: str) -> None:
    """Refuse data that this version cannot read, before anything is submitted.

    Raises:
        InputError: it cannot.
    """
    if DATASETS[name].load is None:
        readable = ", ".join(key for key, facts in DATASETS.items() if facts.load)
        raise InputError(f"data.name: {name} can be planned with, not read yet; accepted for runs: {readable}")


def load_dataset(name: str, device: torch.device) -> Dataset:
    """Load a data set of `DATASETS` to the device.

    Raises:
        InputError: as `check_readable`.
    """
    check_readable(name)
    load = DATASETS[name].load
    assert load is not None
    return load(device)


def reference_id(name: str, images: Tensor) -> str:
    """`digits-1797-0123abcd`: name, number of images and a hash of their bytes, part of every score's key."""
    digest = hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest()[:8]
    return f"{name}-{len(images)}-{digest}"
