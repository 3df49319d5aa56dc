"""Encode a folder of images once, so that training reads latents: the posterior of each image and of its mirror image.

The list of images is cut into shards by position; a shard depends on nothing but its images and the settings. So any
number of processes share the work, an interrupted one loses the shard that it was at, and the files are the same.
A shard's record is written last: a shard without one, or that does not fit its record, is made again, and so is one of
whose images one has another content than it had: where sizes or times differ, the content is compared.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from bench.data.image_file import UnreadableImage
from bench.data.image_folder import Batch, Batches, ImageFolder, Source, read_image, source_of
from bench.data.latent_index import INDEX, Corrupt, LatentIndex, StoredVae, file_sha256
from bench.data.shards import (
    Settings,
    ShardRecord,
    Sources,
    agree,
    read_record,
    record_path,
    save_record,
    save_shard,
    shard_path,
    write_index,
)
from bench.data.vae import Autoencoder
from bench.data.walk import stamp
from bench.errors import InputError, RunError
from bench.files.names import shown
from bench.parallel import Precision

CORRUPT_NAMED = 3  # in an error; index.json lists all


@dataclass(frozen=True)
class Part:
    """The shards that one of `count` processes makes: every `count`-th from number `index`, 0 to `count` - 1."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Encoded:
    """What a call found and did: `made` shards, `kept` whole ones; the index if the shards of all parts are there.

    `missing` shards of other parts are not, of which `damaged` have a record that cannot be read.
    """

    index: LatentIndex | None
    made: int
    kept: int
    missing: int
    damaged: tuple[Path, ...] = ()


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
    verify_images: bool = False,
    on_images: Callable[[int, int], object] = lambda done, total: None,
) -> Encoded:
    """Make a part's shards that are not whole in `out`, and the index once all parts' are there.

    `batch_size` images at a time are encoded, `workers` processes decode and crop them; `on_images` is told how many
    of how many are done. `verify_images`: compare the content of all images with what was encoded, not only of those
    whose size or times differ.

    Raises:
        InputError: a size that does not fit, other settings than the folder's, or corrupt images without
            `skip_corrupt` (all shards are made first).
        RunError: the disk is full or gives back something else than was written, memory runs out, or an image's
            posterior is not finite.
    """
    settings = _settings(images, vae, image_size, precision, shard_size)
    agree(out, settings)
    own = range(part.index, settings.shards, part.count)
    todo = [shard for shard in own if not _is_whole(out, shard, settings, images, verify_images)]
    if todo:
        (out / INDEX).unlink(missing_ok=True)  # an index says that all shards are whole
        _make_shards(out, todo, images, vae, settings, batch_size, workers, on_images)
    records = {shard: read_record(out, shard) for shard in range(settings.shards)}
    there = {shard: record for shard, record in records.items() if record is not None}
    lacking = {shard: record_path(out, shard) for shard in records if shard not in there}
    for path in [path for shard, path in lacking.items() if shard in own]:
        raise RunError(f"{path}: was written, and cannot be read back")
    missing, damaged = len(lacking), tuple(path for path in lacking.values() if path.exists())
    corrupt = [image for shard, record in there.items() if not missing or shard in own for image in record.corrupt]
    if corrupt and not skip_corrupt:
        first = ", ".join(f"{image.path} ({image.reason})" for image in corrupt[:CORRUPT_NAMED])
        raise InputError(
            f"{images.root}: {len(corrupt)} corrupt images of {settings.images}: {first}"
            f"{', ...' if len(corrupt) > CORRUPT_NAMED else ''}; replace them, or leave them out with --skip-corrupt"
        )
    index = None if missing else write_index(out, settings, images.classes, list(there.values()))
    return Encoded(index, len(todo), len(own) - len(todo), missing, damaged)


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
    # As in a locale of UTF-8, whatever this one is: the same files give the same hash.
    listed = json.dumps([[_as_utf8(name) for name in names] for names in (images.classes, images.paths)])
    return Settings(
        vae=StoredVae(name=shown(vae.name), sha256=vae.sha256),
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
        for left in (*out.glob(f".{shard_path(out, shard).stem}.*"), record_path(out, shard)):
            left.unlink(missing_ok=True)  # what killed writers left, and the record of a damaged file
        positions = settings.positions(shard)
        channels, height, width = settings.latent_shape
        moments = np.empty((len(positions), 2, 2 * channels, height, width), np.float16)
        labels: list[int] = []
        corrupt: list[Corrupt] = []
        sources: list[Source] = []
        for cut in cuts[shard]:
            batch = next(batches)
            if batch.positions:
                moments[len(labels) : len(labels) + len(batch.positions)] = _encoded(vae, batch, images, batch_size)
            labels += [images.labels[position] for position in batch.positions]
            corrupt += [
                Corrupt(path=shown(images.paths[position]), reason=reason) for position, reason in batch.unreadable
            ]
            sources += batch.sources
            done += len(cut)
            on_images(done, total)
        save_shard(out, shard, positions.start, moments[: len(labels)], labels, corrupt, _sources(sources))


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


def _is_whole(out: Path, shard: int, settings: Settings, images: ImageFolder, verify_images: bool) -> bool:
    """Whether a shard is there and as its record says, and its images are those that it was made of."""
    record = read_record(out, shard)
    positions = settings.positions(shard)
    if record is None or record.start != positions.start or record.count + len(record.corrupt) != len(positions):
        return False
    if not shard_path(out, shard).exists() or file_sha256(shard_path(out, shard)) != record.sha256:
        return False
    paths = [images.paths[position] for position in positions]
    if not _are_the_same(out, shard, record, [images.root / path for path in paths], verify_images):
        return False
    corrupt = {image.path for image in record.corrupt}
    return not any(_is_readable(images.root / path) for path in paths if shown(path) in corrupt)


def _are_the_same(out: Path, shard: int, record: ShardRecord, paths: list[Path], verify_images: bool) -> bool:
    """Whether image files are those that a shard was made of, by size and times, or, where these differ, by content."""
    if record.sources is None:  # made before they were recorded
        return not verify_images
    if not verify_images and record.sources.stamps == _joined(stamp(path).encode() for path in paths):
        return True
    found = _sources([source_of(path) for path in paths])
    if found.content != record.sources.content:
        return False
    if found != record.sources:  # copied, say: what is compared first the next time
        save_record(out, shard, record.model_copy(update={"sources": found}))
    return True


def _sources(sources: list[Source]) -> Sources:
    return Sources(
        stamps=_joined(source.stamp.encode() for source in sources),
        content=_joined(source.sha256 for source in sources),
    )


def _joined(parts: Iterable[bytes]) -> str:
    """SHA-256, in hex, of several values in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _as_utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _is_readable(path: Path) -> bool:
    try:
        read_image(path, 1)
    except UnreadableImage:
        return False
    return True
