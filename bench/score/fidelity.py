"""Scores of samples against real images: features of both, and of these every metric that is asked for.

Features go to disk (`bench.score.features`), statistics stream in float64; the metrics are in `bench.score.metrics`.
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
from bench.score.extractors import Extractor, check_kind
from bench.score.features import Features, extract
from bench.score.frechet import Gaussian
from bench.score.metrics import (
    FID_INFINITY_MIN_SAMPLES,
    FRAMES,
    MANY_SAMPLES,
    SPATIAL,
    Compared,
    Metric,
    find_metrics,
    lacking,
    lacking_in_reference,
    values_of,
)
from bench.score.reference import Reference, check_extractor
from bench.stopping import Stopped, StopRequest

OF_THE_FILE = "of the file"


class Scorer:
    """Scores samples against one reference with one extractor, on all ranks together.

    `left_out`: metrics of features, spatial or of frames, that the extractor gives and the reference has not -> what it
    lacks.
    """

    def __init__(
        self,
        reference: Reference,
        extractor: Extractor,
        kid_subset_size: int,
        folder: Path,
        device: torch.device,
        ranks: Ranks = SINGLE,
        stop: StopRequest | None = None,
        metrics: tuple[str, ...] | None = None,
    ) -> None:
        """Make the real features ready, in a folder of `folder` that evaluations of the same reference share.

        KID: 100 subsets of `kid_subset_size`. `metrics`: names or dotted paths, beside `fid`; None: those of the
        suite's own that the extractor, the reference and the number of samples allow.

        Raises:
            InputError: a metric needs what the extractor or the reference does not give, fewer reference images than
                a KID subset, or statistics of another extractor.
            RunError: features are not finite.
            Stopped: on request; finished chunks of features are kept.
        """
        check_extractor(reference, extractor.id)
        self._extractor, self._device, self._ranks = extractor, device, ranks
        stop = StopRequest() if stop is None else stop
        self._kid_subset_size = kid_subset_size
        self._reference = reference
        self._metrics = usable_metrics(metrics, extractor, reference)
        self.left_out = {}
        given = {need for need, layer in ((SPATIAL, extractor.spatial), (FRAMES, extractor.frames)) if layer}
        if metrics is None and given:
            of_layers = {name: one for name, one in find_metrics(None, True).items() if given & {*one.needs}}
            lacks = {name: lacking_in_reference(metric, extractor, reference) for name, metric in of_layers.items()}
            self.left_out = {name: needed for name, needed in lacks.items() if needed}
        self._features: Features | None = None
        images = reference.images
        if images is not None:
            if images.shape[0] < kid_subset_size:
                raise InputError(
                    f"kid_subset_size: {kid_subset_size} is more than the {images.shape[0]} images of {reference.name}"
                )
            check_kind(extractor, images.shape[1:], reference.name)
            self._features = self._extract(images, folder / f"{reference.id}-{extractor.id}", stop)
        layers = [extractor.features]
        for need, layer in ((SPATIAL, extractor.spatial), (FRAMES, extractor.frames)):
            if layer and any(need in metric.needs for metric in self._metrics.values()):
                layers.append(layer)
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

    def score(self, samples: Images, folder: Path, stop: StopRequest | None = None) -> dict[str, float]:
        """Scores of samples, by column; features go to `folder`. All ranks must call it; those but the first return {}.

        Raises:
            InputError: a metric of one's own gives something else than it says.
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
                    scores = self._scores(samples, features)
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
        images = self._reference.images
        if self._features is None or images is None:
            has = ", ".join(self._reference.gaussians)
            raise InputError(
                f"{self._reference.name}: has statistics of {has} features and no images; {self._extractor.id} "
                f"compares {layer} features and needs a reference with images"
            )
        return self._features.gaussian(layer, self._extractor.parts(layer, images.shape))

    def _scores(self, samples: Images, features: Features) -> dict[str, float]:
        compared = Compared(
            samples,
            self._reference,
            self._extractor,
            features,
            self._features,
            self._gaussians,
            self._kid_subset_size,
        )
        scores: dict[str, float] = {}
        for name, metric in self._metrics.items():
            # Recipes that ask for such a metric by name have enough samples (`bench.recipe`).
            if MANY_SAMPLES not in metric.needs or len(samples) >= FID_INFINITY_MIN_SAMPLES:
                scores |= values_of(name, metric, compared)
        not_finite = [name for name, value in scores.items() if not math.isfinite(value)]
        if not_finite:
            raise ValueError(f"{', '.join(not_finite)} of {len(samples)} samples: not finite")
        return scores


def usable_metrics(names: tuple[str, ...] | None, extractor: Extractor, reference: Reference) -> dict[str, Metric]:
    """The metrics asked for, or, if none are named, those that extractor and reference allow.

    Raises:
        InputError: one that is asked for they do not allow.
    """
    found = find_metrics(names, of_clips=extractor.frames is not None)
    lacks = {name: lacking(metric, extractor, reference) for name, metric in found.items()}
    for name, problem in lacks.items():
        if problem and names is not None:
            raise InputError(f"evaluation.metrics: {name} needs {problem}")
    return {name: metric for name, metric in found.items() if lacks[name] is None}
