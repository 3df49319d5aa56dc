"""Latents normalised per channel: (z - mean) / std, by the mean and the standard deviation of the data set.

`ditbench encode` has computed both (`mean` and `std` of index.json). Weights do not show them, so a run keeps those
that it was trained with in its folder, and its samples are decoded by these. Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError, model_validator

from bench.data.latent_index import AGAIN, INDEX, LatentIndex, Sha256, Stored, data_root, read_index
from bench.errors import InputError
from bench.files.atomic import write_json
from bench.schema import describe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.recipe.parts import DataConfig

KEPT = "normalization.json"
# Of latents, which are about 1: a channel that varies less is constant but for rounding.
LEAST_STD = 1e-6


class Normalization(Stored):
    """Mean and standard deviation per channel of the scaled latents `latents`, mirror images included."""

    latents: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _can_divide(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"std: has {len(self.std)} channels, mean {len(self.mean)}")
        for channel, std in enumerate(self.std):
            if std < LEAST_STD:
                raise ValueError(f"std: {std:g} of channel {channel}; accepted: at least {LEAST_STD:g}")
        return self

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps([self.latents, self.mean, self.std]).encode()).hexdigest()

    @property
    def id(self) -> str:
        """The latents and eight digits of the checksum, as the .json beside samples says it."""
        return f"{self.latents}@{self.sha256[:8]}"

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (1, C, 1, 1) float32."""
        import torch

        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float32, device=device)[:, None, :, None, None]
        return mean, std


class _Kept(Normalization):
    checksum: Sha256

    @model_validator(mode="after")
    def _unaltered(self) -> Self:
        if self.checksum != self.sha256:
            raise ValueError(f"checksum: {self.checksum[:8]}, but its content gives {self.sha256[:8]}")
        return self


def normalization_of(index: LatentIndex, folder: Path) -> Normalization:
    """That of the latents in `folder`.

    Raises:
        InputError: not one mean and standard deviation for each channel, or a channel that does not vary.
    """
    channels = index.latent_shape[0]
    if len(index.mean) != channels:
        raise InputError(f"{folder / INDEX}: mean: has {len(index.mean)} of {channels} channels; {AGAIN}")
    try:
        return Normalization(latents=index.name, mean=index.mean, std=index.std)
    except ValidationError as error:
        raise InputError(f"{folder / INDEX}: {describe(error, Normalization)} (data.normalize)") from None


def keep_of(data: DataConfig, run: Path) -> str | None:
    """`keep` what a run's latents are normalised by, if they are; returns what is wrong, for rank 0 to tell."""
    if not data.facts.normalized:
        return None
    latents = data_root() / data.name
    try:
        keep(run, normalization_of(read_index(latents), latents))
    except InputError as error:
        return str(error)
    return None


def kept_of(data: DataConfig, run: Path) -> Normalization | None:
    """`read_kept` of a run whose latents are normalised."""
    return read_kept(run) if data.facts.normalized else None


def keep(run: Path, found: Normalization) -> None:
    """Write down at a run's first start what its latents are normalised by; at later ones compare.

    Raises:
        InputError: the run was begun with others, or it is not known any more with which.
        RunError: the disk is full.
    """
    path = run / KEPT
    if not path.exists() and not any((run / "checkpoints").glob("*.safetensors")):
        write_json(path, {**found.model_dump(mode="json"), "checksum": found.sha256})
    elif (kept := read_kept(run)) != found:
        raise InputError(
            f"{path}: the run was trained with mean {_listed(kept.mean)} and std {_listed(kept.std)} of "
            f"{kept.latents}, now {found.latents} has {_listed(found.mean)} and {_listed(found.std)}; train a new run"
        )


def read_kept(run: Path) -> Normalization:
    """What a run's latents were normalised by.

    Raises:
        InputError: the file is missing, damaged, or not one of these.
    """
    path = run / KEPT
    needed = "samples of this run are decoded with the mean and std of its latents (data.normalize)"
    try:
        kept = _Kept.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {needed}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {needed}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, _Kept)}; {needed}") from None
    return Normalization(latents=kept.latents, mean=kept.mean, std=kept.std)


def _listed(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"
