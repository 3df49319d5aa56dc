"""Scores of images that no network made, beside which a model's are read: how good is good.

gaussian: of each class's mean and variance, every pixel by itself; gaussian-full: of each class's mean and whole
covariance; real-halves: a random half of the real images against the other; real: as many real images as a model makes
samples, none twice, against all of them, which is as near as samples of that number come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data import PixelDataset, data_part
from bench.data.images import ArrayImages
from bench.data.pixels import from_uint8, to_uint8
from bench.errors import InputError
from bench.randomness import Stream, generator
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.recipe.parts import DataConfig
from bench.samplers import Labels
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer
from bench.score.reference import Reference
from bench.stopping import StopRequest

ROWS = 1000  # of noise at a time, each as long as a class has images

Conditions = tuple[DataConfig, EvaluationConfig]
Say = Callable[[str], object]


def conditions(recipes: Iterable[Recipe]) -> list[Conditions]:
    """The data and an evaluation of each way in which recipes score that makes a difference without a network.

    Raises:
        InputError: a data set of which the images themselves are not at hand.
    """
    found: dict[tuple[object, ...], Conditions] = {}
    for recipe in recipes:
        data = recipe.data
        if not isinstance(data_part(data.name), PixelDataset):
            raise InputError(
                f"{data.name}: {'latents' if data.facts.latents else 'no PixelDataset'}, of which the images are not "
                "at hand; accepted: recipes of pixels, such as digits or image-folder"
            )
        for evaluation in recipe.evaluations:
            key = (evaluation.num_samples, evaluation.labels, evaluation.extractor, evaluation.kid_subset_size)
            found.setdefault((data, *key), (data, evaluation))
    return list(found.values())


def score_baselines(
    under: Conditions,
    folder: Path,
    draws: int,
    seed: int,
    device: torch.device,
    offline: bool,
    stop: StopRequest,
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Score each baseline under the conditions of a recipe's scores, `draws` times.

    Args:
        folder: of the extractor and the real features, which it shares with the runs of a study.
        say: is told what is scored next.

    Returns:
        A row for each: baseline, data, the key (num_samples, labels, reference, extractor, kid_subset_size) of the
        scores that it stands beside, images (how many were scored), against (how many they were compared with), draws,
        seed, and of each metric the mean, METRIC_min and METRIC_max over the draws.

    Raises:
        InputError: the images cannot be read, or a class has none.
        MissingAsset: the extractor is not in the cache and cannot be fetched.
        Stopped: on request; nothing is kept but the real features.
    """
    data, evaluation = under
    part: PixelDataset = data_part(data.name)
    pixels, labels = part.checked_images(data.name, data.options)
    reference = part.reference(data.name, data.options)
    extractor = load_extractor(evaluation.extractor, folder, offline)
    wanted, many, num_classes = evaluation.num_samples, len(pixels), data.facts.num_classes

    def scorer(real: Reference, work: Path, most: int) -> Scorer:
        subset = min(evaluation.kid_subset_size, most)
        return Scorer(real, extractor, subset, work, device, stop=stop, metrics=evaluation.metrics)

    whole = scorer(reference, folder, many)
    key = {name: whole.key[name] for name in ("reference", "extractor", "kid_subset_size")}
    rows: list[dict[str, Any]] = []

    def add(name: str, images: int, against: int, score: Callable[[torch.Generator, Path], dict[str, float]]) -> None:
        scores: list[dict[str, float]] = []
        for draw in range(draws):
            say(f"{name}, draw {draw + 1} of {draws}")
            with TemporaryDirectory(prefix="baselines-", dir=folder) as work:
                scores.append(score(generator(seed, Stream.BASELINE, draw), Path(work)))
        size = {"images": images, "against": against, "draws": draws, "seed": seed}
        conditions = {"num_samples": wanted, "labels": evaluation.labels, **key}
        rows.append({"baseline": name, "data": data.name, **conditions, **size, **_over_draws(scores)})

    def gaussian(full: bool) -> Callable[[torch.Generator, Path], dict[str, float]]:
        def score(random: torch.Generator, work: Path) -> dict[str, float]:
            of_classes = drawn_labels(evaluation.labels, wanted, num_classes, random)
            made = gaussian_images(pixels, labels, of_classes, random, full)
            return whole.score(ArrayImages(made), work / "samples", stop)

        return score

    def halves(random: torch.Generator, work: Path) -> dict[str, float]:
        one, other = two_halves(many, random)
        real = Reference(reference.name, f"{reference.id}-half", ArrayImages(pixels[other]), {})
        return scorer(real, work, len(one)).score(ArrayImages(pixels[one]), work / "samples", stop)

    def some(random: torch.Generator, work: Path) -> dict[str, float]:
        chosen = torch.randperm(many, generator=random)[:wanted].numpy()
        return whole.score(ArrayImages(pixels[chosen]), work / "samples", stop)

    add("gaussian", wanted, many, gaussian(full=False))
    add("gaussian-full", wanted, many, gaussian(full=True))
    add("real-halves", many // 2, many - many // 2, halves)
    add("real", min(wanted, many), many, some)
    return rows


def drawn_labels(policy: Labels, number: int, num_classes: int, random: torch.Generator) -> Tensor:
    """Labels (number,) int64 by the policy of an evaluation."""
    if policy == "balanced":
        return torch.arange(number) % num_classes
    return torch.randint(num_classes, (number,), generator=random)


def gaussian_images(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], wanted: Tensor, random: torch.Generator, full: bool
) -> NDArray[np.uint8]:
    """Images (N, C, H, W) uint8 of the classes `wanted` (N,), drawn from a Gaussian fitted to each class.

    They are clipped and rounded as samples are. `full`: with all covariances of its pixels, else with their variances
    alone; both are those of the class's images (divided by their number).

    Raises:
        InputError: a class has no image.
    """
    made = np.empty((len(wanted), *pixels.shape[1:]), dtype=np.uint8)
    for label in wanted.unique().tolist():
        own = pixels[labels == label]
        if not len(own):
            raise InputError(f"class {label} has no image; a Gaussian for each class needs one of each")
        x = from_uint8(torch.from_numpy(own)).flatten(1)
        mean = x.mean(0)
        places = (wanted == label).nonzero().squeeze(1)
        for rows in places.split(ROWS):
            if full:
                # Deviations in random proportions have their covariance, which is never computed: it may be too large.
                noise = torch.randn(len(rows), len(x), generator=random) @ (x - mean) / len(x) ** 0.5
            else:
                noise = torch.randn(len(rows), x.shape[1], generator=random) * x.std(0, correction=0)
            made[rows.numpy()] = to_uint8(mean + noise).view(-1, *pixels.shape[1:]).numpy()
    return made


def two_halves(number: int, random: torch.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All of 0 .. number - 1 in two random halves, the second one longer where the number is odd."""
    order = torch.randperm(number, generator=random).numpy()
    return order[: number // 2], order[number // 2 :]


def _over_draws(scores: list[dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in scores[0]:
        values = [score[name] for score in scores]
        found |= {name: float(np.mean(values)), f"{name}_min": min(values), f"{name}_max": max(values)}
    return found
