"""References: statistics read as they are, images in any container, an id of the content, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.data.images import ArrayImages, write_npz, write_pngs
from bench.errors import InputError
from bench.score import reference as reference_module
from bench.score.extractors import Extractor
from bench.score.fidelity import Scorer
from bench.score.frechet import frechet_distance
from bench.score.reference import check_feature_size, open_reference

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
CHANNELS_LAST = IMAGES.transpose(0, 2, 3, 1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of 5 and 4 dimensions in place of 2048 and 2023: a full covariance has 33 MB."""
    monkeypatch.setattr(reference_module, "STATISTICS", {"2048": ("mu", "sigma", 5), "spatial": ("mu_s", "sigma_s", 4)})


def statistics(dim: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features = np.random.default_rng(seed).standard_normal((50, dim))
    return features.mean(axis=0), np.cov(features, rowvar=False)


def arrays(**others: NDArray) -> dict[str, NDArray]:
    """What an ADM reference file has."""
    (mu, sigma), (mu_s, sigma_s) = statistics(5), statistics(4, 1)
    return {"mu": mu, "sigma": sigma, "mu_s": mu_s, "sigma_s": sigma_s, "arr_0": CHANNELS_LAST, **others}


def save(path: Path, arrays: dict[str, NDArray], *left_out: str) -> Path:
    np.savez(path, **{name: array for name, array in arrays.items() if name not in left_out})  # pyright: ignore[reportArgumentType]
    return path


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
def test_published_statistics_are_read_as_they_are(dtype: type | str, tmp_path: Path) -> None:
    saved = {name: array.astype(dtype) if name != "arr_0" else array for name, array in arrays().items()}
    reference = open_reference(save(tmp_path / "VIRTUAL_imagenet256.npz", saved))
    assert reference.name == "VIRTUAL_imagenet256"
    assert list(reference.gaussians) == ["2048", "spatial"]
    for feature, mean, covariance in (("2048", "mu", "sigma"), ("spatial", "mu_s", "sigma_s")):
        gaussian = reference.gaussians[feature]
        assert gaussian.mean.dtype == gaussian.covariance.dtype == np.float64
        assert np.array_equal(gaussian.mean, saved[mean])
        assert np.array_equal(gaussian.covariance, saved[covariance])
        assert gaussian.count is None, "that of the images would be wrong: ADM's statistics are of other images"
    assert reference.images is not None
    assert np.array_equal(reference.images.batch(0, 6).numpy(), IMAGES)
    assert reference.id.startswith("VIRTUAL_imagenet256-6-")


def test_real_sizes_are_2048_and_2023(tmp_path: Path) -> None:
    """Sizes of openai/guided-diffusion's reference files: pool features, and 7 x 17 x 17 spatial ones."""
    published = {
        "mu": np.zeros(2048, np.float32),
        "sigma": np.eye(2048),
        "mu_s": np.zeros(7 * 17 * 17, np.float32),
        "sigma_s": np.eye(7 * 17 * 17),
    }
    gaussians = open_reference(save(tmp_path / "a.npz", published)).gaussians
    assert {feature: gaussian.dim for feature, gaussian in gaussians.items()} == {"2048": 2048, "spatial": 2023}


@pytest.mark.usefixtures("small")
def test_statistics_without_images_and_images_without_statistics(tmp_path: Path) -> None:
    only_pool = open_reference(save(tmp_path / "a.npz", arrays(), "arr_0", "mu_s", "sigma_s"))
    assert list(only_pool.gaussians) == ["2048"]
    assert only_pool.images is None
    assert only_pool.id.startswith("a-statistics-")
    only_images = open_reference(save(tmp_path / "b.npz", {"arr_0": CHANNELS_LAST}))
    assert only_images.gaussians == {}
    assert only_images.images is not None


def test_the_same_images_have_the_same_id_in_every_container(tmp_path: Path) -> None:
    np.save(tmp_path / "real.npy", IMAGES)
    write_npz(ArrayImages(IMAGES), tmp_path / "real.npz")
    np.savez_compressed(tmp_path / "small.npz", arr_0=CHANNELS_LAST)
    write_pngs(ArrayImages(IMAGES), tmp_path / "real")
    ids = {open_reference(tmp_path / name).id for name in ("real.npy", "real.npz", "real")}
    ids.add(open_reference(tmp_path / "small.npz", name="real").id)
    (only,) = ids
    name, num, digest = only.split("-")
    assert (name, num, len(digest)) == ("real", "6", 8)
    assert int(digest, 16) >= 0


@pytest.mark.usefixtures("small")
def test_the_id_changes_with_every_array_and_the_name(tmp_path: Path) -> None:
    one = arrays()
    variants = [one, {name: array for name, array in one.items() if name != "arr_0"}]
    for name, array in one.items():
        changed = array.copy()
        index = (0,) * changed.ndim
        changed[index] = changed[index] ^ 1 if name == "arr_0" else np.nextafter(changed[index], 100)
        variants.append({**one, name: changed})
    variants.append({name: array for name, array in one.items() if name not in ("mu_s", "sigma_s")})
    variants.append({"arr_0": CHANNELS_LAST})
    ids = [open_reference(save(tmp_path / "a.npz", variant)).id for variant in variants]
    save(tmp_path / "a.npz", one)
    assert open_reference(tmp_path / "a.npz").id == ids[0]
    renamed = open_reference(tmp_path / "a.npz", name="b")
    assert renamed.name == "b"
    assert renamed.id == ids[0].replace("a-", "b-", 1)
    hashes = [identity.rsplit("-", 1)[1] for identity in ids]
    assert len(set(hashes)) == len(variants)


@pytest.mark.usefixtures("small")
def test_statistics_have_the_same_id_in_either_precision_if_they_are_equal(tmp_path: Path) -> None:
    rounded = {name: array.astype(np.float32) for name, array in arrays().items() if name != "arr_0"}
    precise = {name: array.astype(np.float64) for name, array in rounded.items()}
    ids = {open_reference(save(tmp_path / "a.npz", variant)).id for variant in (rounded, precise)}
    assert len(ids) == 1


def test_a_folder_gives_its_own_name_however_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pngs(ArrayImages(IMAGES), tmp_path / "faces-64.v2")
    assert open_reference(tmp_path / "faces-64.v2").name == "faces-64.v2"
    monkeypatch.chdir(tmp_path / "faces-64.v2")
    assert open_reference(Path()).name == "faces-64.v2"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("saved", "left_out", "message"),
    [
        (arrays(), ("sigma",), "has mu alone; accepted: mu together with sigma"),
        (arrays(), ("mu",), "has sigma alone; accepted: mu together with sigma"),
        (arrays(), ("mu_s",), "has sigma_s alone; accepted: mu_s together with sigma_s"),
        (arrays(mu=np.zeros(7)), (), r"mu float64 \(7,\); accepted: float32 or float64 \(5,\)"),
        (arrays(mu=np.zeros((1, 5))), (), r"mu float64 \(1, 5\); accepted"),
        (arrays(sigma=np.eye(4)), (), r"sigma float64 \(4, 4\); accepted: float32 or float64 \(5, 5\)"),
        (arrays(sigma_s=np.ones(4)), (), r"sigma_s float64 \(4,\); accepted: .* \(4, 4\)"),
        (arrays(mu=np.zeros(5, np.float16)), (), r"mu float16 \(5,\); accepted: float32 or float64"),
        (arrays(sigma=np.eye(5, dtype=np.int64)), (), r"sigma int64 \(5, 5\); accepted"),
        (arrays(mu=np.full(5, np.nan)), (), "mu, sigma: mean: 5 values are not finite"),
        (arrays(sigma=-np.eye(5)), (), "mu, sigma: covariance: has the negative eigenvalue -1"),
        (arrays(sigma_s=np.tri(4)), (), "mu_s, sigma_s: covariance: not symmetric"),
        (arrays(arr_0=np.zeros((3, 8, 8, 3))), (), r"arr_0 float64 \(3, 8, 8, 3\); accepted: uint8 \(N, H, W, C\)"),
        (
            {"x": np.zeros(3)},
            (),
            r"neither statistics nor images; it has x float64 \(3,\); accepted: mu and sigma, mu_s",
        ),
        ({}, (), "neither statistics nor images; it has nothing"),
    ],
)
def test_bad_references_are_refused_by_file_and_array(
    saved: dict[str, NDArray], left_out: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.npz", saved, *left_out)
    with pytest.raises(InputError, match=message) as caught:
        open_reference(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "place"), [("mu", 6), ("sigma", 6), ("sigma", -1)])
