"""Scores: torch-fidelity's own values, independent ones, and the feature network of the digits study."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from bench.data.digits import DIGITS
from bench.data.images import ArrayImages
from bench.errors import InputError
from bench.files import checkpoint
from bench.parallel import SINGLE
from bench.score.extractors import Extractor, digits_cnn, load_extractor
from bench.score.features import CHUNK, extract
from bench.score.fidelity import Scorer
from bench.score.frechet import Gaussian
from bench.score.reference import Reference
from bench.stopping import StopRequest

CPU = torch.device("cpu")
REFERENCE = DIGITS.reference("digits", DIGITS.options())
assert REFERENCE.images is not None
REAL = REFERENCE.images.batch(0, 1797)


@pytest.fixture(scope="module")
def network(features: Path) -> Extractor:
    return load_extractor("digits-cnn", features, offline=True)


@pytest.fixture(scope="module")
def scorer(network: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(REFERENCE, network, kid_subset_size=50, folder=tmp_path_factory.mktemp("real"), device=CPU)


def noisy(amount: float, count: int = 250) -> Tensor:
    random = torch.Generator().manual_seed(1)
    images = REAL[torch.randperm(len(REAL), generator=random)[:count]].float()
    return (images + amount * torch.randn(images.shape, generator=random)).clamp(0, 255).round().to(torch.uint8)


def as_images(images: Tensor) -> ArrayImages:
    return ArrayImages(images.numpy())


class ForTorchFidelity(TorchDataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index].expand(3, -1, -1)


def test_scores_equal_torch_fidelity_called_directly(scorer: Scorer, features: Path, tmp_path: Path) -> None:
    samples = noisy(40)
    if digits_cnn.NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(digits_cnn.NAME, digits_cnn.DigitsFeatures)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch_fidelity.calculate_metrics(
            input1=ForTorchFidelity(samples),
            input2=ForTorchFidelity(REAL),
            feature_extractor=digits_cnn.NAME,
            feature_extractor_weights_path=str(digits_cnn.trained(features).path),
            isc=True,
            fid=True,
            kid=True,
            prc=True,
            kid_subset_size=50,
            cuda=False,
            cache=False,
            verbose=False,
            save_cpu_ram=True,
        )
    ours = scorer.score(as_images(samples), tmp_path)
    # torch-fidelity averages features in float32; tests/bench/test_gaussian.py compares on float64 statistics.
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours["kid_std"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-9)
    assert ours["precision"] == pytest.approx(theirs["precision"], rel=1e-9)
    assert ours["recall"] == pytest.approx(theirs["recall"], rel=1e-9)


def test_frechet_distance_by_its_definition(scorer: Scorer, features: Path, tmp_path: Path) -> None:
    """Features by hand, matrix root by eigenvectors of a symmetric product."""
    cnn = digits_cnn.DigitsCNN()
    cnn.load_state_dict(checkpoint.load_tensors(digits_cnn.trained(features).path)[0])
    samples = noisy(60)
    with torch.inference_mode():
        a, b = (cnn.features(x.float() / 127.5 - 1).double().numpy() for x in (samples, REAL))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    scores = scorer.score(as_images(samples), tmp_path)
    assert scores["fid"] == pytest.approx(expected, rel=1e-6)
    assert scores["fid_percent"] == pytest.approx(100 * expected / np.trace(cov_b), rel=1e-6)
    assert "sfid" not in scores
    assert "fid_infinity" not in scores


def test_better_samples_score_better(scorer: Scorer, tmp_path: Path) -> None:
    close, far = (scorer.score(as_images(noisy(amount)), tmp_path / str(amount)) for amount in (10, 80))
    assert close["fid"] < far["fid"]
    assert close["kid"] < far["kid"]
    assert close["precision"] > far["precision"]
    assert close["inception_score"] > far["inception_score"]
    assert scorer.score(as_images(REAL), tmp_path / "real")["fid"] == pytest.approx(0, abs=1e-6)


def test_a_reference_of_statistics_alone_gives_no_score_that_needs_images(
    scorer: Scorer, network: Extractor, tmp_path: Path
) -> None:
    real = extract(as_images(REAL), network.network, tmp_path / "real", CPU, SINGLE, StopRequest())
    gaussian = real.gaussian(digits_cnn.FEATURES)
    statistics = Reference("digits", "digits-statistics-0", None, {digits_cnn.FEATURES: gaussian})
    alone = Scorer(statistics, network, kid_subset_size=50, folder=tmp_path, device=CPU)
    assert (alone.key["reference"], alone.key["kid_subset_size"]) == ("digits-statistics-0", None)
    scores = alone.score(as_images(noisy(40)), tmp_path / "samples")
    expected = scorer.score(as_images(noisy(40)), tmp_path / "again")
    assert scores == {key: expected[key] for key in ("fid", "fid_percent", "inception_score", "inception_score_std")}


def test_references_that_do_not_fit_the_features_are_refused_before_sampling(
    network: Extractor, tmp_path: Path
) -> None:
    other = Reference("inception", "inception-statistics-0", None, {"2048": Gaussian(np.zeros(3), np.eye(3))})
    with pytest.raises(InputError, match=r"inception: has statistics of 2048 features and no images; digits-cnn-"):
        Scorer(other, network, kid_subset_size=50, folder=tmp_path, device=CPU)
    few = Reference("few", "few-20-0", as_images(REAL[:20]), {})
    with pytest.raises(InputError, match="kid_subset_size: 50 is more than the 20 images of few"):
        Scorer(few, network, kid_subset_size=50, folder=tmp_path, device=CPU)


def test_features_are_the_same_after_an_interruption_and_a_damage(network: Extractor, tmp_path: Path) -> None:
    images, stop = as_images(REAL), StopRequest()
    whole = extract(images, network.network, tmp_path / "whole", CPU, SINGLE, stop)
    expected = whole.all(digits_cnn.FEATURES)
    assert expected.shape == (1797, 64)

    again = extract(images, network.network, tmp_path / "parts", CPU, SINGLE, stop)
    first, second, *_ = sorted((tmp_path / "parts").iterdir())
    second.unlink()
    untouched = first.stat().st_mtime_ns
    extract(images, network.network, tmp_path / "parts", CPU, SINGLE, stop)
    assert first.stat().st_mtime_ns == untouched, "a chunk that was there was made again"
    assert torch.equal(again.all(digits_cnn.FEATURES), expected)

    second.write_bytes(second.read_bytes()[:-5])
    with pytest.raises(Exception, match="damaged features, removed"):
        again.all(digits_cnn.FEATURES)
    extract(images, network.network, tmp_path / "parts", CPU, SINGLE, stop)
    assert torch.equal(again.all(digits_cnn.FEATURES), expected)


def test_statistics_stream_through_chunks(network: Extractor, tmp_path: Path) -> None:
    assert len(REAL) > 3 * CHUNK, "several chunks, the last one not full"
    features = extract(as_images(REAL), network.network, tmp_path, CPU, SINGLE, StopRequest())
    gaussian, whole = features.gaussian(digits_cnn.FEATURES), features.all(digits_cnn.FEATURES).double().numpy()
    assert np.allclose(gaussian.mean, whole.mean(0), rtol=1e-12)
    assert np.allclose(gaussian.covariance, np.cov(whole.T), rtol=1e-9, atol=1e-12)


def test_the_feature_network_classifies_held_out_digits(network: Extractor) -> None:
    assert network.test_accuracy is not None
    assert network.test_accuracy > 0.95


def test_training_the_feature_network_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_cnn, "EPOCHS", 2)
    torch.manual_seed(1)
    one, accuracy = digits_cnn.train()
    torch.manual_seed(2)
    other, again = digits_cnn.train()
    assert accuracy == again > 0.3
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_feature_network_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_cnn, "EPOCHS", 1)
    first = digits_cnn.trained(tmp_path)
    written = first.path.stat().st_mtime_ns
    assert digits_cnn.trained(tmp_path) == first
    assert first.path.stat().st_mtime_ns == written
    first.path.write_bytes(first.path.read_bytes()[:-1])  # a damaged file is trained again, to the same weights
    assert digits_cnn.trained(tmp_path) == first


def test_the_extractor_id_changes_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_cnn, "EPOCHS", 1)
    one = load_extractor("digits-cnn", tmp_path / "one", offline=True)
    monkeypatch.setattr(digits_cnn, "SEED", 1)
    assert load_extractor("digits-cnn", tmp_path / "other", offline=True).id != one.id
