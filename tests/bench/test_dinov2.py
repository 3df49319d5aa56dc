"""DINOv2 features: a small network of the same layout, against its equations written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms

from bench.errors import InputError
from bench.score.extractors import dinov2
from bench.score.extractors.dinov2 import DINOv2Features, interpolate_positions, resize

WIDTH, DEPTH = 128, 2  # two heads of 64


def layout(width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `dinov2_vitl14_pretrain.pth`, for any size."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1370, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(depth):
        inner = {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "ls1.gamma": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
            "ls2.gamma": (width,),
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in inner.items()}
    return shapes


def state_dict(width: int = WIDTH, depth: int = DEPTH) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=random) * (shape[-1] ** -0.5 if len(shape) == 2 else 0.5)
        for name, shape in layout(width, depth).items()
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    torch.save(state_dict(), path)
    return path


def random_images(num: int, height: int, width: int) -> Tensor:
    shape = (num, 3, height, width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def features_of(path: Path, images: Tensor) -> Tensor:
    (features,) = DINOv2Features(dinov2.NAME, [dinov2.FEATURES], str(path))(images)
    return features


def cubic_weights() -> NDArray[np.float64]:
    """(16, 37): Keys' kernel with a = -0.75 at the points (i + 1/2) / scale - 1/2, edges repeated."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0

    scale = 16.1 / 37
    weights = np.zeros((16, 37))
    for i in range(16):
        at = (i + 0.5) / scale - 0.5
        for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(tap, 0), 36)] += kernel(at - tap)
    return weights


def equations(w: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """ViT with layer scale (DINOv2, arXiv 2304.07193) on normalised pixels (N, 3, 224, 224), in float64."""
    w = {name: tensor.double() for name, tensor in w.items()}
    patches = pixels.double().reshape(-1, 3, 16, 14, 16, 14).permute(0, 2, 4, 1, 3, 5).reshape(-1, 256, 3 * 14 * 14)
    x = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1)
    rows = torch.from_numpy(cubic_weights())
    table = torch.einsum("ir,jc,rcd->ijd", rows, rows, w["pos_embed"][0, 1:].reshape(37, 37, -1)).reshape(256, -1)
    x = x + torch.cat([w["pos_embed"][0, :1], table])

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        return (
            centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for i in range(DEPTH):
        block = f"blocks.{i}"
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=-1)
        heads = []
        for h in range(WIDTH // 64):
            part = slice(64 * h, 64 * (h + 1))
            heads.append(torch.softmax(q[..., part] @ k[..., part].mT / 8, dim=-1) @ v[..., part])
        x = x + w[f"{block}.ls1.gamma"] * linear(torch.cat(heads, dim=-1), f"{block}.attn.proj")
        hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        x = x + w[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 224), (256, 256), (300, 180)])
def test_pixels_are_resized_and_normalised_as_torchvision_does_with_pil_images(
    height: int, width: int, path: Path
) -> None:
    images = random_images(2, height, width)
    transform = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    pil_images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    expected = torch.stack([torch.as_tensor(transform(image)) for image in pil_images])
    extractor = DINOv2Features(dinov2.NAME, [dinov2.FEATURES], str(path))
    seen: list[Tensor] = []
    extractor.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    extractor(images)
    assert torch.equal(seen[0], expected)


def test_images_of_224_pixels_are_unchanged() -> None:
    images = random_images(2, 224, 224)
    assert torch.equal(resize(images), images)


def test_positions_are_interpolated_at_dinov2s_scale() -> None:
    table = state_dict()["pos_embed"]
    grid = table[0, 1:].reshape(37, 37, -1).double().numpy()
    ours = interpolate_positions(table)
    assert ours.shape == (1, 257, WIDTH)
    assert torch.equal(ours[:, 0], table[:, 0])
    rows = cubic_weights()
    expected = np.einsum("ir,jc,rcd->ijd", rows, rows, grid).reshape(256, -1)
    np.testing.assert_allclose(ours[0, 1:].numpy(), expected, atol=1e-5)
    plain = F.interpolate(table[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2), (16, 16), mode="bicubic")
    assert (plain.flatten(2).mT - ours[:, 1:]).abs().max() > 0.1  # the 0.1 in their scale matters