def test_a_damaged_byte_of_stored_statistics_is_noticed(
    name: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_module, "STATISTICS", {"2048": ("mu", "sigma", 40)})
    saved: dict[str, NDArray] = dict(zip(("mu", "sigma"), statistics(40), strict=True))
    path = save(tmp_path / "a.npz", saved)
    data = bytearray(path.read_bytes())
    start = data.index(saved[name].tobytes())
    data[start + place % saved[name].nbytes] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.npz: .*cannot be read .*{name}"):
        open_reference(path)


def test_what_is_no_file_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"not a zip file")
    (tmp_path / "b.txt").write_text("text")
    for name, message in (
        ("a.npz", "cannot be read as .npz"),
        ("b.txt", "not images; accepted"),
        ("c.npz", "no such file or folder"),
    ):
        with pytest.raises(InputError, match=message):
            open_reference(tmp_path / name)


@pytest.mark.usefixtures("small")
def test_features_of_another_size_are_refused(tmp_path: Path) -> None:
    reference = open_reference(save(tmp_path / "adm.npz", arrays()))
    check_feature_size(reference, "2048", 5)
    check_feature_size(reference, "spatial", 4)
    check_feature_size(reference, "dinov2", 1024)  # of the images, which have no statistics yet
    with pytest.raises(InputError, match=r"adm: statistics of another feature size: 2048 has 5, the network gives 768"):
        check_feature_size(reference, "2048", 768)


