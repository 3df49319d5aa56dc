"""Images in every container: the same pixels, the same hash, and one line where something is wrong with them."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from bench.commands.images import export_samples
from bench.data import images as images_module
from bench.data.images import ArrayImages, Images, open_images, write_npz, write_pngs
from bench.errors import InputError

Pixels = NDArray[np.uint8]


def random_pixels(num: int = 7, channels: int = 3, height: int = 5, width: int = 4, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (num, channels, height, width), dtype=np.uint8)


def all_of(images: Images) -> Pixels:
    return images.batch(0, len(images)).numpy()


def save_npy(path: Path, pixels: Pixels) -> Path:
    np.save(path, pixels)
    return path


def save_pngs(folder: Path, pixels: Pixels) -> Path:
    folder.mkdir()
    for index, image in enumerate(pixels):
        channels_last = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(channels_last).save(folder / f"{index:03d}.png")
    return folder


CONTAINERS: dict[str, Callable[[Path, Pixels], Path]] = {
    "npy": lambda folder, pixels: save_npy(folder / "a.npy", pixels),
    "npy in Fortran order": lambda folder, pixels: save_npy(folder / "f.npy", np.asfortranarray(pixels)),
    "npz": lambda folder, pixels: save_npz(folder / "a.npz", arr_0=pixels.transpose(0, 2, 3, 1)),
    "npz in Fortran order": lambda folder, pixels: save_npz(
        folder / "o.npz", arr_0=np.asfortranarray(pixels.transpose(0, 2, 3, 1))
    ),
    "compressed npz": lambda folder, pixels: save_compressed(folder / "c.npz", pixels),
    "written npz": lambda folder, pixels: write_and_give(write_npz, folder / "w.npz", pixels),
    "pngs": lambda folder, pixels: save_pngs(folder / "pngs", pixels),
    "written pngs": lambda folder, pixels: write_and_give(write_pngs, folder / "written", pixels),
}


def save_npz(path: Path, **arrays: NDArray) -> Path:
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return path


def save_compressed(path: Path, pixels: Pixels) -> Path:
    np.savez_compressed(path, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    return path


def write_and_give(write: Callable[[Images, Path], None], path: Path, pixels: Pixels) -> Path:
    write(ArrayImages(pixels), path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_back_the_pixels(container: str, channels: int, tmp_path: Path) -> None:
    pixels = random_pixels(channels=channels)
    images = open_images(CONTAINERS[container](tmp_path, pixels))
    assert images.shape == (7, channels, 5, 4)
    assert len(images) == 7
    batch = images.batch(2, 5)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous()
    assert np.array_equal(batch.numpy(), pixels[2:5])
    assert np.array_equal(all_of(images), pixels)
    assert images.batch(5, 100).shape == (2, channels, 5, 4)
    assert images.batch(3, 3).shape == (0, channels, 5, 4)
    assert images.content_hash() == ArrayImages(pixels).content_hash()


def test_a_batch_is_memory_of_its_own(tmp_path: Path) -> None:
    pixels = random_pixels()
    images = open_images(save_npy(tmp_path / "a.npy", pixels))
    images.batch(0, 7).zero_()
    assert np.array_equal(all_of(images), pixels)


@pytest.mark.parametrize("chunk_bytes", [1, 60, 61, 150, 10**6])
def test_the_hash_does_not_depend_on_how_it_is_read(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed by hand: SHA-256 of type and shape, then of the bytes 0 .. 119 in the order N, C, H, W."""
    pixels = np.arange(120, dtype=np.uint8).reshape(2, 3, 5, 4)
    monkeypatch.setattr(images_module, "CHUNK_BYTES", chunk_bytes)
    expected = "4f60340afb4449b596c4a6a81d4461ca16dae6589c170b60b6468d6bf2632fce"
    channels_last = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    assert ArrayImages(pixels).content_hash() == expected
    assert ArrayImages(channels_last, channels_last=True).content_hash() == expected


def test_the_hash_tells_images_apart() -> None:
    pixels = random_pixels(4, 3, 4, 4)
    changed = pixels.copy()
    changed[2, 1, 3, 0] ^= 1
    others = [pixels, changed, pixels[:-1], pixels[::-1], pixels.transpose(0, 1, 3, 2), pixels[:, ::-1]]
    others += [pixels.reshape(4, 3, 2, 8), pixels.reshape(12, 1, 4, 4)]
    assert len({ArrayImages(other).content_hash() for other in others}) == len(others)