def test_the_class_token_by_the_equations(path: Path) -> None:
    images = random_images(3, 40, 40) // torch.tensor([1, 2, 8], dtype=torch.uint8).view(3, 1, 1, 1)
    pixels = resize(images).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (dinov2.MEAN, dinov2.STD))
    expected = equations(state_dict(), (pixels - mean) / std)
    features = features_of(path, images)
    assert features.shape == (3, WIDTH)
    assert features.dtype == torch.float32
    assert expected.std(dim=0).mean() > 0.01  # images differ
    torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-4)


def test_the_layout_of_these_tests_is_the_published_one() -> None:
    """As timm has it, which reads the published file, and the mask token; 304,368,640 parameters."""
    with torch.device("meta"):
        network = timm.create_model("vit_large_patch14_dinov2", pretrained=False, num_classes=0)
    theirs = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert layout(1024, 24) == {**theirs, "mask_token": (1, 1024)}
    assert sum(int(np.prod(shape)) for shape in layout(1024, 24).values()) == 304_368_640


def test_only_distances_have_a_default_layer() -> None:
    assert {DINOv2Features.get_default_feature_layer_for_metric(m) for m in ("fid", "kid", "prc")} == {dinov2.FEATURES}
    with pytest.raises(KeyError):
        DINOv2Features.get_default_feature_layer_for_metric("isc")


# Files


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as refused:
        DINOv2Features(dinov2.NAME, [dinov2.FEATURES], str(path))
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: not the weights of dinov2-vitl14: ")
    return message.removeprefix(f"{path}: not the weights of dinov2-vitl14: ")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def saved(changes: dict[str, Tensor | None]) -> Path:
        torch.save({k: v for k, v in (state_dict() | changes).items() if v is not None}, path)
        return path

    assert refusal(saved({"blocks.1.ls2.gamma": None, "norm.bias": None})) == "missing blocks.1.ls2.gamma, norm.bias"
    assert refusal(saved({"register_tokens": torch.zeros(1, 4, WIDTH)})) == "unexpected register_tokens"
    table = torch.zeros(1, 257, WIDTH)
    assert refusal(saved({"pos_embed": table})) == "wrong shape pos_embed (1, 257, 128) in place of (1, 1370, 128)"
    patches = torch.zeros(WIDTH, 3, 16, 16)
    assert "patch_embed.proj.weight (128, 3, 16, 16) in place of" in refusal(
        saved({"patch_embed.proj.weight": patches})
    )
    for token in (None, torch.zeros(()), torch.zeros(1, 1, 100)):
        assert refusal(saved({"cls_token": token})) == "no cls_token of a width divisible by 64"


def test_blocks_that_are_left_out_are_missed(tmp_path: Path) -> None:
    tensors = {k: v for k, v in state_dict(depth=3).items() if not k.startswith("blocks.1.")}
    torch.save(tensors, tmp_path / "weights.pth")
    message = refusal(tmp_path / "weights.pth")
    assert message.startswith("missing blocks.1.attn.proj.bias")
    assert "unexpected blocks.2.attn.proj.bias" in message
    none = {k: v for k, v in tensors.items() if not k.startswith("blocks.")}
    torch.save(none, tmp_path / "weights.pth")
    assert refusal(tmp_path / "weights.pth").startswith("missing blocks.0.attn.proj.bias")


def test_no_weights_no_network() -> None:
    with pytest.raises(ValueError, match="needs feature_extractor_weights_path"):
        DINOv2Features(dinov2.NAME, [dinov2.FEATURES])