# Values, not memory


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("left_out", [(), ("arr_0",)])
def test_the_order_in_memory_changes_no_id_and_no_statistics(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    """Of arrays by row or by column, of either byte order, compressed or not."""
    saved = arrays()
    variants: list[dict[str, NDArray]] = [
        saved,
        {name: np.asfortranarray(array) for name, array in saved.items()},
        {name: array.astype(array.dtype.newbyteorder(">")) for name, array in saved.items()},
        {name: np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))) for name, array in saved.items()},
    ]
    found = [open_reference(save(tmp_path / "a.npz", variant, *left_out)) for variant in variants]
    assert len({reference.id for reference in found}) == 1
    for reference in found:
        for feature, gaussian in reference.gaussians.items():
            assert gaussian.covariance.flags.c_contiguous
            assert frechet_distance(gaussian, found[0].gaussians[feature]) == frechet_distance(
                found[0].gaussians[feature], found[0].gaussians[feature]
            )


@pytest.mark.usefixtures("small")
def test_ids_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Scores are compared by them: SHA-256 of name, size, mean and covariance as float64, little-endian, by row."""
    saved = {"mu": np.arange(5.0), "sigma": np.diag(np.arange(1.0, 6.0))}
    digest = hashlib.sha256(b"2048 5" + saved["mu"].tobytes() + saved["sigma"].tobytes()).hexdigest()[:8]
    assert open_reference(save(tmp_path / "a.npz", saved)).id == f"a-statistics-{digest}" == "a-statistics-0a10f814"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (np.full((5, 5), np.nan), "25 values are not finite"),
        (np.diag([1, 1, 1, 1, np.inf]), "1 values are not finite"),
        (np.diag(np.full(5, 1e308)), "trace is too large"),
        (np.array([[{}] * 5] * 5), "sigma object"),
        (np.eye(5) * (1 + 1j), "sigma complex128"),
    ],
)
def test_covariances_that_are_none(tmp_path: Path, sigma: NDArray, message: str) -> None:
    path = save(tmp_path / "a.npz", {"mu": np.zeros(5), "sigma": sigma})
    with pytest.raises(InputError, match=message) as caught:
        open_reference(path)
    assert str(caught.value).startswith(f"{path}: ")


class Network(nn.Module):
    """As Inception: features (5), spatial features (4), logits (3)."""

    features_list = ("2048", "spatial", "logits")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = images.float().flatten(1)
        return x[:, :5], x[:, 5:9], x[:, 9:12] / 100


INCEPTION: Any = Extractor("inception-01234567", Network(), "2048", "spatial", "logits", split_size=5000)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("small")
def test_a_mean_and_a_covariance_alone_are_enough_for_fid(tmp_path: Path) -> None:
    """The kind that MAR publishes. What it cannot give stays empty, and it is said why."""
    samples = ArrayImages(np.random.default_rng(1).integers(0, 256, (60, 3, 4, 4), dtype=np.uint8))
    whole = {name: array for name, array in arrays().items() if name != "arr_0"}
    alone = open_reference(save(tmp_path / "mar.npz", whole, "mu_s", "sigma_s"))
    full = open_reference(save(tmp_path / "adm.npz", whole))
    by_alone = Scorer(alone, INCEPTION, 20, tmp_path, torch.device("cpu"))
    by_full = Scorer(full, INCEPTION, 20, tmp_path, torch.device("cpu"))
    scores, expected = by_alone.score(samples, tmp_path / "a"), by_full.score(samples, tmp_path / "b")
    assert expected["sfid"] > 0
    assert scores == {name: value for name, value in expected.items() if name != "sfid"}
    assert set(by_alone.left_out) == {"sfid"}
    assert by_full.left_out == {}
    assert "mar has no statistics" in by_alone.left_out["sfid"]
    with pytest.raises(InputError, match="sfid needs spatial features, of which reference mar has no statistics"):
        Scorer(alone, INCEPTION, 20, tmp_path, torch.device("cpu"), metrics=("sfid",))


@pytest.mark.parametrize("level", [0, 7, 255])
def test_copies_of_one_image_against_themselves_have_the_distance_0(tmp_path: Path, level: int) -> None:
    images = np.repeat(np.random.default_rng(level).integers(0, level + 1, (1, 3, 4, 4), dtype=np.uint8), 70, axis=0)
    np.save(tmp_path / "one.npy", images)
    scorer = Scorer(open_reference(tmp_path / "one.npy"), INCEPTION, 20, tmp_path, torch.device("cpu"))
    scores = scorer.score(ArrayImages(images), tmp_path / "a")
    assert scores["fid"] == pytest.approx(0, abs=1e-6)
    assert "fid_percent" not in scores, "a percentage of nothing"
    assert all(np.isfinite(value) for value in scores.values())


def test_other_images_against_copies_of_one_image(tmp_path: Path) -> None:
    np.save(tmp_path / "black.npy", np.zeros((70, 3, 4, 4), np.uint8))
    scorer = Scorer(open_reference(tmp_path / "black.npy"), INCEPTION, 20, tmp_path, torch.device("cpu"))
    pixels = np.random.default_rng(1).integers(0, 256, (60, 3, 4, 4), dtype=np.uint8)
    x = pixels.reshape(60, -1)[:, :5].astype(np.float64)
    expected = (x.mean(0) ** 2).sum() + np.trace(np.cov(x.T))
    assert scorer.score(ArrayImages(pixels), tmp_path / "a")["fid"] == pytest.approx(expected, rel=1e-9)
