"""Feature networks by name or dotted path: what samples and real images are compared in.

A network is a part with `asset`, `image_shape` and `load`; see `builtin.py`. Importing this package imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import InputError
from models.parts import Seam

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase


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


EXTRACTORS = Seam(
    noun="extractor",
    key="evaluation.extractor",
    builtin={
        "inception-v3-compat": "bench.score.extractors.builtin:INCEPTION",
        "dinov2-vitl14": "bench.score.extractors.builtin:DINOV2",
        "digits-cnn": "bench.score.extractors.builtin:DIGITS_CNN",
        "digits-cnn-colour": "bench.score.extractors.builtin:DIGITS_CNN_COLOUR",
    },
    contract=("asset", "image_shape", "load"),
)


def load_extractor(name: str, folder: Path, offline: bool) -> Extractor:
    """The extractor of a recipe, on the CPU; one that the suite trains itself is trained in `folder` if need be.

    Raises:
        InputError: there is none of this name, or the weights are not those of the network.
        MissingAsset: they are not in the cache and cannot be fetched.
    """
    try:
        part = EXTRACTORS.find(name)
    except ValueError as error:
        raise InputError(str(error)) from None
    return part.load(name, folder, offline)
