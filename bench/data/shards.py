"""How latents are written: the settings, the shards with their records, and the index at last.

A shard's record is written after the shard, and the index after all records: what has one is whole.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from bench.data.latent_index import (
    AGAIN,
    INDEX,
    LABELS,
    LOG_VARIANCE_RANGE,
    Corrupt,
    Labels,
    LatentIndex,
    Sha256,
    Shard,
    Stored,
    StoredEncoder,
    StoredVae,
    file_sha256,
)
from bench.data.moments import Moments, open_shard
from bench.errors import InputError
from bench.files.atomic import replace, write_json
from bench.files.names import shown
from bench.parallel import Precision

SETTINGS = "settings.json"
PROBED = 256  # images, at most
SUMMED_AT_A_TIME = 64  # images, as float64


class Settings(Stored):
    """What all processes that encode to one folder must agree on.

    Attributes:
        images: how many are listed, `images_sha256`: of their paths and classes.
    """

    vae: StoredVae
    scale_factor: PositiveFloat
    latent_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    image_size: PositiveInt
    precision: Precision
    images: PositiveInt
    images_sha256: Sha256
    shard_size: PositiveInt

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_size)

    def positions(self, shard: int) -> range:
        """Of a shard's images in the list."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.images))


class Sources(Stored):
    """The image files that a shard was made of, corrupt ones among them: hashes of their sizes and times, and of their
    content."""

    stamps: Sha256
    content: Sha256


class ShardRecord(Stored):
    """What is in a shard, and its part of the statistics.

    Attributes:
        start: position of its first image in the list.
        count: images in it; of those listed, `corrupt` ones are not.
        mean_sum, square_sum, variance_sum: over images, flips and pixels, per channel, of the posterior's means,
            their squares and its variances; not scaled.
        sources: None in records of before they were kept.
    """

    start: NonNegativeInt
    count: NonNegativeInt
    labels: tuple[NonNegativeInt, ...]
    sha256: Sha256
    mean_sum: tuple[float, ...]
    square_sum: tuple[float, ...]
    variance_sum: tuple[float, ...]
    corrupt: tuple[Corrupt, ...]
    versions: dict[str, str]
    sources: Sources | None = None


def agree(out: Path, settings: Stored) -> None:
    """Write the settings if no process has yet, else compare them with what the first one wrote.

    Raises:
        InputError: other settings; the key and both values.
    """
    path = out / SETTINGS
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".settings-{uuid.uuid4().hex}"  # not tempfile's: that is for its owner alone
    try:
        with aside.open("x", encoding="utf-8") as file:
            json.dump(settings.model_dump(mode="json"), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, path)  # unlike a rename, never over the file of another process
    finally:
        aside.unlink(missing_ok=True)
    stored = parse(type(settings), path)
    if stored is None:
        raise InputError(f"{path}: not the settings of `ditbench encode`; choose another --out, or delete the folder")
    for key, ours in settings:
        if (theirs := getattr(stored, key)) != ours:
            raise InputError(f"{path}: {key}: {_short(theirs)} there, {_short(ours)} now; choose another --out")


def _short(value: object) -> str:
    return f"{value.name}@{value.sha256[:8]}" if isinstance(value, StoredVae | StoredEncoder) else str(value)


def shard_path(out: Path, shard: int) -> Path:
    """Where a shard's moments are."""
    return out / f"shard-{shard:05d}.npy"


def record_path(out: Path, shard: int) -> Path:
    """Where a shard's record is."""
    return shard_path(out, shard).with_suffix(".json")


def read_record(out: Path, shard: int) -> ShardRecord | None:
    """The record of a shard, or None if it is not there or not one."""
    return parse(ShardRecord, record_path(out, shard))


def save_shard(
    out: Path,
    shard: int,
    start: int,
    moments: NDArray[np.float16],
    labels: list[int],
    corrupt: list[Corrupt],
    sources: Sources | None = None,
) -> None:
    """Write a shard and, once it is whole on disk, its record.

    Raises:
        RunError: the disk is full.
    """
    path = shard_path(out, shard)
    save_array(path, moments)
    mean_sum, square_sum, variance_sum = _sums(moments)
    record = ShardRecord(
        start=start,
        count=len(moments),
        labels=tuple(labels),
        sha256=file_sha256(path),
        mean_sum=mean_sum,
        square_sum=square_sum,
        variance_sum=variance_sum,
        corrupt=tuple(corrupt),
        versions={"torch": torch.__version__, "diffusers": diffusers.__version__, "pillow": PIL.__version__},
        sources=sources,
    )
    save_record(out, shard, record)


