"""Scores of samples against real images: Fréchet distances, KID, Inception Score, precision and recall.

Features go to disk (`bench.score.features`), statistics stream in float64. The Fréchet distances are ours
(`bench.score.frechet`), the others torch-fidelity's (`bench.score.metrics`).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch

from bench.data.images import Images
from bench.errors import InputError
from bench.parallel import SINGLE, Ranks
from bench.score.extractors import Extractor
from bench.score.features import Features, extract
from bench.score.frechet import Gaussian, frechet_distance
from bench.score.metrics import FID_INFINITY_MIN_SAMPLES, fid_infinity, inception_score, kid, precision_recall
from bench.score.reference import Reference, check_extractor, check_feature_size
from bench.stopping import Stopped, StopRequest

OF_THE_FILE = "of the file"


class Scorer:
    """Scores samples against one reference with one extractor, on all ranks together."""

    def __init__(
        self,
        reference: Reference,
        extractor: Extractor,
        kid_subset_size: int,
        folder: Path,
        device: torch.device,
        ranks: Ranks = SINGLE,
        stop: StopRequest | None = None,
    ) -> None:
        """Make the real features ready, in a folder of `folder` that evaluations of the same reference share.

        KID: 100 subsets of `kid_subset_size`.

        Raises:
            InputError: fewer reference images than a KID subset, or statistics of another extractor.
            Stopped: on request; finished chunks of features are kept.
        """
        check_extractor(reference, extractor.id)
        self._extractor, self._device, self._ranks = extractor, device, ranks
        stop = StopRequest() if stop is None else stop
        self._kid_subset_size = kid_subset_size
        self._reference = reference
        self._features: Features | None = None
        images = reference.images
        if images is not None:
            if images.shape[0] < kid_subset_size:
                raise InputError(
                    f"kid_subset_size: {kid_subset_size} is more than the {images.shape[0]} images of {reference.name}"
                )
            self._features = self._extract(images, folder / f"{reference.id}-{extractor.id}", stop)
        layers = [layer for layer in (extractor.features, extractor.spatial) if layer]
        self._gaussians: dict[str, Gaussian] = {}
        if ranks.is_first:
            self._gaussians = {layer: self._gaussian(layer) for layer in layers}

    @property
    def key(self) -> dict[str, Any]:
        """The part of a score's key that reference and features decide.

        `reference_statistics`: whether the Fréchet distance is to the statistics of the reference's file, which may
        be of more images than it holds, or to those of its images.
        """
        images, own = self._reference.images, self._extractor.features in self._reference.gaussians
        return {
            "reference": self._reference.id,
            "reference_statistics": OF_THE_FILE if own or images is None else f"of its {len(images)} images",
            "extractor": self._extractor.id,
            "extractor_accuracy": self._extractor.test_accuracy,
            "kid_subset_size": self._kid_subset_size if self._features else None,
        }

    @property
    def reference_trace(self) -> float:
        """Trace of the covariance of the real features: the scale that a Fréchet distance is a percentage of."""
        return float(self._gaussians[self._extractor.features].covariance.trace())

    def score(self, samples: Images, folder: Path, stop: StopRequest | None = None) -> dict[str, float]:
        """Scores of samples; features go to `folder`. All ranks must call it; those but the first return {}.

        `fid`: Fréchet distance of the extractor's features (FID with Inception, FD-DINOv2 with DINOv2);
        `fid_percent`: in % of `reference_trace`; `sfid`: of spatial features (Nash et al. 2021, arXiv 2103.03841);
        `fid_infinity`: extrapolated to infinitely many samples, from 10,000 samples on; `inception_score`,
        `inception_score_std`: over splits of 5,000 in order as ADM, or ten shuffled ones (`Extractor.split_size`);
        and, where the reference has images: `kid`, `kid_std`: over 100 subsets; `precision`, `recall`: k = 3.

        Raises:
            ValueError: a score is not finite.
            Stopped: on request.
        """
        stop = StopRequest() if stop is None else stop
        features = self._extract(samples, folder, stop)
        scores: dict[str, float] = {}
        stopped = None
        if self._ranks.is_first:
            try:
                with stop.interrupts(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    scores = self._scores(features)
            except Stopped as error:
                stopped = error
        (any_stopped,) = self._ranks.maximum(float(stopped is not None))
        if any_stopped:
            raise stopped or Stopped("stopped on request while rank 0 was scoring")
        return scores

    def _extract(self, images: Images, folder: Path, stop: StopRequest) -> Features:
        return extract(images, self._extractor.network, folder, self._device, self._ranks, stop)

    def _gaussian(self, layer: str) -> Gaussian:
        """The real features' Gaussian: the reference's own, or of its images."""
        if layer in self._reference.gaussians:
            return self._reference.gaussians[layer]
        if self._features is None:
            has = ", ".join(self._reference.gaussians)
            raise InputError(
                f"{self._reference.name}: has statistics of {has} features and no images; {self._extractor.id} "
                f"compares {layer} features and needs a reference with images"
            )
        return self._features.gaussian(layer)

    def _scores(self, features: Features) -> dict[str, float]:
        extractor = self._extractor
        real = self._gaussians[extractor.features]
        ours = features.all(extractor.features)
        check_feature_size(self._reference, extractor.features, ours.shape[1])
        fid = frechet_distance(features.gaussian(extractor.features), real)
        scores = {"fid": fid, "fid_percent": 100 * fid / self.reference_trace}
        if extractor.spatial:
            scores["sfid"] = frechet_distance(features.gaussian(extractor.spatial), self._gaussians[extractor.spatial])
        if len(ours) >= FID_INFINITY_MIN_SAMPLES:
            scores["fid_infinity"] = fid_infinity(ours, real, seed=0).value
        if extractor.logits:
            mean, std = inception_score(features.all(extractor.logits), extractor.split_size)
            scores |= {"inception_score": mean, "inception_score_std": std}
        if self._features:
            theirs = self._features.all(extractor.features)
            scores["kid"], scores["kid_std"] = kid(ours, theirs, self._kid_subset_size)
            scores["precision"], scores["recall"] = precision_recall(ours, theirs)
        not_finite = [name for name, value in scores.items() if not math.isfinite(value)]
        if not_finite:
            raise ValueError(f"{', '.join(not_finite)} of {len(ours)} samples: not finite")
        return scores
