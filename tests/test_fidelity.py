"""Scores: torch-fidelity's own values, and the feature network of the digits study."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor

from bench import checkpoint, digits_cnn
from bench.data import load_dataset
from bench.fidelity import Extractor, Images, Scorer, extractor

CPU = torch.device("cpu")
REAL = load_dataset("digits", CPU).reference_images()


@pytest.fixture(scope="module")
def network(features: Path) -> Extractor:
    return extractor("digits-cnn", features)


@pytest.fixture(scope="module")
def scorer(network: Extractor) -> Scorer:
    return Scorer(REAL, network, kid_subset_size=50, device=CPU)


def noisy(amount: float, count: int = 250) -> Tensor:
    random = torch.Generator().manual_seed(1)
    images = REAL[torch.randperm(len(REAL), generator=random)[:count]].float()
    return (images + amount * torch.randn(images.shape, generator=random)).clamp(0, 255).round().to(torch.uint8)


def test_scores_equal_torch_fidelity_called_directly(scorer: Scorer, network: Extractor) -> None:
    samples = noisy(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch_fidelity.calculate_metrics(
            input1=Images(samples),
            input2=Images(REAL),
            feature_extractor="digits-cnn",
            feature_extractor_weights_path=str(network.weights_path),
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
    ours = scorer.score(samples)
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-9)
    assert ours["precision"] == pytest.approx(theirs["precision"], rel=1e-9)
    assert ours["recall"] == pytest.approx(theirs["recall"], rel=1e-9)


def test_frechet_distance_by_its_definition(scorer: Scorer, network: Extractor) -> None:
    """Independent of torch-fidelity: features by hand, matrix root by eigenvectors of a symmetric product."""
    cnn = digits_cnn.DigitsCNN()
    assert network.weights_path is not None
    cnn.load_state_dict(checkpoint.load_tensors(network.weights_path)[0])
    samples = noisy(60)
    with torch.inference_mode():
        a, b = (cnn.features(x.float() / 127.5 - 1).double().numpy() for x in (samples, REAL))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    scores = scorer.score(samples)
    assert scores["fid"] == pytest.approx(expected, rel=1e-4)
    assert scores["fid_percent"] == pytest.approx(100 * expected / np.trace(cov_b), rel=1e-4)


def test_better_samples_score_better(scorer: Scorer) -> None:
    close, far = scorer.score(noisy(10)), scorer.score(noisy(80))
    assert close["fid"] < far["fid"]
    assert close["kid"] < far["kid"]
    assert close["precision"] > far["precision"]
    assert close["inception_score"] > far["inception_score"]
    assert scorer.score(REAL)["fid"] == pytest.approx(0, abs=1e-3)


def test_images_of_the_wrong_kind_are_refused() -> None:
    for images in (REAL.float(), REAL[0], REAL.expand(-1, 2, -1, -1)):
        with pytest.raises(ValueError, match="expected uint8"):
            Images(images)


def test_grey_is_repeated_to_three_channels() -> None:
    assert torch.equal(Images(REAL)[5], REAL[5].repeat(3, 1, 1))


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
    first.path.write_bytes(first.path.read_bytes()[:-1])  # a spoilt file is trained again, to the same weights
    assert digits_cnn.trained(tmp_path) == first


def test_the_extractor_id_changes_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_cnn, "EPOCHS", 1)
    one = extractor("digits-cnn", tmp_path / "one")
    monkeypatch.setattr(digits_cnn, "SEED", 1)
    assert extractor("digits-cnn", tmp_path / "other").id != one.id