@settings(max_examples=25, deadline=None)
@given(
    num=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    labelled=st.booleans(),
)
def test_a_written_npz_is_what_numpy_reads(
    num: int, channels: int, height: int, width: int, labelled: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pixels = random_pixels(num, channels, height, width, seed=num)
    labels = np.arange(num, dtype=np.int64) * 7 if labelled else None
    path = tmp_path_factory.mktemp("npz") / "samples.npz"
    write_npz(ArrayImages(pixels), path, labels)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["arr_0", "arr_1"][: 1 + labelled]
        assert file["arr_0"].dtype == np.uint8
        assert np.array_equal(file["arr_0"], pixels.transpose(0, 2, 3, 1))
        if labels is not None:
            assert file["arr_1"].dtype == np.int64
            assert np.array_equal(file["arr_1"], labels)
    assert zipfile.ZipFile(path).testzip() is None
    assert np.array_equal(all_of(open_images(path)), pixels)


def test_the_same_images_give_the_same_npz_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels()
    write_npz(ArrayImages(pixels), tmp_path / "one.npz", np.arange(7))
    monkeypatch.setattr(images_module, "CHUNK_BYTES", 100)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_npz(ArrayImages(pixels), tmp_path / "two.npz", np.arange(7))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_labels_must_be_as_many_as_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels: shape \(6,\), expected \(7,\)"):
        write_npz(ArrayImages(random_pixels()), tmp_path / "a.npz", np.arange(6))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_stored_arrays_are_mapped_and_written_in_chunks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening, hashing and writing 12 MB of images takes less memory than a fifth of them."""
    monkeypatch.setattr(images_module, "CHUNK_BYTES", 2**18)
    pixels = random_pixels(64, 3, 256, 256)
    path = CONTAINERS[kind](tmp_path, pixels)
    tracemalloc.start()
    images = open_images(path)
    digest = images.content_hash()
    write_npz(images, tmp_path / "out.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.nbytes / 5
    assert open_images(tmp_path / "out.npz").content_hash() == digest == ArrayImages(pixels).content_hash()


def test_an_array_of_another_name_is_taken_where_it_is_the_only_one(tmp_path: Path) -> None:
    pixels = random_pixels()
    channels_last = pixels.transpose(0, 2, 3, 1)
    path = save_npz(tmp_path / "a.npz", samples=channels_last, mu=np.zeros(4), arr_1=np.arange(3))
    assert np.array_equal(all_of(open_images(path)), pixels)
    path = save_npz(tmp_path / "b.npz", samples=channels_last, others=channels_last)
    refused(path, r"samples uint8 \(7, 5, 4, 3\), others uint8 \(7, 5, 4, 3\) could all be the images; name one arr_0")
    path = save_npz(tmp_path / "c.npz", others=channels_last[::-1], arr_0=channels_last)
    assert np.array_equal(all_of(open_images(path)), pixels)


# Folders


def test_a_folder_is_sorted_by_name(tmp_path: Path) -> None:
    pixels = random_pixels(4)
    for name, image in zip(["b.png", "a.PNG", "10.png", "9.png"], pixels, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".000003.png").write_bytes(b"left by an interrupted copy")
    assert np.array_equal(all_of(open_images(tmp_path)), pixels[[2, 3, 1, 0]])


def test_a_folder_of_folders_is_sorted_by_relative_path(tmp_path: Path) -> None:
    a, b, c = random_pixels(2, seed=1), random_pixels(3, seed=2), random_pixels(1, seed=3)
    (tmp_path / "n01").mkdir()
    for name, pixels in (("n02", b), ("n01/deep", a), ("n10", c)):
        save_pngs(tmp_path / name, pixels)
    (tmp_path / "README.md").write_text("classes")
    assert np.array_equal(all_of(open_images(tmp_path)), np.concatenate([a, b, c]))


def test_grey_among_colour_is_repeated(tmp_path: Path) -> None:
    grey, colour = random_pixels(1, 1), random_pixels(1, 3)
    Image.fromarray(grey[0, 0]).save(tmp_path / "a.png")
    Image.fromarray(colour[0].transpose(1, 2, 0)).save(tmp_path / "b.png")
    assert np.array_equal(all_of(open_images(tmp_path)), np.concatenate([grey.repeat(3, axis=1), colour]))


def test_jpegs_are_read_as_pillow_decodes_them(tmp_path: Path) -> None:
    image = Image.fromarray(random_pixels(1, 3, 16, 24)[0].transpose(1, 2, 0))
    image.save(tmp_path / "a.jpg", quality=90)
    images = open_images(tmp_path)
    assert images.shape == (1, 3, 16, 24)
    assert np.array_equal(all_of(images)[0], np.asarray(Image.open(tmp_path / "a.jpg")).transpose(2, 0, 1))


def test_png_files_go_on_where_they_stopped(tmp_path: Path) -> None:
    pixels = random_pixels()
    write_pngs(ArrayImages(pixels), tmp_path / "out")
    names = [f"{index:06d}.png" for index in range(7)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    paths = [tmp_path / "out" / name for name in names]
    whole = [path.read_bytes() for path in paths]
    paths[1].unlink()
    paths[3].write_bytes(whole[3][:40])
    paths[4].write_bytes(b"")
    paths[6].write_bytes(whole[6][:-30])
    kept = {path: path.stat().st_ino for path in (paths[0], paths[2], paths[5])}
    write_pngs(ArrayImages(pixels), tmp_path / "out")
    assert [path.read_bytes() for path in paths] == whole
    assert {path: path.stat().st_ino for path in kept} == kept
    assert len(list((tmp_path / "out").iterdir())) == 7


def test_png_files_of_other_images_are_neither_mixed_in_nor_lost(tmp_path: Path) -> None:
    old, new = random_pixels(), random_pixels(seed=1)
    write_pngs(ArrayImages(old), tmp_path)
    with pytest.raises(InputError, match=r"000000.png: has another image than the one to be written; give a folder"):
        write_pngs(ArrayImages(new), tmp_path)
    with pytest.raises(InputError, match=r"has other images, such as 000005\.png"):
        write_pngs(ArrayImages(old[:5]), tmp_path)
    for other in (old[:, :, :4], old[:, :1]):
        with pytest.raises(InputError, match="has another image"):
            write_pngs(ArrayImages(other), tmp_path)
    assert np.array_equal(all_of(open_images(tmp_path)), old)


def test_previews_beside_folders_of_samples_are_refused(tmp_path: Path) -> None:
    """Neither the two previews nor the five samples may be scored in the place of the others."""
    save_pngs(tmp_path / "samples", random_pixels(2))
    save_pngs(tmp_path / "samples" / "a", random_pixels(5, seed=1))
    refused(tmp_path / "samples", r"folder itself \(2, such as 000\.png\) and in folders below it \(5, such as a/")


@pytest.mark.parametrize(
    "labels",
    [np.arange(7.0), np.eye(7), np.arange(7)[:, None], np.arange(3), np.array(["a", "b"]), np.array([{}, 1], object)],
    ids=["floats", "one-hot", "a column", "too few", "text", "objects"],
)
def test_labels_of_any_form_are_left_aside(labels: NDArray, tmp_path: Path) -> None:
    pixels = random_pixels()
    path = save_npz(tmp_path / "a.npz", arr_0=pixels.transpose(0, 2, 3, 1), arr_1=labels)
    assert np.array_equal(all_of(open_images(path)), pixels)


# Bad input


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 4), np.float32), r"float32 \(2, 3, 4, 4\); accepted: uint8 \(N, C, H, W\)"),
        (np.zeros((2, 3, 4, 4), np.int8), "int8"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"uint8 \(2, 4, 4, 3\); accepted"),
        (np.zeros((3, 4, 4), np.uint8), r"uint8 \(3, 4, 4\); accepted"),
        (np.zeros((0, 3, 4, 4), np.uint8), r"uint8 \(0, 3, 4, 4\); accepted"),
        (np.array([{"a": 1}], dtype=object), r"object \(1,\); accepted"),
    ],
)
def test_npy_files_that_hold_no_images_are_refused(array: NDArray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    refused(tmp_path / "a.npy", message)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3))}, r"arr_0 float64 \(2, 4, 4, 3\); accepted: uint8 \(N, H, W, C\)"),
        ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, r"arr_0 uint8 \(2, 3, 4, 4\); accepted"),
        ({"arr_0": np.zeros((4, 4, 3), np.uint8)}, r"arr_0 uint8 \(4, 4, 3\); accepted"),
        ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, r"arr_0 uint8 \(0, 4, 4, 3\); accepted"),
        ({"arr_0": np.array([{"a": 1}], dtype=object)}, r"arr_0 object \(1,\); accepted"),
        ({"samples": np.zeros((2, 3, 4, 4), np.uint8)}, r"samples uint8 \(2, 3, 4, 4\); accepted"),
        ({"mu": np.zeros(3)}, r"no images; it has mu float64 \(3,\); accepted: arr_0 uint8"),
        ({}, "no images; it has nothing"),
    ],
)
def test_npz_files_that_hold_no_images_are_refused(arrays: dict[str, NDArray], message: str, tmp_path: Path) -> None:
    refused(save_npz(tmp_path / "a.npz", **arrays), message)


@pytest.mark.parametrize("container", ["npy", "npz", "compressed npz"])
@pytest.mark.parametrize("left", [0, 5, 100, 0.5, 0.99])
def test_files_that_are_cut_off_are_refused(container: str, left: float, tmp_path: Path) -> None:
    path = CONTAINERS[container](tmp_path, random_pixels(40))
    data = path.read_bytes()
    path.write_bytes(data[: int(left if left >= 1 else left * len(data))])
    refused(path, r"cannot be read as \.np[yz]")


def test_other_files_under_these_names_are_refused(tmp_path: Path) -> None:
    for name in ("a.npy", "a.npz"):
        (tmp_path / name).write_bytes(b"PK? no, some text of at least 30 bytes, and then some more of it\n" * 9)
        refused(tmp_path / name, "cannot be read as")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.txt", "no array in this archive")
    refused(tmp_path / "b.npz", "cannot be read as .npz")
    (tmp_path / "a.zip").write_bytes(b"")
    refused(tmp_path / "a.zip", r"not images; accepted: \.npy, \.npz, a folder of \.png")
    refused(tmp_path / "nowhere.npy", "no such file or folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no images in it; accepted: \.png")


def test_a_damaged_byte_of_a_compressed_array_is_noticed(tmp_path: Path) -> None:
    path = save_compressed(tmp_path / "a.npz", np.zeros((50, 3, 16, 16), np.uint8))
    data = bytearray(path.read_bytes())
    middle = zipfile.ZipFile(path).infolist()[0].compress_size // 2 + 60
    data[middle] ^= 0xFF
    path.write_bytes(data)
    refused(path, "cannot be read")


def test_an_array_that_is_longer_than_its_member_is_refused(tmp_path: Path) -> None:
    """Mapped without a look at the member's length, pixels would come from whatever follows in the file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2, 4, 4, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue() + bytes(95))
        archive.writestr("other.npy", header.getvalue() + bytes(96))
    refused(tmp_path / "a.npz", r"arr_0: cannot be read \(95 bytes for \(2, 4, 4, 3\)\)")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("count", [10**6, 10**12, 2**62])
def test_more_images_than_the_file_can_hold_are_refused_unread(count: int, compression: int, tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count, 4, 4, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("arr_0.npy", header.getvalue() + bytes(96))
    (tmp_path / "a.npy").write_bytes(header.getvalue().replace(b"4, 4, 3)", b"3, 4, 4)") + bytes(96))
    tracemalloc.start()
    refused(tmp_path / "a.npz", "arr_0: cannot be read")
    refused(tmp_path / "a.npy", "cannot be read as .npy")
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_arrays_that_memory_cannot_hold_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_compressed(tmp_path / "a.npz", np.zeros((50, 3, 16, 16), np.uint8))
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 9}[name])
    refused(path, "38,528 bytes, and this machine's memory is 36,864")
    assert open_images(save_npz(tmp_path / "b.npz", arr_0=np.zeros((50, 16, 16, 3), np.uint8))).shape[0] == 50


