"""Scores of images that no network made: what is drawn, beside which scores it stands, and how the scores lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import LATENTS, recipe

from bench.errors import InputError
from bench.score.baselines import conditions, drawn_labels, gaussian_images, score_baselines, two_halves
from bench.stopping import StopRequest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def two_classes() -> tuple[np.ndarray, np.ndarray]:
    """Images (600, 1, 2, 2) of two classes, pixels of which the first two go together, far from black and white."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 300)
    common = random.normal(size=(600, 1))
    noise = random.normal(size=(600, 4)) * [2, 2, 8, 4] + common * [10, 10, 0, 0]
    pixels = np.array([[80, 100, 120, 140], [150, 130, 110, 90]])[labels] + noise
    return pixels.round().astype(np.uint8).reshape(600, 1, 2, 2), labels


def moments(images: np.ndarray, labels: Any, label: int) -> tuple[np.ndarray, np.ndarray]:
    own = images[np.asarray(labels) == label].reshape(-1, 4).astype(float)
    return own.mean(0), np.cov(own.T, bias=True)


@pytest.mark.parametrize("full", [False, True])
def test_a_gaussian_has_each_class_s_moments(two_classes: tuple[np.ndarray, np.ndarray], full: bool) -> None:
    pixels, labels = two_classes
    wanted = torch.arange(8000) % 2
    made = gaussian_images(pixels, labels, wanted, seeded(), full)
    assert made.shape == (8000, 1, 2, 2)
    assert made.dtype == np.uint8
    for label in (0, 1):
        mean, covariance = moments(pixels, labels, label)
        found_mean, found = moments(made, wanted, label)
        deviations = np.sqrt(np.diag(covariance))
        assert np.all(np.abs(found_mean - mean) < 5 * deviations / 4000**0.5 + 0.05)  # bytes are rounded
        wanted_covariance = covariance if full else np.diag(np.diag(covariance))
        close = 5 * np.outer(deviations, deviations) * (2 / 4000) ** 0.5 + 0.2
        assert np.all(np.abs(found - wanted_covariance) < close)
        assert covariance[0, 1] > 3 * close[0, 1]  # else the two could not be told apart


def test_what_a_class_never_varies_in_stays_and_nothing_leaves_the_range_of_bytes() -> None:
    pixels = np.zeros((50, 1, 1, 3), dtype=np.uint8)
    pixels[:25, :, :, 1], pixels[:, :, :, 2] = 255, 255  # half of the middle one black, half white
    made = gaussian_images(pixels, np.zeros(50, dtype=np.int64), torch.zeros(2000, dtype=torch.long), seeded(), True)
    assert np.array_equal(np.unique(made[..., 0]), [0])
    assert np.array_equal(np.unique(made[..., 2]), [255])
    # Of mean and deviation 127.5, a normal number is beyond either end with probability 0.159.
    for end in (0, 255):
        assert 0.12 < np.mean(made[..., 1] == end) < 0.20


def test_one_image_of_a_class_is_all_that_is_drawn_of_it() -> None:
    pixels = np.array([3, 200, 7, 250], dtype=np.uint8).reshape(1, 1, 2, 2)
    for full in (False, True):
        made = gaussian_images(pixels, np.array([4]), torch.full((5,), 4), seeded(), full)
        assert np.array_equal(made, np.repeat(pixels, 5, axis=0))


def test_a_class_without_an_image_is_refused() -> None:
    with pytest.raises(InputError, match="class 1 has no image"):
        gaussian_images(np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, np.int64), torch.tensor([0, 1]), seeded(), False)


@pytest.mark.parametrize("number", [2, 7, 1797])
def test_halves_share_no_image_and_leave_none_out(number: int) -> None:
    one, other = two_halves(number, seeded())
    assert len(one) == number // 2
    assert sorted([*one, *other]) == list(range(number))


def test_labels_are_as_an_evaluation_draws_them() -> None:
    assert drawn_labels("balanced", 25, 10, seeded()).bincount().tolist() == [3] * 5 + [2] * 5
    uniform = drawn_labels("uniform", 5000, 10, seeded()).bincount()
    assert uniform.sum() == 5000
    assert len(set(uniform.tolist())) > 1
    assert ((uniform - 500).abs() < 5 * 500**0.5).all()


def test_one_row_of_conditions_for_scores_that_differ_in_how_a_network_samples() -> None:
    changes = [{"evaluation.sampling_steps": 8, "seed": 1}, {"evaluation.num_samples": 80}]
    changes += [{"evaluation.labels": "uniform"}]
    found = conditions([recipe(), *map(recipe, changes)])
    assert [(one.num_samples, one.labels) for _, one in found] == [(60, "balanced"), (80, "balanced"), (60, "uniform")]


def test_latents_are_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="photos: latents") as refused:
        conditions([recipe(LATENTS)])
    assert "\n" not in str(refused.value)


def scored(features: Path, seed: int = 0, draws: int = 1, **evaluation: Any) -> dict[str, dict[str, Any]]:
    chosen = {"evaluation.num_samples": 250, "evaluation.metrics": ["fid"]} | evaluation
    (under,) = conditions([recipe(chosen)])
    rows = score_baselines(under, features, draws, seed, torch.device("cpu"), True, StopRequest())
    return {row["baseline"]: row for row in rows}


def test_scores_are_the_same_for_the_same_seed_and_lie_in_order(features: Path) -> None:
    first, again, other = scored(features, draws=2), scored(features, draws=2), scored(features, seed=1)
    assert first == again
    assert all(first[name]["fid"] != other[name]["fid"] for name in first)
    fid = {name: row["fid"] for name, row in first.items()}
    # Correlations of pixels matter more than how few samples there are, and means of 2 draws differ by less than that.
    assert fid["gaussian"] > 1.5 * fid["gaussian-full"] > 3 * fid["real"]
    assert fid["real-halves"] < 0.5 * fid["gaussian-full"]
    for row in first.values():
        assert row["fid_min"] <= row["fid"] <= row["fid_max"]
        assert (row["num_samples"], row["labels"], row["draws"]) == (250, "balanced", 2)
    sizes = {name: (row["images"], row["against"]) for name, row in first.items()}
    assert sizes == {
        "gaussian": (250, 1797),
        "gaussian-full": (250, 1797),
        "real-halves": (898, 899),
        "real": (250, 1797),
    }
    assert not list(features.glob("baselines-*"))


def test_more_samples_than_there_are_images_is_all_of_them(features: Path) -> None:
    row = scored(features, **{"evaluation.num_samples": 2000})["real"]
    assert (row["num_samples"], row["images"], row["against"]) == (2000, 1797, 1797)
    assert row["fid"] == pytest.approx(0, abs=1e-3)
