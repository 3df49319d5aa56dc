"""Latents on disk, as `ditbench encode` writes them.

<data root>/<name>/
  shard-00000.npy     float16 (n, 2, 2C, h, w): of n images the posterior's means and log variances, not scaled, of
                      the image as it is and of the flipped one
  shard-00000.json    its record (see `bench.data.encode`)
  labels.npy          int32 (N,)
  settings.json       what all processes that encode must agree on
  index.json          the last file that is written: what is in the others

Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from bench.errors import InputError
from bench.schema import describe

if TYPE_CHECKING:
    from bench.data.vae import Autoencoder

INDEX = "index.json"
LABELS = "labels.npy"
AGAIN = "`ditbench encode` with the same arguments makes it again"

# A posterior's log variances are clamped to this range, as diffusers' DiagonalGaussianDistribution does.
LOG_VARIANCE_RANGE = (-30.0, 20.0)

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Stored(BaseModel):
    """Part of a JSON file: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Corrupt(Stored):
    """An image that could not be read: its path under the image folder, and why."""

    path: str
    reason: str


class StoredVae(Stored):
    """The autoencoder that encoded."""

    name: str
    sha256: Sha256


class StoredEncoder(Stored):
    """The text encoder of captions."""

    name: str
    sha256: Sha256


class Shard(Stored):
    """A file of `count` images."""

    file: str
    count: PositiveInt
    sha256: Sha256


class Labels(Stored):
    """The file of all labels."""

    file: str
    sha256: Sha256


class Probe(Stored):
    """Mean and standard deviation, per channel, of the stored means of some images, not flipped, not scaled."""

    indices: tuple[NonNegativeInt, ...] = Field(min_length=1)
    mean: tuple[float, ...]
    std: tuple[float, ...]


class LatentIndex(Stored):
    """What index.json says of a folder of latents.

    Attributes:
        count: images, after leaving out `corrupt` ones.
        classes: folder names; a label is a position in it.
        latent_shape: (C, h, w).
        scale_factor: what samples of the posterior are multiplied by.
        mean, std: of the scaled samples of the posterior, per channel, both flips.
        versions: package -> its version, or several where shards were made with different ones.
    """

    format: Literal[1] = 1
    name: str
    count: PositiveInt
    num_classes: PositiveInt
    classes: tuple[str, ...]
    image_size: PositiveInt
    latent_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    scale_factor: PositiveFloat
    vae: StoredVae
    crop: Literal["adm-center"] = "adm-center"
    flips: Literal[True] = True
    dtype: Literal["float16"] = "float16"
    precision: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    probe: Probe
    shards: tuple[Shard, ...]
    labels: Labels
    corrupt: tuple[Corrupt, ...]
    versions: dict[str, str]

    @property
    def moments_shape(self) -> tuple[int, int, int, int]:
        """(2, 2C, h, w): what is stored of one image."""
        channels, height, width = self.latent_shape
        return 2, 2 * channels, height, width


def data_root() -> Path:
    """Where folders of latents are: $DITBENCH_DATA, else `data`."""
    return Path(os.environ.get("DITBENCH_DATA") or "data").expanduser()


def read_index(folder: Path) -> LatentIndex:
    """What a folder of latents holds; none of its other files is opened.

    Raises:
        InputError: no index, or not one of this format.
    """
    path = folder / INDEX
    try:
        index = LatentIndex.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `ditbench encode` writes it once all shards are there") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, LatentIndex)}") from None
    if sum(shard.count for shard in index.shards) != index.count:
        raise InputError(f"{path}: count: {index.count}, but its shards hold {sum(s.count for s in index.shards)}")
    if max(index.probe.indices) >= index.count:
        raise InputError(f"{path}: probe.indices: {max(index.probe.indices)} is beyond count ({index.count})")
    return index


def check(index: LatentIndex, length: int, num_classes: int, image_size: int, vae: str) -> None:
    """Compare latents with what a recipe says of its data.

    Raises:
        InputError: the key of the recipe that differs, and both values.
    """
    for key, recipe, stored in (
        ("vae", vae, index.vae.name),
        ("image_size", image_size, index.image_size),
        ("length", length, index.count),
        ("num_classes", num_classes, index.num_classes),
    ):
        if recipe != stored:
            raise InputError(f"data.{key}: {recipe}, but the latents {index.name} have {stored} in their {INDEX}")


def check_decoder(index: LatentIndex, decoder: Autoencoder) -> None:
    """Compare latents with the autoencoder that decodes samples; it need not be the one that encoded.

    Raises:
        InputError: another scale factor, or latents of another shape.
    """
    channels, height, _ = index.latent_shape
    for what, theirs, ours in (
        ("scale factor", decoder.scale_factor, index.scale_factor),
        ("latent channels", decoder.latent_channels, channels),
        ("downsampling", decoder.downsampling, index.image_size // height),
    ):
        if theirs != ours:
            raise InputError(
                f"evaluation.decoder: {decoder.id} has a {what} of {theirs}, the latents {index.name} one of {ours}"
            )


def file_sha256(path: Path) -> str:
    """Hex digits of a file's SHA-256. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
