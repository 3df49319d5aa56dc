"""Checkpoints that survive a crash at any instant.

A file is written aside, synced, and renamed; its header carries a checksum of its tensors. So a checkpoint is either
whole or recognised as not, and the newest whole one is used. safetensors only: nothing is ever unpickled.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.averages import EMA
from bench.files.atomic import replace, wait_for_file
from bench.files.run_folder import STATES_KEPT, weights_path
from models.files.tensor_files import HEADER, checksum, read_safetensors

log = logging.getLogger(__name__)


class CorruptCheckpoint(Exception):
    """A checkpoint file that is truncated, altered, not one, or another than its place and name say."""

    def __init__(self, path: Path, problem: object) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors with a checksum.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file stays.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in no fixed order, and equal checkpoints are to be equal files.
    metadata = metadata or {}
    header = {HEADER: json.dumps({**metadata, "sha256": checksum(tensors, metadata)})}

    def write(aside: Path) -> None:
        try:
            save_file(tensors, aside, metadata=header)
        except SafetensorError as error:  # its way to say that the disk is full
            raise OSError(str(error)) from None

    replace(path, write)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a file that `save_tensors` wrote.

    Raises:
        CorruptCheckpoint: the file is truncated, altered, or not one of ours.
    """
    try:
        tensors, metadata = read_safetensors(path)
        return tensors, json.loads(metadata[HEADER])
    except (OSError, KeyError, ValueError, RecursionError) as error:
        raise CorruptCheckpoint(path, error) from None


def save_state(folder: Path, step: int, tensors: dict[str, Tensor], kept: int | None = None) -> None:
    """Write a step's training state, then remove what killed writers left, and all states but the newest `STATES_KEPT`
    and that of step `kept`.
    """
    save_tensors(_state_path(folder, step), tensors, {"step": str(step)})
    for older, path in _states(folder)[:-STATES_KEPT]:
        if older != kept:
            path.unlink()
    for path in folder.glob(".*.safetensors.*"):  # left by a writer that was killed; a run has one at a time
        path.unlink()


def drop_states_after(folder: Path, step: int) -> None:
    """Remove the training states beyond `step`."""
    for later, path in _states(folder):
        if later > step:
            path.unlink()


def load_state(folder: Path, step: int) -> dict[str, Tensor]:
    """The training state of a step that another rank has read already.

    Raises:
        CorruptCheckpoint: it does not appear here, or is not whole.
    """
    wait_for_file(_state_path(folder, step))
    return load_tensors(_state_path(folder, step))[0]


def load_newest_state(folder: Path, at_most: int) -> tuple[int, dict[str, Tensor]] | None:
    """The newest whole training state up to step `at_most`, or None; a damaged one is passed over with a warning."""
    for step, path in reversed(_states(folder)):
        if step > at_most:
            continue
        try:
            return step, load_tensors(path)[0]
        except CorruptCheckpoint as error:
            log.warning("not a whole checkpoint, using the one before it: %s", error)
    return None


def load_weights(folder: Path, step: int, name: str = EMA, run: str | None = None) -> dict[str, Tensor] | None:
    """Weights of a kept step, or None if they are missing or damaged (the latter with a warning)."""
    try:
        return read_weights(folder, step, name, run) if weights_path(folder, step, name).exists() else None
    except CorruptCheckpoint as error:
        log.warning("not whole weights, making them again: %s", error)
        return None


def read_weights(folder: Path, step: int, name: str = EMA, run: str | None = None) -> dict[str, Tensor]:
    """Weights of a kept step, by their name (`bench.averages`); of this run, if the file says of which.

    Raises:
        CorruptCheckpoint: they are missing or damaged, or say that they are others.
    """
    path = weights_path(folder, step, name)
    tensors, said = load_tensors(path)
    if other := _other(said, step, name, run):
        raise CorruptCheckpoint(path, other)
    return tensors


def has_weights(folder: Path, step: int, name: str, run: str) -> bool:
    """Whether weights of a kept step are there, as long as they say, and these. Their checksum, for which all of them
    would be read (DiT-XL/2: 2.7 GB a file), is compared when they are used.
    """
    path = weights_path(folder, step, name)
    if not path.exists():
        return False
    said = _said(path)
    problem = "not a whole file" if said is None else _other(said, step, name, run)
    if problem:
        log.warning("not whole weights, making them again: %s: %s", path, problem)
    return not problem


def says_its_weights(path: Path) -> bool:
    """Whether a file says that it is kept weights, and which."""
    return "weights" in (_said(path) or {})


def _said(path: Path) -> dict[str, str] | None:
    """What a file's header says, if the file is as long as it says."""
    try:
        with path.open("rb") as opened, safe_open(f"/dev/fd/{opened.fileno()}", framework="pt") as file:
            said = json.loads((file.metadata() or {})[HEADER])
            return said if isinstance(said, dict) else None
    except (SafetensorError, KeyError, ValueError, RecursionError):
        return None


def _other(said: dict[str, str], step: int, name: str, run: str | None) -> str:
    """Which other weights a file says that it is, if it does."""
    for key, wanted in (("step", str(step)), ("weights", name), ("run", run)):
        if wanted is not None and said.get(key, wanted) != wanted:
            return f"says that it is of {key} {said[key]!r}, not {wanted!r}"
    return ""


def _state_path(folder: Path, step: int) -> Path:
    return folder / f"state-{step:08d}.safetensors"


def _states(folder: Path) -> list[tuple[int, Path]]:
    """Training states, oldest first."""
    matches = ((re.fullmatch(r"state-(\d+)\.safetensors", path.name), path) for path in folder.glob("state-*"))
    return sorted((int(match[1]), path) for match, path in matches if match)
