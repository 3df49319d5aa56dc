"""Inception features against torch-fidelity's own network; files of weights that must be refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import create_feature_extractor

from bench.errors import InputError
from bench.perf.random_inception import THEIR_LAYERS, random_weights
from bench.score.extractors import inception
from bench.score.extractors.inception import InceptionFeatures
from bench.score.extractors.weights import weights_digest


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def path(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def images() -> Tensor:
    """uint8 (2, 3, 64, 64)."""
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def theirs(path: Path, images: Tensor) -> dict[str, Tensor]:
    """Features by torch-fidelity's network, and what its seventh "mixed" block puts out."""
    network = FeatureExtractorInceptionV3("inception-v3-compat", THEIR_LAYERS, str(path))
    seventh = [module for name, module in network.named_children() if name.startswith("Mixed")][6]
    kept: list[Tensor] = []
    seventh.register_forward_hook(lambda _module, _inputs, output: kept.append(output.clone()))
    features = network.convert_features_tuple_to_dict(network(images))
    return {**features, "block": kept[0]}


@pytest.fixture(scope="module")
def ours(path: Path, images: Tensor) -> dict[str, Tensor]:
    layers = ["2048", "spatial", "64", "192", "768", "logits_unbiased", "logits"]
    return dict(zip(layers, InceptionFeatures("any", layers, str(path))(images), strict=True))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The norm of the difference over theirs."""
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("layer", THEIR_LAYERS)
def test_torch_fidelitys_features_to_rounding(layer: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours[layer].std() > 0.01
    assert difference(ours[layer][0], theirs[layer][1]) > 1e-3
    assert difference(ours[layer], theirs[layer]) < 1e-5


def test_normalisations_are_folded_and_weights_channels_last(path: Path) -> None:
    """Which is what makes it faster: `ditbench perf scores`."""
    network = InceptionFeatures("any", ["2048"], str(path))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    weights = [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(weights) == 94
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_spatial_features(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """The block begins with its 1x1 branch; TensorFlow's arrays are (N, h, w, c)."""
    spatial, block = ours["spatial"], theirs["block"].numpy()
    assert spatial.shape == (2, 2023)
    assert spatial.dtype == torch.float32
    assert block.shape == (2, 768, 17, 17)
    channels_last = np.moveaxis(block, 1, 3)[..., :7]
    assert difference(spatial, torch.from_numpy(channels_last.reshape(2, -1))) < 1e-5
    for h, w, c in [(0, 0, 6), (0, 1, 0), (1, 0, 0), (16, 16, 6), (5, 11, 3)]:
        assert spatial[1, (h * 17 + w) * 7 + c] == pytest.approx(block[1, c, h, w], rel=1e-4, abs=1e-4)
    assert (spatial >= 0).all()  # after the ReLU
    assert 0.1 < (spatial > 0).float().mean() < 0.9


def test_spatial_features_alone_and_as_torch_fidelity_makes_extractors(
    path: Path, images: Tensor, ours: dict[str, Tensor]
) -> None:
    """By the registered name; the same network again gives features of other images, not those kept before."""
    network = create_feature_extractor(
        inception.NAME, ["spatial"], cuda=False, verbose=False, feature_extractor_weights_path=str(path)
    )
    (spatial,) = network(images[:1])
    torch.testing.assert_close(spatial, ours["spatial"][:1], rtol=1e-4, atol=1e-4)
    (other,) = network(images[1:])
    torch.testing.assert_close(other, ours["spatial"][1:], rtol=1e-4, atol=1e-4)


def test_the_default_layers_are_torch_fidelitys() -> None:
    for metric in ("fid", "kid", "prc"):
        assert InceptionFeatures.get_default_feature_layer_for_metric(metric) == inception.FEATURES == "2048"
    assert InceptionFeatures.get_default_feature_layer_for_metric("isc") == inception.LOGITS == "logits_unbiased"


def test_no_weights_no_network() -> None:
    with pytest.raises(ValueError, match="needs feature_extractor_weights_path"):
        InceptionFeatures("any", ["2048"])


# Files


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        InceptionFeatures("any", ["2048"], str(path))
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_missing_unexpected_and_misshapen_tensors_are_named(weights: dict[str, Tensor], tmp_path: Path) -> None:
    changed = {**weights, "fc.weight": torch.zeros(10, 2048), "extra.one": torch.zeros(1)}
    for name in ("fc.bias", "Mixed_5b.branch1x1.bn.bias", "Mixed_5b.branch1x1.bn.weight", "Conv2d_1a_3x3.conv.weight"):
        del changed[name]
    torch.save(changed, tmp_path / "other.pth")
    assert refusal(tmp_path / "other.pth") == (
        "not the weights of inception-v3-compat: "
        "missing Conv2d_1a_3x3.conv.weight, Mixed_5b.branch1x1.bn.bias, Mixed_5b.branch1x1.bn.weight (and 1 more); "
        "unexpected extra.one; wrong shape fc.weight (10, 2048) in place of (1008, 2048)"
    )


class Malicious:
    """Unpickled in full, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_pickled_file_is_refused_unexecuted(save: Any, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path, target = tmp_path / "weights.pth", tmp_path / "made"
    save({"fc.bias": weights["fc.bias"], "attack": Malicious(target)}, path)
    assert "not unpickled" in refusal(path)
    assert not target.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert target.exists()  # the attack is one


def test_damaged_and_foreign_files_are_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"not weights at all", whole[: len(whole) // 2]):
        (tmp_path / "damaged.pth").write_bytes(content)
        assert "damaged" in refusal(tmp_path / "damaged.pth")
    for content in ([torch.zeros(3)], torch.zeros(3), {"state_dict": {"fc.bias": torch.zeros(3)}}, {1: torch.zeros(3)}):
        torch.save(content, tmp_path / "foreign.pth")
        assert "not a state dict" in refusal(tmp_path / "foreign.pth")
    assert refusal(tmp_path / "none.pth") == "cannot be read (No such file or directory)"


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    """SHA-256 of "abc" is ba7816bf..., of FIPS 180-2."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert weights_digest(tmp_path / "abc") == "ba7816bf"
