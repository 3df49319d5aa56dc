"""The digits: the images and labels of scikit-learn, in the model's range and back."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import tiny
from sklearn.datasets import load_digits

from bench.data import DatasetFacts, data_part
from bench.data import digits as digits_module
from bench.data.digits import DIGITS, Digits
from bench.data.latent_sets import LatentOptions
from bench.data.pixels import from_uint8, to_uint8
from bench.errors import InputError


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(torch.device("cpu"))


def all_of(digits: Digits) -> tuple[torch.Tensor, torch.Tensor]:
    return digits.batch(torch.arange(len(digits)), slice(None), torch.Generator())


def test_every_image_and_label_is_scikit_learns(digits: Digits) -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, y = all_of(digits)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert np.array_equal((x.numpy() + 1) * 8, pixels.reshape(-1, 1, 8, 8))
    assert np.array_equal(y.numpy(), labels)
    assert torch.equal(digits.examples()[1], y)


def test_a_damaged_file_of_scikit_learn_s_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, path = digits_module._file().read_bytes(), tmp_path / "digits.csv.gz"
    monkeypatch.setattr(digits_module, "_file", lambda: path)
    fewer = gzip.compress(b"".join(gzip.decompress(whole).splitlines(keepends=True)[:1000]))
    for damaged in (whole[:1000], whole[:1000] + bytes(100) + whole[1100:], fewer):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"data\.name: digits: scikit-learn's file of them cannot be read"):
            Digits(torch.device("cpu"))
    path.unlink()
    with pytest.raises(InputError, match=r"cannot be read \(.*digits\.csv\.gz"):
        Digits(torch.device("cpu"))


def test_grey_levels_are_seventeen_from_minus_one_to_one(digits: Digits) -> None:
    assert all_of(digits)[0].unique().tolist() == [level / 8 - 1 for level in range(17)]


def test_classes_are_nearly_balanced(digits: Digits) -> None:
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert torch.bincount(all_of(digits)[1]).tolist() == counts


def test_every_grey_level_becomes_its_exact_byte() -> None:
    levels = torch.arange(17)
    images = to_uint8((levels.float() / 8 - 1).view(-1, 1, 1, 1).expand(-1, 1, 8, 8))
    assert images.shape == (17, 1, 8, 8)
    assert images.dtype == torch.uint8
    for level in range(17):
        assert images[level].unique().tolist() == [round(255 * level / 16)]


def test_every_byte_survives_the_way_to_model_range_and_back() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(bytes_)), bytes_)
    assert from_uint8(bytes_).aminmax() == (-1, 1)


@pytest.mark.parametrize(
    ("value", "byte"), [(-1.0, 0), (1.0, 255), (-7.0, 0), (1.01, 255), (float("inf"), 255), (0.0, 128), (-0.999, 0)]
)
def test_samples_are_clamped_and_rounded(value: float, byte: int) -> None:
    assert to_uint8(torch.full((1, 1, 1, 1), value)).item() == byte
    assert to_uint8(torch.full((1, 1, 1, 1), value, dtype=torch.float64)).item() == byte


def test_half_precision_samples_are_scaled_in_full_precision() -> None:
    x = torch.linspace(-1, 1, 999).view(1, 1, 27, 37).to(torch.bfloat16)
    assert torch.equal(to_uint8(x), to_uint8(x.float()))


def test_reference_images_are_the_real_images_in_bytes(digits: Digits) -> None:
    pixels, _ = load_digits(return_X_y=True)
    expected = np.floor(pixels.reshape(-1, 1, 8, 8) * 255 / 16 + 0.5).astype(np.uint8)
    assert np.array_equal(digits.images().numpy(), expected)


def test_a_batch_is_the_asked_share_in_the_order_asked_for(digits: Digits) -> None:
    indices = torch.tensor([1796, 0, 5, 5, 900])
    all_x, all_y = digits.examples()
    for share in (slice(None), slice(1, 3), slice(4, 5)):
        x, y = digits.batch(indices, share, torch.Generator())
        assert torch.equal(x, all_x[indices[share]])
        assert torch.equal(y, all_y[indices[share]])


def test_a_batch_is_not_the_data_set_itself(digits: Digits) -> None:
    before = digits.examples()[0][3].clone()
    digits.batch(torch.tensor([3]), slice(None), torch.Generator())[0].fill_(9)
    assert torch.equal(digits.examples()[0][3], before)


def test_pixels_draw_nothing_from_the_step_s_generator(digits: Digits) -> None:
    random = torch.Generator().manual_seed(1)
    before = random.get_state()
    digits.batch(torch.tensor([3, 4]), slice(None), random)
    assert torch.equal(random.get_state(), before), "ids of older runs would name other results"


def test_facts_are_those_of_the_loaded_data() -> None:
    data = tiny().data
    facts, dataset = data.facts, data.load(torch.device("cpu"))
    x, y = dataset.batch(torch.arange(len(dataset)), slice(None), torch.Generator())
    assert len(dataset) == facts.length
    assert x.shape == (facts.length, *facts.shape)
    assert dataset.num_classes == facts.num_classes
    assert set(y.tolist()) == set(range(facts.num_classes))
    assert -1 <= x.min() < x.max() <= 1


@pytest.mark.parametrize(("size", "side"), [(256, 32), (512, 64)])
def test_facts_of_imagenet_are_known_before_it_is_encoded(size: int, side: int) -> None:
    """ImageNet's size and its latents' shape (paper, Sec. 4) are what plans need."""
    name = f"imagenet-{size}-latents"
    facts = data_part(name).facts(name, LatentOptions(vae="owner/vae"))
    assert (facts.length, facts.num_classes, facts.latents) == (1_281_167, 1000, True)
    assert (facts.shape, facts.image_shape) == ((4, side, side), (3, size, size))


def test_the_reference_is_the_real_images_and_named_by_their_number_and_content(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores with other references are never compared: any change of the images, or of their order, is another id."""
    reference, images = DIGITS.reference("digits", DIGITS.options()), digits.images()
    assert (reference.name, reference.id) == ("digits", "digits-1797-b41ca9fd")
    assert reference.images is not None
    assert np.array_equal(reference.images.pixels(0, 1797), images.numpy())
    changed = images.clone()
    changed[1000, 0, 4, 4] ^= 1
    identities = {reference.id}
    for other in (changed, images[:-1], images.flip(0), images.transpose(2, 3)):
        facts = DatasetFacts(len(other), (1, 8, 8), (1, 8, 8), num_classes=10)
        labels = np.zeros(len(other), dtype=np.int64)
        monkeypatch.setattr(type(DIGITS), "facts", lambda *_, facts=facts: facts)
        monkeypatch.setattr(type(DIGITS), "images", lambda *_, other=other, labels=labels: (other.numpy(), labels))
        identities.add(DIGITS.reference("digits", DIGITS.options()).id)
    assert len(identities) == 5


def test_knowing_the_facts_does_not_load_torch() -> None:
    script = (
        "import sys; from bench.data import data_part\n"
        "print(data_part('digits').facts('digits', None).length, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1797", "False"]
