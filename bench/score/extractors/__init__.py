"""Feature networks by name: what samples and real images are compared in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bench.recipe import ExtractorName


@dataclass(frozen=True)
class Extractor:
    """A feature network and the names of its layers.

    Attributes:
        id: name and hash of the weights, part of every score's key.
        network: gives the layers of `network.features_list`, in this order.
        features: the layer of the Fréchet distance, KID, precision and recall.
        spatial: the layer of sFID, if it has one.
        logits: the layer of the Inception Score, if it classifies.
        split_size: samples a split of the Inception Score; None: ten splits (`bench.score.metrics.inception_score`).
        test_accuracy: of a network that the suite trained itself.
    """

    id: str
    network: FeatureExtractorBase
    features: str
    spatial: str | None = None
    logits: str | None = None
    split_size: int | None = None
    test_accuracy: float | None = None


# ADM's protocol (Dhariwal & Nichol 2021, arXiv 2105.05233): the Inception Score over splits of 5,000 samples.
ADM_SPLIT_SIZE = 5000


def load_extractor(name: ExtractorName, folder: Path, offline: bool) -> Extractor:
    """The extractor of a recipe, on the CPU; the digits network is trained in `folder` if it is not there yet.

    Raises:
        InputError: the weights are not those of the network.
        MissingAsset: they are not in the cache and cannot be fetched.
    """
    # Only the one that is used: some take seconds to import.
    if name == "digits-cnn":
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
    from bench.score.extractors.weights import weights_digest
    from models.assets import locate

    path = locate(name, offline)
    if name == "dinov2-vitl14":
        from bench.score.extractors import dinov2

        network = dinov2.DINOv2Features(dinov2.NAME, [dinov2.FEATURES], feature_extractor_weights_path=str(path))
        return Extractor(
            f"{name}-{weights_digest(path)}", network.requires_grad_(False).eval(), features=dinov2.FEATURES
        )
    from bench.score.extractors import inception

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
