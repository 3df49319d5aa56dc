"""Weights of feature networks: files of tensors, told apart by their hash, of which nothing is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import InputError
from models.files.assets import check_content
from models.files.tensor_files import check_archive, check_finite, check_floats

NAMED_TENSORS = 3  # of each kind, in a message
COUNTER = ".num_batches_tracked"


def weights_digest(path: Path) -> str:
    """The first eight hex digits of a file's SHA-256: what tells weights apart in a score's key.

    Raises:
        DamagedAsset: it is another file than the one that was fetched or published.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    check_content(path, digest)
    return digest[:8]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file that holds a state dict, on the CPU; nothing in it is executed.

    Raises:
        InputError: no such file, not a state dict that can be read so, or weights that are quantised or not finite.
    """
    try:
        check_archive(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception:  # damaged files raise whatever their bytes lead to
        raise InputError(f"{path}: damaged, or not a PyTorch file of tensors only (others are not unpickled)") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise InputError(f"{path}: not a state dict; accepted: names and tensors, as the published file has them")
    try:
        # A counter of training steps is no weight (`check_weights`).
        check_floats({name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)})
        check_finite(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return tensors


def check_weights(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, network: str) -> None:
    """Compare names and shapes of a file's tensors with a network's own.

    Raises:
        InputError: they differ, with the names (and how many more there are).
    """
    # Counts the training steps of a batch normalisation; inference does not use it, the published file leaves it out.
    names = {name for name in expected if not name.endswith(COUNTER)}
    shapes = [
        f"{name} {tuple(given[name].shape)} in place of {tuple(expected[name].shape)}"
        for name in sorted(names & given.keys())
        if given[name].shape != expected[name].shape
    ]
    kinds = {"missing": sorted(names - given.keys()), "unexpected": sorted(given.keys() - expected.keys())}
    problems = [f"{kind} {_some(named)}" for kind, named in (kinds | {"wrong shape": shapes}).items() if named]
    if problems:
        raise InputError(f"{path}: not the weights of {network}: {'; '.join(problems)}")


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_TENSORS
    return ", ".join(names[:NAMED_TENSORS]) + (f" (and {more} more)" if more > 0 else "")
