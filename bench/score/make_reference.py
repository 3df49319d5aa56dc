"""Statistics of a folder of images by any extractor: a reference of one's own, such as a whole training set's."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.image_file import UnreadableImage
from bench.data.image_folder import ImageFolder, list_images, read_image
from bench.data.images import Images, open_images
from bench.data.walk import find_images, stamp
from bench.errors import InputError
from bench.files.names import shown
from bench.parallel import Ranks
from bench.score.extractors import Extractor, check_kind
from bench.score.features import extract
from bench.score.reference import write_statistics
from bench.stopping import StopRequest

DECODING_THREADS = 8


class CroppedImages(Images):
    """The images of a folder with a folder for each class, of any sizes, cropped to squares as ADM does."""

    def __init__(self, folder: ImageFolder, size: int) -> None:
        self._folder = folder
        self._size = size
        self.shape = (len(folder.paths), 3, size, size)

    def pixels(self, start: int, stop: int) -> NDArray[np.uint8]:
        with ThreadPoolExecutor(DECODING_THREADS) as threads:  # PIL decodes and resizes without Python's lock
            return np.ascontiguousarray(np.stack(list(threads.map(self._read, self._folder.paths[start:stop]))))

    def _read(self, path: str) -> NDArray[np.uint8]:
        try:
            return read_image(self._folder.root / path, self._size)
        except UnreadableImage as error:
            raise error.at(self._folder.root / path) from None


def make_reference(
    source: Path,
    image_size: int | None,
    extractor: Extractor,
    out: Path,
    work: Path,
    device: torch.device,
    ranks: Ranks,
    stop: StopRequest,
) -> int:
    """Write mean and covariance of the extractor's features of images to `out`. All ranks must call it.

    Args:
        source: images as `open_images` takes them, or, with `image_size`, a folder with a folder for each class.
        image_size: crop them to this many pixels a side; None: they are of one size, and taken as they are.
        work: features go to a folder in it, so that an interrupted call continues; it is removed at the end.

    Returns:
        The number of images.

    Raises:
        InputError: `out` is there, the source holds no images or fewer than two, or one cannot be read; or they are
            clips and the extractor is of images, or the other way round.
        RunError: the disk is full, or a file of features is damaged; the same call continues.
        Stopped: on request; finished chunks of features are kept.
    """
    if ranks.from_first(out.exists()):
        raise InputError(f"{out}: is there already; remove it, or give another file (--out)")
    images = open_images(source) if image_size is None else CroppedImages(list_images(source), image_size)
    if len(images) < 2:
        raise InputError(f"{source}: has one image; a covariance needs more")
    check_kind(extractor, images.shape[1:], str(source))
    which = ranks.from_first(_digest_of_files(source, image_size) if ranks.is_first else "")
    folder = work / f"{source.resolve().name}-{which[:10]}-{extractor.id}"
    features = extract(images, extractor.network, folder, device, ranks, stop)
    if ranks.is_first:
        layers = [layer for layer in (extractor.features, extractor.spatial, extractor.frames) if layer]
        gaussians = {layer: features.gaussian(layer, extractor.parts(layer, images.shape)) for layer in layers}
        write_statistics(out, extractor.id, gaussians, len(images), features.content_hash())
        shutil.rmtree(folder, ignore_errors=True)
    ranks.wait_for_all()
    return len(images)


def _digest_of_files(source: Path, image_size: int | None) -> str:
    """SHA-256 of names, sizes and times: tells which features in the work folder are of these images, unread."""
    digest = hashlib.sha256(f"{image_size}".encode())
    for name in find_images(source, say=lambda line: None).files if source.is_dir() else [""]:
        digest.update(f"{shown(name)} {stamp(source / name)}\n".encode())
    return digest.hexdigest()
