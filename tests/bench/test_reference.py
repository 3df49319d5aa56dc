"""References: statistics read as they are, images in any container, an id of the content, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.images import ArrayImages, write_npz, write_pngs
from bench.errors import InputError
from bench.score import reference as reference_module
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
