"""`ditbench reference`: statistics of images, the same after any interruption, and what may be scored against them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photos import PATHS, make_images

from bench.data.digits import DIGITS
from bench.data.image_folder import read_image
from bench.data.images import ArrayImages, open_images, write_pngs
from bench.errors import InputError, RunError
from bench.parallel import SINGLE
from bench.score.extractors import Extractor, digits_cnn, load_extractor
from bench.score.features import CHUNK, extract
from bench.score.fidelity import Scorer
from bench.score.make_reference import make_reference
from bench.score.reference import find_reference, open_reference
from bench.stopping import Stopped, StopRequest
from ditbench import main

CPU = torch.device("cpu")
REAL = DIGITS.reference("digits", DIGITS.options())
assert REAL.images is not None
PIXELS = REAL.images.pixels(0, 1797)
SAMPLES = ArrayImages((255 - PIXELS[::9].astype(np.int64) // 2).astype(np.uint8))


class StopAfter(StopRequest):
    """A request that comes once it has been asked for `chunks` times."""

    def __init__(self, chunks: int) -> None:
        super().__init__()
        self._chunks = chunks

    def __bool__(self) -> bool:
        self._chunks -= 1
        return self._chunks < 0


@pytest.fixture(scope="module")
def network(features: Path) -> Extractor:
    return load_extractor("digits-cnn", features, offline=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "digits.npy"
    np.save(path, PIXELS)
    return path


@pytest.fixture
def make(network: Extractor, tmp_path: Path) -> Callable[..., Path]:
    def make(
        source: Path, name: str = "made.npz", stop: StopRequest | None = None, image_size: int | None = None
    ) -> Path:
        out = tmp_path / name
        stop = StopRequest() if stop is None else stop
        make_reference(source, image_size, network, out, tmp_path / "work", CPU, SINGLE, stop)
        return out

    return make


@pytest.fixture
def ditbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    def ditbench(*arguments: object, status: int = 0) -> tuple[str, str]:
        """What the command prints on stdout and on stderr."""
        monkeypatch.setattr(sys, "argv", ["ditbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == status, printed
        return printed.out, printed.err

    return ditbench


def content(path: Path) -> dict[str, NDArray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def chunks(work: Path) -> list[Path]:
    return sorted(work.glob("*/features-*"))


def test_the_statistics_are_those_of_the_features(
    make: Callable[..., Path], network: Extractor, real: Path, tmp_path: Path
) -> None:
    made = content(make(real))
    features = extract(ArrayImages(PIXELS), network.network, tmp_path, CPU, SINGLE, StopRequest())
    expected = features.all(digits_cnn.FEATURES).double().numpy()
    assert np.allclose(made["mean_64"], expected.mean(0), rtol=1e-12)
    assert np.allclose(made["covariance_64"], np.cov(expected.T), rtol=1e-9, atol=1e-12)
    assert made["mean_64"].dtype == made["covariance_64"].dtype == np.float64
    assert (str(made["extractor"]), int(made["num_images"])) == (network.id, 1797)
    assert not list((tmp_path / "work").iterdir()), "features go once the statistics are written"


def test_a_score_against_them_is_the_score_against_the_images(
    make: Callable[..., Path], network: Extractor, real: Path, tmp_path: Path
) -> None:
    reference = open_reference(make(real, "all-digits.npz"))
    assert (reference.extractor, reference.images) == (network.id, None)
    assert reference.id.startswith("all-digits-statistics-")
    assert reference.gaussians["64"].count == 1797
    by_statistics = Scorer(reference, network, 50, tmp_path / "a", CPU)
    by_images = Scorer(REAL, network, 50, tmp_path / "b", CPU)
    ours, theirs = by_statistics.score(SAMPLES, tmp_path / "c"), by_images.score(SAMPLES, tmp_path / "c")
    assert ours == {name: theirs[name] for name in ours}
    assert set(theirs) - set(ours) == {"kid", "kid_std", "precision", "recall"}
    assert by_statistics.key["reference_statistics"] == "of the file"
    assert by_images.key["reference_statistics"] == "of its 1797 images"


def test_an_interrupted_call_continues_to_the_same_bytes(make: Callable[..., Path], real: Path, tmp_path: Path) -> None:
    expected = make(real, "whole.npz").read_bytes()
    with pytest.raises(Stopped):
        make(real, stop=StopAfter(chunks=2))
    first, second = chunks(tmp_path / "work")
    assert not (tmp_path / "made.npz").exists()
    written = first.stat().st_mtime_ns
    second.unlink()
    with pytest.raises(Stopped):
        make(real, stop=StopAfter(chunks=1))
    assert [path.name for path in chunks(tmp_path / "work")] == [first.name, second.name]
    assert first.stat().st_mtime_ns == written, "a chunk that was there was made again"

    second.write_bytes(second.read_bytes()[:-5])
    with pytest.raises(RunError, match="damaged features, removed; the same command makes them again"):
        make(real)
    assert make(real).read_bytes() == expected


def test_features_of_other_images_are_not_taken_for_these(make: Callable[..., Path], tmp_path: Path) -> None:
    source = tmp_path / "changing.npy"
    np.save(source, PIXELS)
    with pytest.raises(Stopped):
        make(source, stop=StopAfter(chunks=2))
    other = PIXELS[::-1].copy()
    np.save(source, other)
    np.save(tmp_path / "other.npy", other)
    assert content(make(source))["content_hash"] == content(make(tmp_path / "other.npy", "other.npz"))["content_hash"]


def test_the_content_hash_is_of_the_pixels_whatever_holds_them(make: Callable[..., Path], tmp_path: Path) -> None:
    few = PIXELS[: CHUNK + 3].copy()
    np.save(tmp_path / "array.npy", few)
    write_pngs(ArrayImages(few), tmp_path / "folder")
    few[-1, 0, 7, 7] ^= 1
    np.save(tmp_path / "changed.npy", few)
    array, folder, changed = (content(make(tmp_path / n, f"{n}.npz")) for n in ("array.npy", "folder", "changed.npy"))
    assert array["content_hash"] == folder["content_hash"] != changed["content_hash"]
    assert np.array_equal(array["covariance_64"], folder["covariance_64"])


def test_a_folder_of_classes_is_cropped_as_for_training(make: Callable[..., Path], tmp_path: Path) -> None:
    photos = make_images(tmp_path / "photos")
    np.save(tmp_path / "cropped.npy", np.stack([read_image(photos / path, 8) for path in PATHS]))
    ours, expected = make(photos, "photos.npz", image_size=8), make(tmp_path / "cropped.npy", "cropped.npz")
    assert ours.read_bytes() == expected.read_bytes()
    (photos / "dog" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"dog/1\.jpg: cannot be read as an image"):
        make(photos, "again.npz", image_size=8)


def test_statistics_of_another_network_are_refused_by_both_names(
    make: Callable[..., Path], network: Extractor, real: Path, tmp_path: Path
) -> None:
    reference = open_reference(make(real))
    other = replace(network, id="digits-cnn-01234567")
    with pytest.raises(InputError, match=rf"made: has statistics of {network.id} .*digits-cnn-01234567"):
        Scorer(reference, other, 50, tmp_path, CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"covariance_64": None}, "has no covariance_64"),
        ({"num_images": None}, "has no num_images"),
        ({"mean_64": None}, "has no mean_LAYER"),
        ({"num_images": np.array(1.5)}, r"num_images float64 \(\); accepted: one integer"),
        ({"extractor": np.array(7)}, r"extractor int64 \(\); accepted"),
        ({"covariance_64": np.eye(5)}, r"covariance_64 float64 \(5, 5\); accepted: float32 or float64 \(64, 64\)"),
        ({"mean_64": np.full(64, np.nan)}, "mean_64, covariance_64: mean: 64 values are not finite"),
    ],
)
def test_files_that_are_not_whole_are_refused(
    make: Callable[..., Path], real: Path, tmp_path: Path, changes: dict[str, NDArray | None], message: str
) -> None:
    arrays = {**content(make(real)), **changes}
    kept = {name: array for name, array in arrays.items() if array is not None}
    np.savez(tmp_path / "bad.npz", **kept)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=message) as caught:
        open_reference(tmp_path / "bad.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'bad.npz'}: ")


def test_the_command_makes_what_evaluate_takes(
    ditbench: Callable[..., tuple[str, str]], real: Path, features: Path, tmp_path: Path
) -> None:
    out = tmp_path / "digits.npz"
    command = ("reference", real, "--extractor", "digits-cnn", "--work", features)
    assert "of 1,797 images" in ditbench(*command, "--out", out)[0]
    assert "is there already" in ditbench(*command, "--out", out, status=2)[1]
    unknown = ditbench(*command, "--extractor", "vgg", "--out", tmp_path / "other.npz", status=2)[1]
    assert "--extractor vgg: unknown extractor 'vgg'; accepted: inception-v3-compat, dinov2-vitl14" in unknown
    assert "accepted: a .npz file" in ditbench(*command, "--out", tmp_path / "digits.npy", status=2)[1]
    np.save(tmp_path / "samples.npy", open_images(real).pixels(0, 200))
    score = ("evaluate", tmp_path / "samples.npy", "--work", features, "--kid-subset-size", 20, "--format", "json")
    score = (*score, "--extractor", "digits-cnn", "--reference")
    ours, theirs = (json.loads(ditbench(*score, reference)[0]) for reference in (out, real))
    assert ours["fid"] == theirs["fid"]
    assert (ours["reference_statistics"], theirs["reference_statistics"]) == ("of the file", "of its 1797 images")


def test_they_are_found_by_path_or_in_the_cache(
    make: Callable[..., Path], real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path))
    (tmp_path / "references").mkdir()
    path = make(real, "references/mine.npz")
    by_path, by_name = (find_reference(name, offline=True) for name in (str(path), "mine"))
    assert by_path.id == by_name.id
    assert by_path.extractor == by_name.extractor == open_reference(path).extractor is not None


def test_fd_dinov2_against_images_is_said_not_to_be_comparable(
    ditbench: Callable[..., tuple[str, str]],
    make: Callable[..., Path],
    network: Extractor,
    real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = replace(network, id="dinov2-vitl14-01234567")  # a small network in the place of the large one
    monkeypatch.setattr("bench.score.evaluate_samples.load_extractor", lambda *_: named)
    score = ("evaluate", real, "--work", tmp_path, "--kid-subset-size", 20, "--num-samples", 200, "--format", "json")
    printed, warning = ditbench(*score, "--extractor", "dinov2-vitl14", "--reference", real)
    assert json.loads(printed)["reference_statistics"] == "of its 1797 images"
    assert "of its 1797 images: not comparable" in warning
    out = tmp_path / "statistics.npz"
    make_reference(real, None, named, out, tmp_path / "work", CPU, SINGLE, StopRequest())
    assert not ditbench(*score, "--extractor", "dinov2-vitl14", "--reference", out)[1]
