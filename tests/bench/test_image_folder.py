"""Images as ADM loads them: listed by class, in RGB, cropped to the middle square."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from photos import PATHS, make_images, noise
from PIL import Image

from bench.data.image_file import RefusedImage, UnreadableImage
from bench.data.image_folder import center_crop, list_images, read_image
from bench.errors import InputError

SIZE = 32


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "photos")


def test_images_are_listed_by_class_and_path(photos: Path) -> None:
    images = list_images(photos)
    assert images.classes == ("cat", "dog", "eel")
    assert list(images.paths) == PATHS
    assert list(images.labels) == [0] * 5 + [1] * 4 + [2] * 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "no folders in it; accepted: a folder with a folder of images for each class"),
        (lambda root: (root / "ant").mkdir(parents=True), "ant: a class folder without images; accepted: .png, "),
    ],
)
def test_a_folder_without_classes_or_images_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "images")
    with pytest.raises(InputError, match=message) as caught:
        list_images(tmp_path / "images")
    assert str(caught.value).startswith(str(tmp_path / "images"))


def cropped(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(center_crop(Image.fromarray(pixels), size))


@pytest.mark.parametrize(("height", "width", "top", "left"), [(16, 16, 0, 0), (16, 21, 0, 2), (31, 16, 7, 0)])
def test_the_middle_is_taken_and_the_odd_pixel_left_over_is_at_the_end(
    height: int, width: int, top: int, left: int
) -> None:
    pixels = noise(height, width)
    assert np.array_equal(cropped(pixels, 16), pixels[top : top + 16, left : left + 16])


@pytest.mark.parametrize("times", [2, 4, 8])
def test_a_multiple_of_the_size_is_halved_by_means_of_2_x_2(times: int) -> None:
    small = noise(16, 16)
    assert np.array_equal(cropped(small.repeat(times, 0).repeat(times, 1), 16), small)
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    assert set(cropped(stripes, 16).ravel()) == {100}


def bicubic_weights(length: int, size: int) -> NDArray[np.float64]:
    """(size, length): Keys' cubic with a = -1/2, widened by the scale where it shrinks, cut at the borders."""
    scale = length / size
    center = (np.arange(size)[:, None] + 0.5) * scale
    x = np.abs((np.arange(length)[None] + 0.5 - center) / max(scale, 1))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def box_weights(length: int, size: int) -> NDArray[np.float64]:
    """(size, length): equal for the pixels whose centre is in the new pixel."""
    low = np.arange(size)[:, None] * (length / size)
    center = np.arange(length)[None] + 0.5
    weights = ((center > low) & (center <= low + length / size)).astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(
    pixels: NDArray[np.float64], height: int, width: int, weights: Callable[[int, int], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Rows, then columns, bytes after each, as PIL does it."""
    pixels = np.floor(np.einsum("cj,ijk->ick", weights(pixels.shape[1], width), pixels) + 0.5).clip(0, 255)
    return np.floor(np.einsum("ri,ijk->rjk", weights(pixels.shape[0], height), pixels) + 0.5).clip(0, 255)


@pytest.mark.parametrize(
    ("height", "width", "halvings", "scaled"),
    [
        (23, 31, 0, (16, 22)),
        (10, 9, 0, (18, 16)),
        (31, 57, 0, (16, 29)),
        (75, 33, 1, (37, 16)),
        (64, 130, 2, (16, 32)),
        (127, 250, 2, (16, 32)),
    ],
)
def test_the_shorter_side_is_halved_and_scaled_to_the_size(
    height: int, width: int, halvings: int, scaled: tuple[int, int]
) -> None:
    """Against the filters by their formulas."""
    pixels = noise(height, width)
    expected = pixels.astype(np.float64)
    for _ in range(halvings):
        expected = resized(expected, expected.shape[0] // 2, expected.shape[1] // 2, box_weights)
    expected = resized(expected, *scaled, bicubic_weights)
    top, left = (scaled[0] - 16) // 2, (scaled[1] - 16) // 2
    difference = np.abs(cropped(pixels, 16) - expected[top : top + 16, left : left + 16])
    assert difference.max() <= 1  # of a value near one half
    assert difference.mean() < 0.2


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), size=st.integers(1, 40))
def test_every_image_becomes_a_square_of_the_size_in_its_own_colour(height: int, width: int, size: int) -> None:
    pixels = np.full((height, width, 3), (3, 100, 255), np.uint8)
    assert np.array_equal(cropped(pixels, size), np.full((size, size, 3), (3, 100, 255)))


def test_colour_modes_become_rgb(photos: Path, tmp_path: Path) -> None:
    grey = read_image(photos / "cat/grey.png", SIZE)
    assert (grey.shape, grey.dtype) == ((3, SIZE, SIZE), np.uint8)
    assert np.array_equal(grey[0], grey[1])
    assert np.array_equal(grey[0], grey[2])
    for name in ("cat/inks.jpg", "dog/palette.png"):
        with Image.open(photos / name) as image:
            expected = np.asarray(center_crop(image.convert("RGB"), SIZE))
        assert np.array_equal(read_image(photos / name, SIZE), expected.transpose(2, 0, 1))
    pixels = noise(16, 16)
    clear = np.dstack([pixels, np.zeros((16, 16), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "clear.png", 16), pixels.transpose(2, 0, 1)), "ADM drops transparency"


def test_orientation_in_metadata_is_not_applied(tmp_path: Path) -> None:
    metadata = Image.Exif()
    metadata[0x0112] = 6  # rotated by a quarter
    pixels = noise(16, 16)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=metadata)
    assert np.array_equal(read_image(tmp_path / "turned.png", 16), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size - 100),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no image"),
        Path.unlink,
    ],
    ids=["half", "end missing", "empty", "text", "missing"],
)
@pytest.mark.parametrize(
    "name", [f"image{suffix}" for suffix in (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp", ".ppm")]
)
def test_an_unreadable_image_says_why_in_one_line(tmp_path: Path, spoil: Callable[[Path], object], name: str) -> None:
    Image.fromarray(noise(40, 40)).save(tmp_path / name)
    assert read_image(tmp_path / name, SIZE).shape == (3, SIZE, SIZE)
    spoil(tmp_path / name)
    with pytest.raises(UnreadableImage) as caught:
        read_image(tmp_path / name, SIZE)
    assert re.fullmatch(r"\w+Error: \S.*", str(caught.value))
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("I;16", "png"), ("I;16", "tif"), ("I;16B", "tif"), ("I", "tif"), ("F", "tif"), ("I", "pgm")]
)
def test_more_than_8_bits_are_refused_by_their_mode(tmp_path: Path, mode: str, suffix: str) -> None:
    """Pillow's conversion cuts values off at 255: what is not black becomes white."""
    path = tmp_path / f"image.{suffix}"
    Image.new(mode, (16, 16), 300).save(path)
    with pytest.raises(RefusedImage, match=rf"^mode {mode}; accepted: 8 bits a channel"):
        read_image(path, SIZE)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animations_are_refused_and_still_images_of_these_formats_are_not(tmp_path: Path, suffix: str) -> None:
    first, *others = [Image.fromarray(noise(16, 16)).rotate(turn) for turn in (0, 90, 180)]
    path = tmp_path / f"image.{suffix}"
    first.save(path)
    assert read_image(path, SIZE).shape == (3, SIZE, SIZE)
    first.save(path, save_all=True, append_images=others)
    with pytest.raises(RefusedImage, match="of 3 images; accepted: one image a file"):
        read_image(path, SIZE)


def test_the_first_picture_of_a_telephone_s_jpeg_is_the_image(tmp_path: Path) -> None:
    first, second = Image.fromarray(noise(16, 16)), Image.new("RGB", (16, 16))
    first.save(tmp_path / "image.jpg", format="MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "alone.jpg")
    assert np.array_equal(read_image(tmp_path / "image.jpg", 16), read_image(tmp_path / "alone.jpg", 16))


@pytest.mark.parametrize(
    ("size", "message"),
    [((10_000, 9_000), "10000 x 9000 pixels; accepted: 1 to "), ((20_000, 20_000), "400000000 pixels")],
)
def test_a_small_file_of_many_pixels_is_refused_before_they_are_decoded(
    tmp_path: Path, size: tuple[int, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", size).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(UnreadableImage, match=message):
        read_image(tmp_path / "bomb.png", SIZE)
    if "DecompressionBomb" not in message:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as other libraries set it
        with pytest.raises(RefusedImage, match="accepted: 1 to "):
            read_image(tmp_path / "bomb.png", SIZE)


def test_an_image_so_narrow_that_its_crop_takes_gigabytes_is_refused(tmp_path: Path) -> None:
    Image.new("L", (1, 10_000)).save(tmp_path / "narrow.png")
    assert read_image(tmp_path / "narrow.png", 16).shape == (3, 16, 16)
    with pytest.raises(RefusedImage, match="1 x 10000 pixels; accepted: less narrow ones"):
        read_image(tmp_path / "narrow.png", 256)


def test_other_formats_under_an_image_s_name_are_not_opened(tmp_path: Path) -> None:
    """Pillow would start Ghostscript for the one, and has had holes in the other."""
    for kind in ("EPS", "TGA"):
        Image.new("RGB", (16, 16)).save(tmp_path / "image.jpg", format=kind)
        with pytest.raises(UnreadableImage, match="UnidentifiedImageError"):
            read_image(tmp_path / "image.jpg", 16)