def test_folders_of_images_that_differ_are_refused_by_file(tmp_path: Path) -> None:
    folder = save_pngs(tmp_path / "a", random_pixels())
    Image.fromarray(random_pixels(1, 3, 4, 5)[0].transpose(1, 2, 0)).save(folder / "004.png")
    refused(folder, r"004.png: 5 x 4 pixels, and 000.png 4 x 5; accepted: images of one size")
    for mode in ("RGBA", "LA", "P", "I;16", "1"):
        Image.new(mode, (4, 5)).save(folder / "004.png")
        refused(folder, f"004.png: mode {mode}; accepted: L")
    (folder / "004.png").rename(folder / "004.tif")
    for mode in ("I", "F"):
        Image.new(mode, (4, 5)).save(folder / "004.tif")
        refused(folder, f"004.tif: mode {mode}; accepted: L")
    (folder / "004.tif").rename(folder / "004.png")
    (folder / "004.png").write_bytes(b"no image")
    refused(folder, "004.png: cannot be read as an image")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_that_is_cut_off_is_refused_when_it_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(random_pixels(1, 3, 64, 64)[0].transpose(1, 2, 0)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    images = open_images(tmp_path)
    with pytest.raises(InputError, match=rf"a\.{suffix}: cannot be read as an image"):
        images.batch(0, 1)


# The command


def export(samples: Path, out: str) -> str:
    app = typer.Typer()
    app.command()(export_samples)
    result = CliRunner().invoke(app, [str(samples), out], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_exported_bit_for_bit_and_come_back(channels: int, tmp_path: Path) -> None:
    pixels = random_pixels(channels=channels)
    samples = save_npy(tmp_path / "step-00000600.npy", pixels)
    for out in ("out.npz", "pngs/", "plain", "nested/step.600/"):
        assert export(samples, f"{tmp_path}/{out}") == f"7 images: {tmp_path}/{out}\n"
        assert np.array_equal(all_of(open_images(tmp_path / out)), pixels)
    export(tmp_path / "pngs", f"{tmp_path}/again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "out.npz").read_bytes()


def test_exports_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    samples = save_npy(tmp_path / "a.npy", random_pixels())
    before = samples.read_bytes()
    for out, message in (
        (f"{tmp_path}/out.zip", "neither FILE.npz nor FOLDER/"),
        (f"{tmp_path}/out.npy", "neither FILE.npz nor FOLDER/"),
        (f"{tmp_path}/../{tmp_path.name}/a.npy", "is where the samples are"),
    ):
        with pytest.raises(InputError, match=message):
            export(samples, out)
    assert samples.read_bytes() == before
    assert list(tmp_path.iterdir()) == [samples]


def test_opening_images_does_not_load_torch(tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", random_pixels())
    script = f"""
import sys
from pathlib import Path
from typing import Any
import bench.commands.images, bench.data.images
print(len(bench.data.images.open_images(Path({str(path)!r}))), 'torch' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "False"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("place", [50, 1000, 3000])  # deflate has bits that mean nothing at its ends
def test_a_flipped_byte_in_an_npz_is_named(tmp_path: Path, save: Any, place: int) -> None:
    """Images are mapped, past zipfile, which compares checksums."""
    path, pixels = tmp_path / "a.npz", np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    save(path, arr_0=pixels)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("arr_0.npy").compress_size
    start = 30 + int.from_bytes(whole[26:28], "little") + int.from_bytes(whole[28:30], "little")
    if save is np.savez:
        start, size = start + 128, size - 128  # after the array's header
    data = bytearray(whole)
    data[start + place % size] ^= 1
    path.write_bytes(data)
    refused(path, "cannot be read")


@pytest.mark.parametrize("shape", [(2**40, 8, 8, 3), (2**62, 4, 4, 3), (-1, 8, 8, 3), (10**30, 1, 1, 1)])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_shape_beyond_the_file_is_refused_before_memory_is_taken(
    tmp_path: Path, shape: tuple[int, ...], compression: int
) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
        archive.writestr("arr_0.npy", header.getvalue() + bytes(1000))
    refused(tmp_path / "a.npz", "cannot be read")
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(1000))
    refused(tmp_path / "a.npy", "a.npy")


def test_a_member_that_claims_more_than_deflate_can_give_is_refused(tmp_path: Path) -> None:
    """Both the array's header and the archive's directory say 3 TB; a megabyte of zeros is what it is."""
    header = io.BytesIO()
    claimed = (2**34, 8, 8, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": claimed})
    size = len(header.getvalue()) + math.prod(claimed)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", header.getvalue() + bytes(10**6))
        archive.infolist()[0].file_size = size
    refused(tmp_path / "a.npz", "arr_0: cannot be read")


def test_a_header_of_nested_brackets_is_refused(tmp_path: Path) -> None:
    text = b"(" * 9000 + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", data)
    for name in ("a.npy", "a.npz"):
        refused(tmp_path / name, "cannot be read")