def save_record(out: Path, shard: int, record: ShardRecord) -> None:
    """Write a shard's record. Raises RunError."""
    write_json(record_path(out, shard), record.model_dump(mode="json"))


def write_index(out: Path, settings: Settings, classes: tuple[str, ...], records: list[ShardRecord]) -> LatentIndex:
    """Write labels.npy and index.json from the records of all shards: the same files whoever writes them.

    Raises:
        InputError: no image is left.
    """
    count = sum(record.count for record in records)
    if not count:
        raise InputError(f"{out}: all {settings.images} images are corrupt")
    shards = tuple(
        Shard(file=shard_path(out, number).name, count=record.count, sha256=record.sha256)
        for number, record in enumerate(records)
        if record.count
    )
    labels = np.array([label for record in records for label in record.labels], np.int32)
    save_array(out / LABELS, labels)
    channels, height, width = settings.latent_shape
    moments_shape = (2, 2 * channels, height, width)
    moments = Moments([open_shard(out / shard.file, shard.count, moments_shape) for shard in shards])
    sums = [(record.mean_sum, record.square_sum, record.variance_sum) for record in records]
    mean, std = _statistics(sums, count * 2 * height * width, settings.scale_factor)
    index = LatentIndex(
        name=shown(out.resolve().name),
        count=count,
        num_classes=len(classes),
        classes=tuple(shown(name) for name in classes),
        image_size=settings.image_size,
        latent_shape=settings.latent_shape,
        scale_factor=settings.scale_factor,
        vae=settings.vae,
        precision=settings.precision,
        mean=mean,
        std=std,
        probe=moments.probe(np.unique(np.linspace(0, count - 1, PROBED).astype(int)).tolist()),
        shards=shards,
        labels=Labels(file=LABELS, sha256=file_sha256(out / LABELS)),
        corrupt=tuple(image for record in records for image in record.corrupt),
        versions=joined_versions([record.versions for record in records]),
    )
    write_json(out / INDEX, index.model_dump(mode="json"))
    return index


T = TypeVar("T", bound=Stored)
# Of a shard: `mean_sum`, `square_sum` and `variance_sum` of its record.
Sums = tuple[tuple[float, ...], ...]


def parse(schema: type[T], path: Path) -> T | None:
    """A JSON file, or None if it is not there or not one of ours."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file, whole or not at all. Raises RunError."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    replace(path, write)


def _sums(moments: NDArray[np.float16]) -> Sums:
    """Of (n, 2, 2C, h, w): sums of the means, of their squares and of the variances, per channel."""
    channels = moments.shape[2] // 2
    sums = np.zeros((3, channels))
    for start in range(0, len(moments), SUMMED_AT_A_TIME):
        block = moments[start : start + SUMMED_AT_A_TIME].astype(np.float64)
        means, log_variances = block[:, :, :channels], block[:, :, channels:]
        variances = np.exp(log_variances.clip(*LOG_VARIANCE_RANGE))
        sums += [quantity.sum(axis=(0, 1, 3, 4)) for quantity in (means, means**2, variances)]
    return tuple(tuple(row) for row in sums.tolist())


def _statistics(sums: list[Sums], n: int, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of scaled samples of the posteriors, by the law of total variance."""
    means, squares, variances = np.sum(sums, axis=0) / n
    std = np.sqrt(squares - means**2 + variances)
    return tuple((scale * means).tolist()), tuple((scale * std).tolist())


def check_statistics(folder: Path, index: LatentIndex) -> None:
    """Compare `mean` and `std` of index.json with what its shards give: their records say it, else they are summed.

    Raises:
        InputError: they are of other latents, or a shard without a record cannot be read.
    """

    def sums(shard: Shard) -> Sums:
        record = parse(ShardRecord, (folder / shard.file).with_suffix(".json"))
        if record is not None and record.sha256 == shard.sha256:
            return record.mean_sum, record.square_sum, record.variance_sum
        return _sums(open_shard(folder / shard.file, shard.count, index.moments_shape))

    _, height, width = index.latent_shape
    n = index.count * 2 * height * width
    mean, std = _statistics([sums(shard) for shard in index.shards], n, index.scale_factor)
    for key, found, stored in (("mean", mean, index.mean), ("std", std, index.std)):
        if len(found) != len(stored) or not np.allclose(found, stored, rtol=1e-6, atol=1e-6 * max(std)):
            raise InputError(f"{folder / INDEX}: {key}: {list(stored)}, but its shards give {list(found)}; {AGAIN}")


def joined_versions(versions: list[dict[str, str]]) -> dict[str, str]:
    """Of each package, the versions that made shards."""
    return {name: ", ".join(sorted({v[name] for v in versions if name in v})) for name in sorted(versions[0])}
