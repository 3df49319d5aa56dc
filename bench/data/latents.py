"""Latents on disk, as `ditbench encode` writes them, and how training reads them.

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
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from bench.errors import InputError
from bench.schema import describe

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.data.vae import Autoencoder

INDEX = "index.json"
LABELS = "labels.npy"
AGAIN = "`ditbench encode` with the same arguments makes it again"

# A posterior's log variances are clamped to this range, as diffusers' DiagonalGaussianDistribution does.
LOG_VARIANCE_RANGE = (-30.0, 20.0)

# Float sums of the same numbers may differ in their last digits between versions of numpy.
PROBE_TOLERANCE = 1e-6

# More batches are not read ahead: the oldest is forgotten.
MAX_PENDING = 4

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


class Latents:
    """Training data (a `bench.data.Dataset`): every batch is a new draw from the posteriors of its images."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Open a folder for training on `device`; moments stay on disk, in the page cache if they fit.

        Raises:
            InputError: a file is missing, damaged, or not what index.json says; it is named.
        """
        import torch

        from bench.data.moments import Moments, open_shard

        self.index = read_index(folder)
        self.num_classes = self.index.num_classes
        shape = self.index.moments_shape
        self._moments = Moments([open_shard(folder / s.file, s.count, shape) for s in self.index.shards])
        self._check_probe(folder)
        self._labels = torch.from_numpy(_read_labels(folder, self.index)).long()
        self._device = device
        self._pending: dict[bytes, _Reading] = {}

    def __len__(self) -> int:
        return self.index.count

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws from the posteriors of `indices[share]`, each flipped or not: x (N, C, h, w) float32, scaled; y (N,).

        Args:
            indices: of the whole batch, (B,) int64 on the CPU.
            share: the rows to return.
            random: on the device; noise and flips are drawn for the whole batch, so that any number of ranks gets
                the same examples.

        Raises:
            IndexError: an index beyond the last.
        """
        import torch

        own = indices[share]
        moments, rows = self._take(own)
        moments, rows = moments.to(self._device, non_blocking=True), rows.to(self._device, non_blocking=True)
        size = len(indices)
        noise = torch.randn((size, *self.index.latent_shape), generator=random, device=self._device)[share]
        flipped = (torch.rand(size, generator=random, device=self._device) < 0.5)[share]
        chosen = moments.flatten(0, 1).index_select(0, 2 * rows + flipped)
        mean, log_variance = chosen.float().chunk(2, dim=1)
        std = log_variance.clamp_(*LOG_VARIANCE_RANGE).mul_(0.5).exp_()
        x = noise.mul_(std).add_(mean).mul_(self.index.scale_factor)
        return x, self._labels[own].to(self._device, non_blocking=True)

    def read_ahead(self, indices: Tensor) -> None:
        """Begin reading what `batch` will be asked for, `indices[share]` (N,), in a thread of its own.

        Raises:
            IndexError: an index beyond the last.
        """
        key = indices.numpy().tobytes()
        if key in self._pending:
            return
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"indices from {int(indices.min())} to {int(indices.max())} of {len(self)} latents")
        while len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[key] = _Reading(indices, self._buffer(len(indices)), self._moments.gather)

    def _take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Moments (N, 2, 2C, h, w) float16 in some order, and the row of each index (N,)."""
        reading = self._pending.pop(indices.numpy().tobytes(), None)
        found = reading.result() if reading else None
        return found or _read(indices, self._buffer(len(indices)), self._moments.gather)

    def _buffer(self, size: int) -> Tensor:
        import torch

        # Made in the caller's thread, whose current device is the right one to pin for.
        shape = (size, *self.index.moments_shape)
        return torch.empty(shape, dtype=torch.float16, pin_memory=self._device.type == "cuda")

    def _check_probe(self, folder: Path) -> None:
        import numpy as np

        stored = self.index.probe
        found = self._moments.probe(stored.indices)
        for what in ("mean", "std"):
            ours, theirs = getattr(found, what), getattr(stored, what)
            if len(ours) != len(theirs) or not np.allclose(ours, theirs, PROBE_TOLERANCE, PROBE_TOLERANCE):
                raise InputError(
                    f"{folder / INDEX}: probe.{what}: {theirs}, but the shards give {ours}: they were altered, and "
                    f"`ditbench encode` with the same arguments finds which and makes them again"
                )


Gather = Callable[["NDArray[np.int64]", "NDArray[np.float16]"], "NDArray[np.int64]"]


def _read(indices: Tensor, buffer: Tensor, gather: Gather) -> tuple[Tensor, Tensor]:
    import torch

    return buffer, torch.from_numpy(gather(indices.numpy(), buffer.numpy()))


class _Reading:
    """A batch that a thread reads. The thread is a daemon: a process that ends does not wait for it."""

    def __init__(self, indices: Tensor, buffer: Tensor, gather: Gather) -> None:
        self._arguments = (indices, buffer, gather)
        self._result: tuple[Tensor, Tensor] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._result = _read(*self._arguments)

    def result(self) -> tuple[Tensor, Tensor] | None:
        """What was read; None in a process that was forked while it was being read, where the thread is not."""
        self._thread.join()
        return self._result


def _read_labels(folder: Path, index: LatentIndex) -> NDArray[np.int32]:
    """All labels, (N,), checked by their checksum."""
    import numpy as np

    path = folder / index.labels.file
    try:
        digest = file_sha256(path)
        labels = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {AGAIN}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); {AGAIN}") from None
    if digest != index.labels.sha256:
        raise InputError(f"{path}: its SHA-256 begins with {digest[:8]}, in {INDEX} {index.labels.sha256[:8]}; {AGAIN}")
    if labels.dtype != np.int32 or labels.shape != (index.count,):
        raise InputError(f"{path}: {labels.dtype} {labels.shape}, expected int32 {(index.count,)}; {AGAIN}")
    return labels
