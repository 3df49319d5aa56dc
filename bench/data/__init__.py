"""Training data: index -> (tensor, label), and what is known of a data set before it is loaded.

Latents of images are made by `ditbench encode` and declared in a recipe; to add data of another kind, write a class
with the interface of `Dataset`, and a line in `DATASETS` and in `PIXELS`. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from models.registry import VAE_DOWNSAMPLING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.recipe import Recipe

LATENT_CHANNELS = 4  # of the paper's autoencoder


class Dataset(Protocol):
    """Training examples scaled to the model's range."""

    num_classes: int

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (N, C, H, W) float32 and labels (N,) int64 on the data set's device, for `indices[share]`.

        Args:
            indices: of the whole batch, (B,) int64 on the CPU.
            share: the rows that this rank computes.
            random: the step's generator; what is random is drawn from it for the whole batch.
        """
        ...

    def read_ahead(self, indices: Tensor) -> None:
        """Begin to read examples, (N,) int64, that `batch` will be asked for soon."""
        ...


@dataclass(frozen=True)
class DatasetFacts:
    """What recipes and plans are checked against.

    `shape` is (C, H, W) as the model sees it, `image_shape` of a sample as it is stored; `latents` need an
    autoencoder between the two.
    """

    length: int
    shape: tuple[int, int, int]
    image_shape: tuple[int, int, int]
    num_classes: int
    latents: bool


def latent_facts(length: int, num_classes: int, image_size: int) -> DatasetFacts:
    """Latents of `length` colour images of `image_size` pixels a side."""
    side = image_size // VAE_DOWNSAMPLING
    return DatasetFacts(length, (LATENT_CHANNELS, side, side), (3, image_size, image_size), num_classes, latents=True)


DATASETS = {
    "digits": DatasetFacts(1797, shape=(1, 8, 8), image_shape=(1, 8, 8), num_classes=10, latents=False),
    "imagenet-256-latents": latent_facts(1_281_167, num_classes=1000, image_size=256),
    "imagenet-512-latents": latent_facts(1_281_167, num_classes=1000, image_size=512),
}


class Digits:
    """scikit-learn's handwritten digits: 1,797 real 8x8 images with 17 grey levels, 10 classes, no download.

    Pixels 0 .. 16 become x / 8 - 1. Held whole on the device.
    """

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


PIXELS: dict[str, Callable[[torch.device], Dataset]] = {"digits": Digits}


def load_dataset(recipe: Recipe, device: torch.device) -> Dataset:
    """The data that a recipe trains on.

    Raises:
        InputError: latents that are not there, damaged, or not those that the recipe names.
    """
    if not recipe.data.facts.latents:
        return PIXELS[recipe.data.name](device)
    from bench.data.latents import Latents, check, data_root, read_index

    folder, data = data_root() / recipe.data.name, recipe.data
    index = read_index(folder)
    check(index, data.facts.length, data.facts.num_classes, data.facts.image_shape[1], str(data.vae))
    return Latents(folder, device)


def check_ready(recipe: Recipe, offline: bool) -> None:
    """Refuse a recipe that lacks its latents, autoencoder, feature network or reference here, before it costs anything.

    Unless `offline`, files of others that are missing are fetched.

    Raises:
        InputError: latents that are not there or not those of the recipe.
        MissingAsset: a file of others that is not in the cache, with the command that gets it.
    """
    if not recipe.data.facts.latents:
        return
    from bench.data.latents import check, data_root, read_index
    from models.assets import locate

    data, evaluation = recipe.data, recipe.evaluation
    index = read_index(data_root() / data.name)
    check(index, data.facts.length, data.facts.num_classes, data.facts.image_shape[1], str(data.vae))
    for name in (evaluation.decoder, evaluation.reference, evaluation.extractor):
        locate(str(name), offline)


def reference_id(name: str, images: Tensor) -> str:
    """`digits-1797-0123abcd`: name, number of images and a hash of their bytes, part of every score's key."""
    digest = hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest()[:8]
    return f"{name}-{len(images)}-{digest}"
