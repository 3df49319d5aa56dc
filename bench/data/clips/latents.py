"""Latents of clips that others have made: a folder of arrays, read as they are.

<data root>/<folder>/
  latents-*.npy   float16 or float32 (n, C, T, h, w): of n clips, frame by frame, times the autoencoder's scale factor
  labels.npy      integers (N,), in the order of the files' names

Their autoencoder is that of images, as in Open-Sora 1.0: samples are decoded frame by frame. Importing this module
imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.data import DatasetFacts
from bench.device import sent
from bench.errors import InputError
from models.dit import VAE_DOWNSAMPLING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.score.reference import Reference

SHARDS, LABELS = "latents-*.npy", "labels.npy"
LATENT_CHANNELS = 4  # of Stable Diffusion's autoencoders
SIZES = ("length", "num_classes", "frames", "image_size")


@dataclass(frozen=True)
class ClipLatentOptions:
    """Latents are in the folder `folder` of the data root; `vae`: the autoencoder that made them; `image_size`: pixels
    a side of a frame.
    """

    folder: str | None = None
    vae: str | None = None
    length: int | None = None
    num_classes: int | None = None
    frames: int | None = None
    image_size: int | None = None


class _ClipLatents:
    options = ClipLatentOptions

    def facts(self, name: str, options: ClipLatentOptions) -> DatasetFacts:
        given: dict[str, Any] = vars(options)
        if missing := [key for key, value in given.items() if value is None]:
            raise ValueError(f"{missing[0]}: missing; {name} needs {', '.join(given)}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", given["folder"]):
            accepted = "a folder name of letters, digits, dots, underscores and hyphens"
            raise ValueError(f"folder: {given['folder']!r}; accepted: {accepted}")
        if bad := [key for key in SIZES if given[key] <= 0]:
            raise ValueError(f"{bad[0]}: {given[bad[0]]}; accepted: greater than 0")
        frames, pixels = given["frames"], given["image_size"]
        if pixels % VAE_DOWNSAMPLING:
            raise ValueError(f"image_size: {pixels}; accepted: multiples of {VAE_DOWNSAMPLING}")
        side = pixels // VAE_DOWNSAMPLING
        shape, image_shape = (LATENT_CHANNELS, frames, side, side), (3, frames, pixels, pixels)
        return DatasetFacts(given["length"], shape, image_shape, given["num_classes"], latents=True)

    def load(self, name: str, options: ClipLatentOptions, device: torch.device) -> ClipExamples:
        import numpy as np

        shards, labels = self._opened(name, options)
        for path, shard in shards.items():
            for clip in shard:
                if not np.isfinite(clip).all():
                    raise InputError(f"{path}: has numbers that are not finite")
        return ClipExamples([*shards.values()], labels, self.facts(name, options).num_classes, device)

    def reference(self, name: str, options: ClipLatentOptions) -> Reference:
        raise AssertionError("samples of latents are compared with the reference that the recipe names")

    def check_ready(self, name: str, options: ClipLatentOptions) -> None:
        self._opened(name, options)

    def _opened(
        self, name: str, options: ClipLatentOptions
    ) -> tuple[dict[Path, NDArray[np.floating]], NDArray[np.int64]]:
        """All shards, mapped, and labels.

        Raises:
            InputError: one is missing, damaged, or not what the options say.
        """
        import numpy as np

        from bench.data.latent_index import data_root

        facts, folder = self.facts(name, options), data_root() / str(options.folder)
        shards = {path: _mapped(path) for path in sorted(folder.glob(SHARDS))}
        if not shards:
            raise InputError(f"{folder}: no {SHARDS} there; data.folder is a folder of latents of clips")
        for path, shard in shards.items():
            if shard.dtype not in (np.float16, np.float32) or shard.shape[1:] != facts.shape:
                wanted = f"float16 or float32 (n, {', '.join(map(str, facts.shape))})"
                raise InputError(f"{path}: {shard.dtype} {shard.shape}; by the recipe's data: {wanted}")
        count, labels = sum(map(len, shards.values())), _mapped(folder / LABELS)
        if count != facts.length:
            raise InputError(f"data.length: {facts.length}, but {folder} has {count} clips")
        if labels.dtype.kind not in "iu" or labels.shape != (count,):
            raise InputError(f"{folder / LABELS}: {labels.dtype} {labels.shape}; accepted: integers ({count},)")
        if labels.min() < 0 or labels.max() >= facts.num_classes:
            found = f"labels of {labels.min()} to {labels.max()}"
            raise InputError(f"{folder / LABELS}: {found}; accepted: 0 to {facts.num_classes - 1}, by data.num_classes")
        return shards, labels.astype(np.int64)


class ClipExamples:
    """A `bench.data.Dataset` of mapped arrays, which are read when they are asked for."""

    def __init__(
        self, shards: list[NDArray[np.floating]], labels: NDArray[np.int64], num_classes: int, device: torch.device
    ) -> None:
        self.num_classes = num_classes
        self._shards, self._labels, self._device = shards, labels, device

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """x (N, C, T, h, w) float32 and labels (N,) of `indices[share]`; nothing is drawn."""
        import numpy as np
        import torch

        own = indices[share].numpy()
        starts = np.cumsum([0, *map(len, self._shards)])
        shards = np.searchsorted(starts, own, side="right") - 1
        clips = [self._shards[shard][index - starts[shard]] for shard, index in zip(shards, own, strict=True)]
        x = torch.from_numpy(np.stack(clips).astype(np.float32))
        return sent(x, self._device), sent(torch.from_numpy(self._labels[own]), self._device)

    def read_ahead(self, indices: Tensor) -> None:
        """Left to the page cache."""


def _mapped(path: Path) -> NDArray[Any]:
    """A .npy file's array, mapped.

    Raises:
        InputError: it is missing or damaged.
    """
    import numpy as np

    from bench.data.moments import NO_NPY

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except NO_NPY as error:
        raise InputError(f"{path}: not a whole .npy file ({error})") from None
    if not isinstance(array, np.ndarray) or not array.ndim or not array.size:
        raise InputError(f"{path}: not a .npy file of an array that is not empty")
    return array


CLIP_LATENTS = _ClipLatents()
