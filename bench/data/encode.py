"""Encode a folder of images once, so that training reads latents: the posterior of each image and of its mirror image.

The list of images is cut into shards by position; a shard depends on nothing but its images and the settings. So any
number of processes share the work, an interrupted one loses the shard that it was at, and the files are the same.
A shard's record is written last: a shard without one, or that does not fit its record, is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from bench.data.image_folder import Batch, Batches, ImageFolder, UnreadableImage, read_image
from bench.data.latent_index import INDEX, Corrupt, LatentIndex, StoredVae, file_sha256
from bench.data.shards import Settings, agree, read_record, save_shard, shard_path, write_index
from bench.data.vae import Autoencoder
from bench.errors import InputError, RunError
from bench.parallel import Precision

CORRUPT_NAMED = 3  # in an error; index.json lists all


@dataclass(frozen=True)
class Part:
    """The shards that one of `count` processes makes: every `count`-th from number `index`, 0 to `count` - 1."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Encoded:
    """What a call found and did: `made` shards, `kept` whole ones; the index if the shards of all parts are there."""

    index: LatentIndex | None
    made: int
    kept: int
    missing: int


def encode(
    images: ImageFolder,
    out: Path,
    vae: Autoencoder,
    image_size: int,
    precision: Precision,
    shard_size: int,
    batch_size: int,
    workers: int,
    part: Part = Part(),
    skip_corrupt: bool = False,
    on_images: Callable[[int, int], object] = lambda done, total: None,
) -> Encoded:
    """Make a part's shards that are not whole in `out`, and the index once all parts' are there.

    `batch_size` images at a time are encoded, `workers` processes decode and crop them; `on_images` is told how many
    of how many are done.

    Raises:
        InputError: a size that does not fit, other settings than the folder's, or corrupt images without
            `skip_corrupt` (all shards are made first).
        RunError: the disk is full, memory runs out, or an image's posterior is not finite.
    """
    settings = _settings(images, vae, image_size, precision, shard_size)
    agree(out, settings)
    own = range(part.index, settings.shards, part.count)
    todo = [shard for shard in own if not _is_whole(out, shard, settings, images)]
    if todo:
        (out / INDEX).unlink(missing_ok=True)  # an index says that all shards are whole
        _make_shards(out, todo, images, vae, settings, batch_size, workers, on_images)
    records = {shard: read_record(out, shard) for shard in range(settings.shards)}
    there = {shard: record for shard, record in records.items() if record is not None}
    missing = settings.shards - len(there)
    corrupt = [image for shard, record in there.items() if not missing or shard in own for image in record.corrupt]
    if corrupt and not skip_corrupt:
        first = ", ".join(f"{image.path} ({image.reason})" for image in corrupt[:CORRUPT_NAMED])
        raise InputError(
            f"{images.root}: {len(corrupt)} corrupt images of {settings.images}: {first}"
            f"{', ...' if len(corrupt) > CORRUPT_NAMED else ''}; replace them, or leave them out with --skip-corrupt"
        )
    index = None if missing else write_index(out, settings, images.classes, list(there.values()))
    return Encoded(index, len(todo), len(own) - len(todo), missing)


def posterior(vae: Autoencoder, images: Tensor) -> NDArray[np.float16]:
    """What is stored of images (n, 3, H, W) uint8: moments (n, 2, 2C, h, w) of them and of their mirror images."""
    moments = torch.stack([vae.moments(images), vae.moments(images.flip(-1))], dim=1)
    return moments.to(torch.float16).cpu().numpy()


def _settings(
    images: ImageFolder, vae: Autoencoder, image_size: int, precision: Precision, shard_size: int
) -> Settings:
    if image_size % vae.downsampling:
        raise InputError(f"--image-size {image_size}: not a multiple of {vae.downsampling}, the autoencoder's")
    side = image_size // vae.downsampling
    listed = json.dumps([images.classes, images.paths])
    return Settings(
        vae=StoredVae(name=vae.name, sha256=vae.sha256),
        scale_factor=vae.scale_factor,
        latent_shape=(vae.latent_channels, side, side),
        image_size=image_size,
        precision=precision,
        images=len(images.paths),
        images_sha256=hashlib.sha256(listed.encode()).hexdigest(),
        shard_size=shard_size,
    )


def _make_shards(
    out: Path,
    todo: list[int],
    images: ImageFolder,
    vae: Autoencoder,
    settings: Settings,
    batch_size: int,
    workers: int,
    on_images: Callable[[int, int], object],
) -> None:
    cuts = {shard: _cut(settings.positions(shard), batch_size) for shard in todo}
    dataset = Batches(images, settings.image_size, [batch for batches in cuts.values() for batch in batches])
    # One loader for all: its processes decode the next shard's images while this one's are encoded.
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=workers, pin_memory=vae.device.type == "cuda"
    )
    batches = _in_turn(loader)
    done, total = 0, sum(len(settings.positions(shard)) for shard in todo)
    for shard in todo:
        for left in (*out.glob(f".{shard_path(out, shard).stem}.*"), shard_path(out, shard).with_suffix(".json")):
            left.unlink(missing_ok=True)  # what killed writers left, and the record of a damaged file
        positions = settings.positions(shard)
        channels, height, width = settings.latent_shape
        moments = np.empty((len(positions), 2, 2 * channels, height, width), np.float16)
        labels: list[int] = []
        corrupt: list[Corrupt] = []
        for cut in cuts[shard]:
            batch = next(batches)
            if batch.positions:
                moments[len(labels) : len(labels) + len(batch.positions)] = _encoded(vae, batch, images, batch_size)
            labels += [images.labels[position] for position in batch.positions]
            corrupt += [Corrupt(path=images.paths[position], reason=reason) for position, reason in batch.unreadable]
            done += len(cut)
            on_images(done, total)
        save_shard(out, shard, positions.start, moments[: len(labels)], labels, corrupt)


def _cut(positions: range, size: int) -> list[range]:
    return [positions[i : i + size] for i in range(0, len(positions), size)]


def _in_turn(loader: DataLoader[Any]) -> Iterator[Batch]:
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            raise RunError(f"a process that decodes images ended ({error}); finished shards are kept") from None
        yield batch


def _encoded(vae: Autoencoder, batch: Batch, images: ImageFolder, batch_size: int) -> NDArray[np.float16]:
    try:
        moments = posterior(vae, batch.images)
    except torch.OutOfMemoryError:
        raise RunError(
            f"out of memory with --batch-size {batch_size}; finished shards are kept, and a smaller batch continues"
        ) from None
    for position, image in zip(batch.positions, moments, strict=True):
        if not np.isfinite(image).all():
            raise RunError(f"{images.root / images.paths[position]}: its latents by {vae.id} are not finite in float16")
    return moments


def _is_whole(out: Path, shard: int, settings: Settings, images: ImageFolder) -> bool:
    """Whether a shard is there and as its record says, and its corrupt images, if any, still are."""
    record = read_record(out, shard)
    positions = settings.positions(shard)
    if record is None or record.start != positions.start or record.count + len(record.corrupt) != len(positions):
        return False
    if not shard_path(out, shard).exists() or file_sha256(shard_path(out, shard)) != record.sha256:
        return False
    return not any(_is_readable(images.root / image.path) for image in record.corrupt)


def _is_readable(path: Path) -> bool:
    try:
        read_image(path, 1)
    except UnreadableImage:
        return False
    return True
