"""The suite's feature networks of clips, (C, T, H, W), each loaded when it is used: see `builtin.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.data.clips.moving_digits import SHAPE
from bench.score.extractors import Extractor


@dataclass(frozen=True)
class _MovingDigitsCNN:
    asset: str | None = None
    image_shape: tuple[int | None, ...] = SHAPE

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        from bench.score.extractors import moving_digits

        trained = moving_digits.trained(folder)
        layers = [moving_digits.FEATURES, moving_digits.FRAMES, moving_digits.LOGITS]
        network = moving_digits.MovingDigitsFeatures(name, layers, feature_extractor_weights_path=str(trained.path))
        return Extractor(
            f"{name}-{trained.digest}",
            network.requires_grad_(False).eval(),
            features=moving_digits.FEATURES,
            logits=moving_digits.LOGITS,
            test_accuracy=trained.test_accuracy,
            frames=moving_digits.FRAMES,
        )


@dataclass(frozen=True)
class _FramesInception:
    """For clips of any size: Inception's features of each frame, and their mean, which tells no order of frames."""

    asset: str | None = "inception-v3-compat"
    image_shape: tuple[int | None, ...] = (None, None, None, None)

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        from bench.score.extractors import each_frame, inception
        from bench.score.extractors.weights import weights_digest
        from models.files.assets import locate

        path = locate(str(self.asset), offline)
        network = inception.InceptionFeatures(
            inception.NAME, [inception.FEATURES], feature_extractor_weights_path=str(path)
        )
        of_clips = each_frame.FrameFeatures(name, network)
        return Extractor(
            f"{name}-{weights_digest(path)}",
            of_clips.requires_grad_(False).eval(),
            features=each_frame.MEAN,
            frames=each_frame.FRAMES,
        )


MOVING_DIGITS_CNN, FRAMES_INCEPTION = _MovingDigitsCNN(), _FramesInception()
