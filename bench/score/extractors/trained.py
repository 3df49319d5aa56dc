"""Feature networks that the suite trains itself: once for a folder, by whoever asks first."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bench.files import checkpoint
from bench.files.run_folder import open_lock

FEATURES, LOGITS = "64", "logits_unbiased"


class TrainedFeatures(FeatureExtractorBase):
    """A network as torch-fidelity wants it: uint8 in, a tuple of the asked features out, of `provided` ones.

    The first of these are compared; logits, if there are any, are for the Inception Score.
    """

    network_type: type[nn.Module]
    provided: tuple[str, ...]

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(f"{name} needs feature_extractor_weights_path, the file that `trained` makes")
        self.network: Any = self.network_type()
        tensors, _metadata = checkpoint.load_tensors(Path(feature_extractor_weights_path))
        self.network.load_state_dict(tensors, strict=True)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """All features of images or clips, uint8."""
        raise NotImplementedError

    # torch-fidelity has these as static methods, which it calls on the class: a class method serves as well.
    @classmethod
    def get_provided_features_list(cls) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls.provided

    @classmethod
    def get_default_feature_layer_for_metric(cls, metric: str) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return LOGITS if metric == "isc" and LOGITS in cls.provided else cls.provided[0]

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        outputs = self.outputs(input)
        return tuple(outputs[name] for name in self.features_list)


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
