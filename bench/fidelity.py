"""Scores of samples against real images: Fréchet distance, KID, Inception Score, precision and recall.

torch-fidelity computes all of them. Its own feature cache is not used: it unpickles files, and its key leaves out
what the features were made of. The reference's features are kept in memory instead, for the life of a `Scorer`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from bench import digits_cnn

if digits_cnn.NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(digits_cnn.NAME, digits_cnn.DigitsFeatures)


@dataclass(frozen=True)
class Extractor:
    """A feature network: torch-fidelity's name for it, its weights, and the id that enters a score's key."""

    name: str
    id: str
    weights_path: Path | None = None
    test_accuracy: float | None = None


def extractor(name: str, folder: Path) -> Extractor:
    """The extractor of a recipe; the digits network is trained in `folder` if it is not there yet.

    Inception's weights are fetched by torch-fidelity where they are not in its cache.
    """
    if name == digits_cnn.NAME:
        trained = digits_cnn.trained(folder)
        return Extractor(name, f"{name}-{trained.digest}", trained.path, trained.test_accuracy)
    return Extractor(name, name)


class Images(TorchDataset[Tensor]):
    """uint8 images (N, C, H, W) as torch-fidelity reads them: (3, H, W) each, grey repeated."""

    def __init__(self, images: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images: {images.dtype} {tuple(images.shape)}, expected uint8 (N, 1 or 3, H, W)")
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index].expand(3, -1, -1)


class Scorer:
    """Scores sample arrays against one set of real images with one extractor."""

    def __init__(self, reference: Tensor, extractor: Extractor, kid_subset_size: int, device: torch.device) -> None:
        """`reference`: uint8 (N, C, H, W). KID: 100 subsets of `kid_subset_size`. Features are extracted at once."""
        self._options: dict[str, Any] = {
            "cuda": device.type == "cuda",
            "verbose": False,
            "save_cpu_ram": False,
            "kid_subset_size": kid_subset_size,
            "feature_extractor_weights_path": extractor.weights_path and str(extractor.weights_path),
        }
        kind = FEATURE_EXTRACTORS_REGISTRY[extractor.name]
        self._layer = kind.get_default_feature_layer_for_metric("fid")
        self._logits = kind.get_default_feature_layer_for_metric("isc")
        self._network = create_feature_extractor(extractor.name, [self._layer, self._logits], **self._options)
        self._features = self._extract(reference)[self._layer]
        self._statistics = fid_features_to_statistics(self._features)

    @property
    def reference_trace(self) -> float:
        """Trace of the covariance of the real features: the scale that a Fréchet distance is a percentage of."""
        return float(self._statistics["sigma"].trace())

    def score(self, samples: Tensor) -> dict[str, float]:
        """Scores of samples uint8 (N, C, H, W).

        `fid`: Fréchet distance of the extractor's features; `fid_percent`: in % of `reference_trace`; `kid`,
        `kid_std`: over 100 subsets; `inception_score`, `inception_score_std`: 10 splits; `precision`, `recall`:
        k = 3 nearest neighbours. Conventions are torch-fidelity's.

        Raises:
            ValueError: a score is not finite.
        """
        features = self._extract(samples)
        ours, theirs = features[self._layer], self._features
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            statistics = fid_features_to_statistics(ours)
            raw = {
                **fid_statistics_to_metric(statistics, self._statistics, verbose=False),
                **kid_features_to_metric(ours, theirs, **self._options),
                **isc_features_to_metric(features[self._logits]),
                **prc_features_to_metric(ours, theirs, **self._options),
            }
        scores = {
            "fid": raw[KEY_METRIC_FID],
            "fid_percent": 100 * raw[KEY_METRIC_FID] / self.reference_trace,
            "kid": raw[KEY_METRIC_KID_MEAN],
            "kid_std": raw[KEY_METRIC_KID_STD],
            "inception_score": raw[KEY_METRIC_ISC_MEAN],
            "inception_score_std": raw[KEY_METRIC_ISC_STD],
            "precision": raw[KEY_METRIC_PRECISION],
            "recall": raw[KEY_METRIC_RECALL],
        }
        scores = {name: float(value) for name, value in scores.items()}
        not_finite = [name for name, value in scores.items() if not math.isfinite(value)]
        if not_finite:
            raise ValueError(f"{', '.join(not_finite)} of {len(samples)} samples: not finite")
        return scores

    def _extract(self, images: Tensor) -> dict[str, Tensor]:
        # Images are in memory: loader processes would only cost their start.
        return get_featuresdict_from_dataset(
            Images(images), self._network, batch_size=64, cuda=self._options["cuda"], save_cpu_ram=True, verbose=False
        )
