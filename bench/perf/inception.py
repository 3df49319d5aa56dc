"""What Inception's features cost: by our network, and by torch-fidelity's own with the same random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from bench.parallel import full_precision
from bench.perf.document import OURS
from bench.perf.frechet import TORCH_FIDELITY
from bench.perf.random_inception import random_weights
from bench.perf.turns import Measure, timed
from bench.score.extractors.inception import FEATURES, LOGITS, NAME, InceptionFeatures
from bench.score.features import BATCH, place

TARGET = 1 / 1.3  # of their time


def inception_features(folder: Path, device: torch.device, batch_size: int = BATCH, image_size: int = 256) -> Measure:
    """Features and logits of a batch of random images; `folder` gets the weights.

    torch-fidelity's row has `difference`: the norm of ours less theirs, of the features, over the norm of theirs.
    """
    path = folder / "inception.pth"
    torch.save(random_weights(), path)
    layers = [FEATURES, LOGITS]
    networks: dict[str, FeatureExtractorBase] = {
        OURS: InceptionFeatures(NAME, layers, str(path)).requires_grad_(False).eval(),
        TORCH_FIDELITY: FeatureExtractorInceptionV3("inception-v3-compat", layers, str(path)),
    }
    place(networks[OURS], device)
    networks[TORCH_FIDELITY].to(device)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size, 3, image_size, image_size), generator=random, dtype=torch.uint8)

    def by(network: FeatureExtractorBase) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def features() -> Tensor:
            with full_precision():
                return network(images.to(device))[0].cpu()

        return features

    ways = {name: by(network) for name, network in networks.items()}
    ours, theirs = (way() for way in ways.values())
    return Measure(
        f"Inception features of {batch_size} images of {image_size} px",
        timed(ways),
        items=batch_size,
        unit="images",
        targets={TORCH_FIDELITY: TARGET},
        facts={TORCH_FIDELITY: {"difference": float((ours - theirs).norm() / theirs.norm())}},
    )
