"""A folder of images with one folder per class, and how an image becomes a square of pixels.

The crop is ADM's (Dhariwal & Nichol 2021, arXiv 2105.05233, as their guided-diffusion loads ImageNet), which the DiT
paper's data and reference statistics share: RGB first, where transparency is dropped and EXIF orientation is not
applied; halved by a box filter while its shorter side is at least twice the size; scaled by a bicubic filter until
its shorter side is the size; then the middle.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bench.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """All images: class by class, sorted by path.

    Attributes:
        classes: folder names, sorted.
        paths: under `root`, with forward slashes.
        labels: positions in `classes`, one a path.
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]


class UnreadableImage(Exception):
    """An image file that cannot be decoded: why, in one line."""


def list_images(root: Path) -> ImageFolder:
    """Find the images of every class folder, in folders below it too; no image is opened.

    Raises:
        InputError: no such folder, no class folders, or one without images.
    """
    classes = class_names(root)
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            (Path(folder) / file).relative_to(root).as_posix()
            for folder, _, files in os.walk(root / name, followlinks=True)
            for file in files
            if file.lower().endswith(EXTENSIONS)
        )
        if not found:
            raise InputError(f"{root / name}: a class folder without images; accepted: {', '.join(EXTENSIONS)}")
        paths += found
        labels += [label] * len(found)
    return ImageFolder(root, classes, tuple(paths), tuple(labels))


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the folders in `root`, sorted.

    Raises:
        InputError: no such folder, or none in it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; accepted: a folder with a folder of images for each class")
    classes = tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))
    if not classes:
        raise InputError(f"{root}: no folders in it; accepted: a folder with a folder of images for each class")
    return classes


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """ADM's crop of an RGB image to size x size pixels."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode and crop an image file: (3, size, size).

    Raises:
        UnreadableImage: the file is missing, truncated, or no image.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore")  # of metadata, and of transparency that is dropped
            image = file.convert("RGB")
    except Exception as error:  # PIL's decoders raise what they come upon: OSError, SyntaxError, ValueError, ...
        reason = " ".join(str(error).replace(str(path), path.name).split())
        raise UnreadableImage(f"{type(error).__name__}: {reason}") from None
    return np.asarray(center_crop(image, size)).transpose(2, 0, 1)


class Batch(NamedTuple):
    """Images (n, 3, H, W) uint8, their positions in the list, and (position, reason) of those that are unreadable."""

    images: Tensor
    positions: list[int]
    unreadable: list[tuple[int, str]]


class Batches(Dataset[Batch]):
    """Batches of decoded images at given positions of the list, for a DataLoader's processes."""

    def __init__(self, folder: ImageFolder, size: int, batches: Sequence[range]) -> None:
        self._folder = folder
        self._size = size
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        images, positions, unreadable = [], [], []
        for position in self._batches[index]:
            try:
                images.append(read_image(self._folder.root / self._folder.paths[position], self._size))
                positions.append(position)
            except UnreadableImage as error:
                unreadable.append((position, str(error)))
        pixels = np.stack(images) if images else np.empty((0, 3, self._size, self._size), np.uint8)
        return Batch(torch.from_numpy(pixels), positions, unreadable)
