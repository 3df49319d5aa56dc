"""The suite's feature networks, each loaded when it is used: some take seconds to import.

`asset`: the file of others that it needs; `image_shape`: the only (C, H, W) that it takes, None for images of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.score.extractors import Extractor

# ADM's protocol (Dhariwal & Nichol 2021, arXiv 2105.05233): the Inception Score over splits of 5,000 samples.
ADM_SPLIT_SIZE = 5000


@dataclass(frozen=True)
class _Inception:
    asset: str | None = "inception-v3-compat"
    image_shape: tuple[int, int, int] | None = None

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        from bench.score.extractors import inception
        from bench.score.extractors.weights import weights_digest
        from models.files.assets import locate

        path = locate(name, offline)
        layers = [inception.FEATURES, inception.SPATIAL, inception.LOGITS]
        network = inception.InceptionFeatures(inception.NAME, layers, feature_extractor_weights_path=str(path))
        return Extractor(
            f"{name}-{weights_digest(path)}",
            network.requires_grad_(False).eval(),
            features=inception.FEATURES,
            spatial=inception.SPATIAL,
            logits=inception.LOGITS,
            split_size=ADM_SPLIT_SIZE,
        )


@dataclass(frozen=True)
class _DINOv2:
    asset: str | None = "dinov2-vitl14"
    image_shape: tuple[int, int, int] | None = None

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        from bench.score.extractors import dinov2
        from bench.score.extractors.weights import weights_digest
        from models.files.assets import locate

        path = locate(name, offline)
        network = dinov2.DINOv2Features(dinov2.NAME, [dinov2.FEATURES], feature_extractor_weights_path=str(path))
        return Extractor(
            f"{name}-{weights_digest(path)}", network.requires_grad_(False).eval(), features=dinov2.FEATURES
        )


@dataclass(frozen=True)
class _DigitsCNN:
    asset: str | None = None
    image_shape: tuple[int, int, int] | None = (1, 8, 8)

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        from bench.score.extractors import digits_cnn

        trained = digits_cnn.trained(folder)
        layers = [digits_cnn.FEATURES, digits_cnn.LOGITS]
        network = digits_cnn.DigitsFeatures(name, layers, feature_extractor_weights_path=str(trained.path))
        return Extractor(
            f"{name}-{trained.digest}",
            network.requires_grad_(False).eval(),
            features=digits_cnn.FEATURES,
            logits=digits_cnn.LOGITS,
            test_accuracy=trained.test_accuracy,
        )


@dataclass(frozen=True)
class _ColourCNN:
    asset: str | None = None
    image_shape: tuple[int, int, int] | None = (3, 8, 8)

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        from bench.score.extractors import digits_cnn

        trained = digits_cnn.trained(folder)
        layers = [digits_cnn.COLOUR_FEATURES]
        network = digits_cnn.ColourFeatures(name, layers, feature_extractor_weights_path=str(trained.path))
        return Extractor(
            f"{name}-{trained.digest}",
            network.requires_grad_(False).eval(),
            features=digits_cnn.COLOUR_FEATURES,
            test_accuracy=trained.test_accuracy,
        )


INCEPTION, DINOV2, DIGITS_CNN, DIGITS_CNN_COLOUR = _Inception(), _DINOv2(), _DigitsCNN(), _ColourCNN()
