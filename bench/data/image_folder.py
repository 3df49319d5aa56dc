"""A folder of images with one folder per class, and how an image becomes a square of pixels.

The crop is ADM's (Dhariwal & Nichol 2021, arXiv 2105.05233, as their guided-diffusion loads ImageNet), which the DiT
paper's data and reference statistics share: RGB first, where transparency is dropped and EXIF orientation is not
applied; halved by a box filter while its shorter side is at least twice the size; scaled by a bicubic filter until
its shorter side is the size; then the middle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bench.data.image_file import CONVERTED, MOST_PIXELS, RefusedImage, UnreadableImage, decode
from bench.data.walk import SUFFIXES, find_images, stamp, tell
from bench.errors import InputError


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


def list_images(root: Path, say: Callable[[str], object] = tell) -> ImageFolder:
    """Find the images of every class folder, in folders below it too; no image is opened. What counts as one:
    `bench.data.walk`.

    Raises:
        InputError: no such folder, no class folders, one without images, or images beside the class folders.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; accepted: a folder with a folder of images for each class")
    found = find_images(root, say)
    if not found.folders:
        loose = f" but {len(found.files):,} images" if found.files else ""
        raise InputError(f"{root}: no folders in it{loose}; accepted: a folder with a folder of images for each class")
    of_class: dict[str, list[str]] = {name: [] for name in found.folders}
    for path in found.files:
        of_class[path.partition("/")[0]].append(path)
    for name, paths in of_class.items():
        if not paths:
            raise InputError(f"{root / name}: a class folder without images; accepted: {', '.join(SUFFIXES)}")
    labels = tuple(label for label, paths in enumerate(of_class.values()) for _ in paths)
    # Class by class: by their paths, those of `a-b` would come before those of `a`.
    return ImageFolder(root, found.folders, tuple(path for paths in of_class.values() for path in paths), labels)


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
        RefusedImage: one that `bench.data.image_file` refuses, or too narrow to be cropped.
    """
    image = decode(path, CONVERTED, "RGB")
    if size**2 * max(image.size) > MOST_PIXELS * min(image.size):  # scaled, before it is cropped
        raise RefusedImage(f"{image.width} x {image.height} pixels; accepted: less narrow ones")
    return np.asarray(center_crop(image, size)).transpose(2, 0, 1)


class Source(NamedTuple):
    """What an image file was when it was read: `bench.data.walk.stamp`, and SHA-256 of its bytes (empty if it cannot be
    read)."""

    stamp: str
    sha256: bytes


def source_of(path: Path) -> Source:
    """The file as it is now."""
    stamped = stamp(path)
    try:
        with path.open("rb") as file:
            return Source(stamped, hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return Source(stamped, b"")


class Batch(NamedTuple):
    """Images (n, 3, H, W) uint8, their positions in the list, (position, reason) of those that are unreadable, and what
    all of their files were."""

    images: Tensor
    positions: list[int]
    unreadable: list[tuple[int, str]]
    sources: list[Source]


class Batches(Dataset[Batch]):
    """Batches of decoded images at given positions of the list, for a DataLoader's processes."""

    def __init__(self, folder: ImageFolder, size: int, batches: Sequence[range]) -> None:
        self._folder = folder
        self._size = size
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        images, positions, unreadable, sources = [], [], [], []
        for position in self._batches[index]:
            path = self._folder.root / self._folder.paths[position]
            sources.append(source_of(path))
            try:
                images.append(read_image(path, self._size))
                positions.append(position)
            except UnreadableImage as error:
                unreadable.append((position, str(error)))
        pixels = np.stack(images) if images else np.empty((0, 3, self._size, self._size), np.uint8)
        return Batch(torch.from_numpy(pixels), positions, unreadable, sources)
