"""scikit-learn's handwritten digits: 1,797 real 8x8 images with 17 grey levels, 10 classes, no download.

`digits-colour`: the same, each in a colour drawn at random, for what needs several channels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import DatasetFacts, PixelDataset
from bench.data.pixels import PixelExamples
from bench.errors import InputError
from models.parts import NoOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.data.captions import CaptionBank


# Of all pixels and labels: scores of other images under this name would look comparable.
SHA256 = "0b7e9c3202d7bcd255d6a19a238d3743bf5e320ba74812a6679958a017c55382"


class Digits(PixelExamples):
    """Held whole on the device; grey level 0 .. 16, the byte nearest to level x 255 / 16, becomes level / 8 - 1."""

    def __init__(self, device: torch.device, captions: CaptionBank | None = None) -> None:
        super().__init__(*_images(), num_classes=10, device=device, captions=captions)

    def scaled(self, pixels: Tensor) -> Tensor:
        return (pixels.float() * (16 / 255)).round() / 8 - 1

    def images(self) -> Tensor:
        """All of them, (1797, 1, 8, 8) uint8 on the CPU: what samples are compared with."""
        return self._pixels.cpu()

    def examples(self) -> tuple[Tensor, Tensor]:
        """All x (1797, 1, 8, 8) and labels (1797,), for training the feature network."""
        return self.scaled(self._pixels), self._labels


class DigitsPart(PixelDataset):
    """Grey, as they come."""

    def facts(self, name: str, options: NoOptions) -> DatasetFacts:
        return DatasetFacts(1797, shape=(1, 8, 8), image_shape=(1, 8, 8), num_classes=10)

    def images(self, name: str, options: NoOptions) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return _images()

    def load(self, name: str, options: NoOptions, device: torch.device) -> Digits:
        return Digits(device)

    def check_ready(self, name: str, options: NoOptions) -> None:
        """They come with scikit-learn."""


class _ColouredDigits(PixelDataset):
    """Every digit times a colour, whose largest channel is 1, on black; the colour says nothing of the class."""

    def facts(self, name: str, options: NoOptions) -> DatasetFacts:
        return DatasetFacts(1797, shape=(3, 8, 8), image_shape=(3, 8, 8), num_classes=10)

    def images(self, name: str, options: NoOptions) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        import numpy as np

        grey, labels = _images()
        colours = np.random.default_rng(0).random((len(grey), 3))
        colours /= colours.max(axis=1, keepdims=True)
        return np.rint(grey * colours[:, :, None, None]).astype(np.uint8), labels


def _images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All pixels (1797, 1, 8, 8) and labels (1797,).

    Raises:
        InputError: scikit-learn's file is damaged, or another one than that of all studies.
    """
    import numpy as np

    try:
        table = np.loadtxt(_file(), dtype=np.int64, delimiter=",").reshape(1797, 65)  # the last is the label
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"data.name: digits: scikit-learn's file of them cannot be read ({error})") from None
    levels, labels = table[:, :-1], table[:, -1]
    # Halves to even, as `to_uint8` rounds.
    pixels = np.rint(levels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    digest = hashlib.sha256(pixels.data)
    digest.update(labels.astype("<i8").data)
    if digest.hexdigest() != SHA256:
        raise InputError(
            f"data.name: digits: scikit-learn's have the SHA-256 {digest.hexdigest()[:8]}, those of all studies "
            f"{SHA256[:8]}"
        )
    return pixels, labels


def _file() -> Path:
    """Read as it is: scikit-learn's `load_digits` imports pandas and all distributions of scipy first."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise FileNotFoundError("scikit-learn is not installed")
    return Path(found.origin).with_name("datasets") / "data" / "digits.csv.gz"


DIGITS, COLOURED = DigitsPart(), _ColouredDigits()
