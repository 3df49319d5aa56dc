"""Feature networks that the suite trains itself: once for a folder, by whoever asks first."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench.files import checkpoint
from bench.files.run_folder import open_lock


@dataclass(frozen=True)
class TrainedExtractor:
    """Where the weights are, their short hash, and the share of held-out examples classified right."""

    path: Path
    digest: str
    test_accuracy: float


def trained(folder: Path, name: str, seed: int, train: Callable[[], tuple[nn.Module, float]]) -> TrainedExtractor:
    """A network's weights in `folder`, trained there first if it has none; `train` gives it and its test accuracy.

    Processes that ask at the same time wait for one of them to train it.
    """
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / f".{name}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            metadata = checkpoint.load_tensors(path)[1]
        except checkpoint.CorruptCheckpoint:
            network, accuracy = train()
            checkpoint.save_tensors(path, network.state_dict(), {"test_accuracy": repr(accuracy), "seed": str(seed)})
            metadata = checkpoint.load_tensors(path)[1]
    return TrainedExtractor(path, metadata["sha256"][:8], float(metadata["test_accuracy"]))
