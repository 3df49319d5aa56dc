"""A folder of images with a folder for each class, such as CIFAR-10's as PNGs, for models of pixels: no autoencoder.

In a recipe: `data: {name: image-folder, folder: cifar10/train, image_size: 32, length: 50000, num_classes: 10,
mirror: true, content: "1a2b3c4d"}`. The images are held in memory; their identity is their `content`, not their folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import DatasetFacts, PixelDataset, first_of_classes
from bench.data.latent_index import data_root
from bench.data.walk import stamp, tell
from bench.errors import InputError
from bench.files.names import shown
from bench.schema import NO_RESULT

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from bench.data.image_folder import ImageFolder
    from bench.data.pixels import PixelExamples

_tell_once = cache(tell)  # a sweep asks for the same folder once for each of its recipes
MOST_BYTES = 8 * 10**9
DECODING_THREADS = 8


@dataclass(frozen=True)
class ImageFolderOptions:
    """Which images, and what they are known to be.

    Attributes:
        folder: relative to the working folder, or, if it is not there, to the data root ($DITBENCH_DATA, else `data`).
        image_size: pixels a side; images of other sizes are cropped and resized as `ditbench encode` does.
        channels: 3, or 1 for grey.
        mirror: half of what training sees is flipped left to right; the reference is not.
        length, num_classes: of the folder; needed, so that plans do without it.
        content: the first eight hex digits of a hash of all pixels and labels; needed. A recipe without these three is
            refused with the right ones.
    """

    folder: str = field(metadata=NO_RESULT)
    image_size: int
    channels: int = 3
    mirror: bool = False
    length: int | None = None
    num_classes: int | None = None
    content: str | None = None


class _ImageFolder(PixelDataset):
    options = ImageFolderOptions

    def facts(self, name: str, options: ImageFolderOptions) -> DatasetFacts:
        _check(options)
        if options.length is None or options.num_classes is None or options.content is None:
            missing = [key for key in ("length", "num_classes", "content") if getattr(options, key) is None]
            raise ValueError(f"{missing[0]}: missing; {_needed(options)}")
        shape = (options.channels, options.image_size, options.image_size)
        return DatasetFacts(options.length, shape, shape, options.num_classes)

    def images(self, name: str, options: ImageFolderOptions) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        folder = _find(options.folder)
        pixels, labels, num_classes = _read(folder, options)
        found = {"length": len(pixels), "num_classes": num_classes, "content": _content(pixels, labels)}
        for key, value in found.items():
            if value != getattr(options, key):
                raise InputError(f"data.{key}: {getattr(options, key)}, but {folder} has {value}")
        return pixels, labels

    def load(self, name: str, options: ImageFolderOptions, device: torch.device) -> PixelExamples:
        from bench.data.pixels import PixelExamples

        pixels, labels = self.checked_images(name, options)
        return PixelExamples(pixels, labels, self.facts(name, options).num_classes, device, options.mirror)

    def of_classes(self, name: str, options: ImageFolderOptions, wanted: Sequence[int]) -> NDArray[np.uint8]:
        import numpy as np

        from bench.data.image_folder import list_images

        images = list_images(_find(options.folder), _tell_once)  # to look at a few, not all are decoded
        paths = [images.root / images.paths[place] for place in first_of_classes(images.labels, wanted)]
        return np.stack([_decode(path, options.image_size, options.channels) for path in paths])

    def title(self, name: str, options: ImageFolderOptions) -> str:
        return shown(Path(options.folder).resolve().name)


def _check(options: ImageFolderOptions) -> None:
    if options.channels not in (1, 3):
        raise ValueError(f"channels: {options.channels}; accepted: 3, or 1 for grey")
    for key in ("image_size", "length", "num_classes"):
        value = getattr(options, key)
        if value is not None and value <= 0:
            raise ValueError(f"{key}: {value}; accepted: greater than 0")
    _check_bytes(options, options.length or 0)


def _check_bytes(options: ImageFolderOptions, length: int) -> None:
    needed = length * options.channels * options.image_size**2
    if needed > MOST_BYTES:
        raise ValueError(
            f"image_size: {length:,} images of {options.image_size} pixels a side are {needed / 1e9:.1f} GB in memory; "
            f"accepted: up to {MOST_BYTES / 1e9:.0f} GB, or latents of them (`ditbench encode`)"
        )


def _needed(options: ImageFolderOptions) -> str:
    """What a recipe of this folder has to say, if the folder is there."""
    try:
        folder = _find(options.folder)
        pixels, labels, num_classes = _read(folder, options)
    except (InputError, OSError) as error:
        return f"needed: length, num_classes and content ({error})"
    # Quoted: YAML would read 12345678 as a number.
    content = f'"{_content(pixels, labels)}"'
    return f"{folder} has length: {len(pixels)}, num_classes: {num_classes}, content: {content}"


def _find(folder: str) -> Path:
    given = Path(folder).expanduser()
    places = dict.fromkeys([given, data_root() / given])  # one place if it is absolute
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"data.folder: no such folder: {' nor '.join(str(place.absolute()) for place in places)}")


def _read(folder: Path, options: ImageFolderOptions) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """All pixels (N, C, H, W), labels (N,), and the number of classes.

    Raises:
        InputError: they are too many for memory, or one cannot be decoded.
    """
    import numpy as np

    from bench.data.image_folder import list_images

    images = list_images(folder, _tell_once)
    try:
        _check_bytes(options, len(images.paths))
    except ValueError as error:
        raise InputError(f"data.{error}") from None
    stamps = tuple(stamp(folder / path) for path in images.paths)
    pixels = _decoded(images, options.image_size, options.channels, stamps)
    return pixels, np.array(images.labels, dtype=np.int64), len(images.classes)


@lru_cache(maxsize=1)
def _decoded(images: ImageFolder, size: int, channels: int, stamps: tuple[str, ...]) -> NDArray[np.uint8]:
    """All pixels (N, C, H, W), kept: a sweep asks for the same images once for each of its recipes.

    `stamps`: of `bench.data.walk.stamp`, which tell when files have changed.
    """
    import numpy as np

    def decode(index: int) -> None:
        pixels[index] = _decode(images.root / images.paths[index], size, channels)

    pixels = np.empty((len(images.paths), channels, size, size), dtype=np.uint8)
    with ThreadPoolExecutor(DECODING_THREADS) as threads:  # PIL decodes without Python's lock
        for _ in threads.map(decode, range(len(pixels))):
            pass
    pixels.flags.writeable = False
    return pixels


def _decode(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    from bench.data.image_file import UnreadableImage
    from bench.data.image_folder import read_image

    try:
        pixels = read_image(path, size)
    except UnreadableImage as error:
        raise error.at(path) from None
    if channels == 1:  # of a grey image, the very grey
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))[None]
    return pixels


def _content(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(f"uint8 {pixels.shape}".encode())
    digest.update(pixels.data)
    digest.update(labels.astype("<i8").data)
    return digest.hexdigest()[:8]


IMAGE_FOLDER = _ImageFolder()
