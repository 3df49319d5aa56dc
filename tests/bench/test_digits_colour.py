"""Digits in colour: the digits times a colour each, and features of every channel by the digits' own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recipes import recipe
from sklearn.datasets import load_digits

from bench.data import data_part
from bench.errors import InputError
from bench.score.evaluate import reference_of
from bench.score.extractors import load_extractor

COLOUR = {"data.name": "digits-colour", "model.in_channels": 3, "evaluation.extractor": "digits-cnn-colour"}


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    part = data_part("digits-colour")
    return part.checked_images("digits-colour", part.options())[0]


def test_the_strongest_channel_is_the_digit_and_the_others_its_shades(images: NDArray[np.uint8]) -> None:
    levels, labels = load_digits(return_X_y=True)
    grey = np.rint(levels.reshape(-1, 8, 8) * 255 / 16)
    assert np.array_equal(images.max(axis=1), grey)
    strength = images.max(axis=(2, 3)) / grey.max(axis=(1, 2))[:, None]
    assert np.abs(images - strength[:, :, None, None] * grey[:, None]).max() <= 1  # rounded twice
    means = strength.mean(axis=0)
    assert np.abs(means - 2 / 3).max() < 0.02  # of x / max(x, y, z), for x, y and z from 0 to 1: 1/3 + 2/3 * 1/2
    assert strength.std(axis=0).min() > 0.2
    of_class = np.stack([strength[labels == label].mean(axis=0) for label in range(10)])
    assert np.abs(of_class - means).max() < 5 * 0.3 / np.sqrt(174)


def test_its_reference_has_its_own_name() -> None:
    assert reference_of(recipe(COLOUR), offline=True).id == "digits-colour-1797-d58d33e2"


@torch.no_grad()
def test_features_are_the_networks_of_each_channel(features: Path, images: NDArray[np.uint8]) -> None:
    grey, colour = (load_extractor(name, features, True) for name in ("digits-cnn", "digits-cnn-colour"))
    assert colour.id.rpartition("-")[2] == grey.id.rpartition("-")[2]
    assert (colour.features, colour.logits, colour.test_accuracy) == ("192", None, grey.test_accuracy)
    x = torch.from_numpy(images[:20])
    (found,) = colour.network(x)
    channels = [grey.network(x[:, [c, c, c]])[0] for c in range(3)]
    assert torch.allclose(found, torch.cat(channels, dim=1), atol=1e-5)
    assert (channels[0] - channels[1]).abs().max() > 0.1


def test_networks_and_data_of_other_channels_are_refused() -> None:
    for wrong, said in (
        ({"evaluation.extractor": "digits-cnn"}, r"digits-cnn takes images \(1, 8, 8\)"),
        ({"data.name": "digits", "model.in_channels": 1}, r"digits-cnn-colour takes images \(3, 8, 8\)"),
        ({"model.in_channels": 1}, "model"),
    ):
        with pytest.raises(InputError, match=said):
            recipe(COLOUR | wrong)
