"""The digits: the images and labels of scikit-learn, in the model's range and back."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bench.data import DATASETS, Digits, check_readable, load_dataset, reference_id
from bench.errors import InputError


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(torch.device("cpu"))


def all_of(digits: Digits) -> tuple[torch.Tensor, torch.Tensor]:
    return digits.batch(torch.arange(len(digits)))


def test_every_image_and_label_is_scikit_learns(digits: Digits) -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, y = all_of(digits)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert np.array_equal((x.numpy() + 1) * 8, pixels.reshape(-1, 1, 8, 8))
    assert np.array_equal(y.numpy(), labels)
    assert torch.equal(digits.labels(), y)


def test_grey_levels_are_seventeen_from_minus_one_to_one(digits: Digits) -> None:
    assert all_of(digits)[0].unique().tolist() == [level / 8 - 1 for level in range(17)]


def test_classes_are_nearly_balanced(digits: Digits) -> None:
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.bincount(all_of(digits)[1]).tolist() == counts


def test_every_grey_level_becomes_its_exact_byte(digits: Digits) -> None:
    levels = torch.arange(17)
    images = digits.to_uint8((levels.float() / 8 - 1).view(-1, 1, 1, 1).expand(-1, 1, 8, 8))
    assert images.shape == (17, 1, 8, 8)
    assert images.dtype == torch.uint8
    for level in range(17):
        assert images[level].unique().tolist() == [round(255 * level / 16)]


def test_every_byte_survives_the_way_to_model_range_and_back(digits: Digits) -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(digits.to_uint8(bytes_ / 127.5 - 1), bytes_)


@pytest.mark.parametrize(
    ("value", "byte"), [(-1.0, 0), (1.0, 255), (-7.0, 0), (1.01, 255), (float("inf"), 255), (0.0, 128), (-0.999, 0)]
)
def test_samples_are_clamped_and_rounded(digits: Digits, value: float, byte: int) -> None:
    assert digits.to_uint8(torch.full((1, 1, 1, 1), value)).item() == byte
    assert digits.to_uint8(torch.full((1, 1, 1, 1), value, dtype=torch.float64)).item() == byte


def test_half_precision_samples_are_scaled_in_full_precision(digits: Digits) -> None:
    x = torch.linspace(-1, 1, 999).view(1, 1, 27, 37).to(torch.bfloat16)
    assert torch.equal(digits.to_uint8(x), digits.to_uint8(x.float()))


def test_reference_images_are_the_real_images_in_bytes(digits: Digits) -> None:
    pixels, _ = load_digits(return_X_y=True)
    expected = np.floor(pixels.reshape(-1, 1, 8, 8) * 255 / 16 + 0.5).astype(np.uint8)
    assert np.array_equal(digits.reference_images().numpy(), expected)


def test_a_batch_is_its_items_in_the_order_asked_for(digits: Digits) -> None:
    indices = torch.tensor([1796, 0, 5, 5, 900])
    x, y = digits.batch(indices)
    for row, index in enumerate(indices.tolist()):
        item, label = digits[index]
        assert torch.equal(x[row], item)
        assert (y[row].item(), type(label)) == (label, int)


def test_a_batch_is_not_the_data_set_itself(digits: Digits) -> None:
    before = digits[3][0].clone()
    digits.batch(torch.tensor([3]))[0].fill_(9)
    assert torch.equal(digits[3][0], before)


@pytest.mark.parametrize("name", [name for name, facts in DATASETS.items() if facts.load])
def test_facts_are_those_of_the_loaded_data(name: str) -> None:
    facts, dataset = DATASETS[name], load_dataset(name, torch.device("cpu"))
    x, y = dataset.batch(torch.arange(len(dataset)))
    assert len(dataset) == len(dataset.reference_images()) == facts.length
    assert x.shape == (facts.length, *facts.shape)
    assert dataset.num_classes == facts.num_classes
    assert set(y.tolist()) == set(range(facts.num_classes))
    assert -1 <= x.min() < x.max() <= 1
    assert dataset.to_uint8(x[:2]).shape == (2, *facts.image_shape)


def test_data_that_can_only_be_planned_with_are_told_from_those_that_can_be_read() -> None:
    """ImageNet's size and its latents' shape (paper, Sec. 4) are what plans need."""
    facts = DATASETS["imagenet-256-latents"]
    assert (facts.length, facts.shape, facts.image_shape) == (1_281_167, (4, 32, 32), (3, 256, 256))
    assert facts.num_classes == 1000
    check_readable("digits")
    expected = "data.name: imagenet-256-latents can be planned with, not read yet; accepted for runs: digits"
    for refuse in (check_readable, lambda name: load_dataset(name, torch.device("cpu"))):
        with pytest.raises(InputError) as caught:
            refuse("imagenet-256-latents")
        assert str(caught.value) == expected


def test_reference_id_names_the_data_their_number_and_their_content(digits: Digits) -> None:
    images = digits.reference_images()
    assert reference_id("digits", images) == "digits-1797-b41ca9fd"
    assert reference_id("digits", images.clone()) == reference_id("digits", images)
    assert reference_id("digits", images.transpose(2, 3).contiguous().transpose(2, 3)) == reference_id("digits", images)
    changed = images.clone()
    changed[1000, 0, 4, 4] ^= 1
    others = [changed, images[:-1], images.flip(0), images.transpose(2, 3)]
    identities = {reference_id("digits", other) for other in (images, *others)} | {reference_id("numbers", images)}
    assert len(identities) == 6


def test_knowing_the_facts_does_not_load_torch() -> None:
    script = "import sys, bench.data; print(bench.data.DATASETS['digits'].length, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1797", "False"]
