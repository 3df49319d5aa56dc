"""JiT and U-ViT: what they cost beside what their papers print, and that every part of the U-ViT does its part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.flops import counted
from models import create_model
from models.registry import Count, configure, family_of

# arXiv 2511.13720: millions of parameters and "Gflops". G's parameters are printed as 2 B.
JIT = {
    "JiT-B/16": (131, 25), "JiT-L/16": (459, 88), "JiT-H/16": (953, 182), "JiT-G/16": (2e3, 383),
    "JiT-B/32": (133, 26), "JiT-L/32": (462, 89), "JiT-H/32": (956, 183), "JiT-G/32": (2e3, 384),
}  # fmt: skip
# arXiv 2209.12152, Table 1, and the compute of its two models of ImageNet 256 x 256.
UVIT = {"U-ViT-S-deep/2": 58, "U-ViT-M/2": 131, "U-ViT-L/2": 287, "U-ViT-H/2": 501}

SMALL: dict[str, Any] = {
    "depth": 5, "hidden_size": 24, "num_heads": 2, "patch_size": 2, "input_size": 8, "in_channels": 3, "num_classes": 4,
}  # fmt: skip


def cost_of(name: str, **options: Any) -> Count:
    cost = family_of(name).count(configure(name, **options))
    assert cost is not None
    return cost


@pytest.mark.parametrize(("name", "printed"), JIT.items())
def test_jit_as_its_paper_prints_it(name: str, printed: tuple[float, int]) -> None:
    """Of G it prints less: 383.15 and 384.29 are left without the maps of the modulation, which are 6 D^2 a block."""
    millions, gmacs = printed
    cost, arch = cost_of(name), configure(name)
    trained = (cost.parameters - cost.fixed_parameters) / 1e6
    assert round(trained, -3 if "G" in name else 0) == millions
    modulation = 6 * arch.hidden_size**2 * arch.depth
    assert round((cost.macs - modulation) / 1e9) == gmacs
    assert round(cost.macs / 1e9) == gmacs + ("G" in name)


@pytest.mark.parametrize("name", JIT)
def test_a_jit_has_256_patches_at_either_size_and_a_design_of_one_name(name: str) -> None:
    arch = configure(name)
    assert (arch.num_tokens, arch.class_tokens, arch.in_channels, arch.learn_sigma) == (256, 32, 3, False)
    assert arch.input_size == 16 * int(name.rpartition("/")[2])
    assert arch.block_id == "adaln-zero" + " class_tokens_start=10" * ("G" in name)
    assert configure(name, image_size=arch.input_size) == arch == configure(name.lower(), input_size=arch.input_size)


def test_the_same_layers_by_the_dits_options_cost_the_same() -> None:
    layers = {"qk_norm": True, "norm": "rms", "mlp": "swiglu", "positions": "both", "class_tokens": 32}
    shape = {"depth": 12, "hidden_size": 768, "num_heads": 12, "patch_size": 16, "input_size": 256, "in_channels": 3}
    said = {**layers, **shape, "learn_sigma": False, "patch_bottleneck": 128, "class_tokens_start": 4}
    assert cost_of("DiT", **said) == cost_of("JiT-B/16") == cost_of("JiT", **shape)


@pytest.mark.parametrize(("name", "millions"), UVIT.items())
def test_u_vit_as_its_paper_prints_it(name: str, millions: int) -> None:
    assert round(cost_of(name).parameters / 1e6) == millions


def test_the_smallest_u_vit_without_the_labels_of_imagenet() -> None:
    """44 M: on CIFAR-10, without a class; ours has ten labels and a null label."""
    assert round(cost_of("U-ViT-S/2", in_channels=3, num_classes=10).parameters / 1e6) == 44
    labels = 990 * 512
    latents = 512 * 4 + 4 * 512 + 4 + (9 * 16 + 4) - (9 * 9 + 3)  # a fourth channel in, out and in the convolution
    assert cost_of("U-ViT-S/2").parameters == 44_261_472 + labels + latents


def test_u_vits_compute_by_its_parts() -> None:
    """76.4 GMACs are printed for L/2: its blocks and long skips alone are 76.448; 133 for H/2, either way."""
    parts: dict[str, list[int]] = {}
    for name, depth, dim in (("U-ViT-L/2", 21, 1024), ("U-ViT-H/2", 29, 1152)):
        tokens = 2 + 256
        blocks = depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim) + depth // 2 * 2 * tokens * dim**2
        ends = 256 * 16 * dim + tokens * dim * 16 + 32 * 32 * 9 * 4 * 4
        parts[name] = [blocks, ends, depth * 2 * tokens * dim]
        assert cost_of(name).macs == sum(parts[name])
    assert f"{parts['U-ViT-L/2'][0] / 1e9:.1f}" == "76.4"
    assert f"{cost_of('U-ViT-L/2').macs / 1e9:.2f}" == "76.47"
    assert [round(part / 1e9) for part in (parts["U-ViT-H/2"][0], cost_of("U-ViT-H/2").macs)] == [133, 133]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("U-ViT", {"learn_sigma": True, "mlp_ratio": 3.3}),
        ("U-ViT", {"depth": 1, "patch_size": 4}),
        ("JiT", {"patch_bottleneck": 3, "class_tokens": 3}),
    ],
)
def test_the_closed_form_is_what_the_operators_count(name: str, options: dict[str, Any]) -> None:
    arch = configure(name, **{**SMALL, **options})
    assert family_of(name).count(arch) == counted(name, arch).cost


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("U-ViT-S/2", {"depth": 12}, "depth"),
        ("U-ViT-S/2", {"depth": 0}, "depth"),
        ("U-ViT-S/2", {"input_size": 33}, "patch_size"),
        ("U-ViT-S/2", {"image_size": 250}, "image_size"),
        ("U-ViT-S/2", {"num_heads": 7}, "num_heads"),
        ("U-ViT-S/2", {"mlp_ratio": 1e-9}, "mlp_ratio"),
        ("U-ViT-S/2", {"init_std": 0.0}, "init_std"),
        ("U-ViT", {**SMALL, "hidden_size": 25, "num_heads": 5}, "hidden_size"),
        ("U-ViT", {"depth": 3}, "model 'U-ViT'"),
        ("JiT", {"depth": 3}, "model 'JiT'"),
        ("JiT-B/16", {"input_size": 250}, "patch_size"),
        ("JiT-B/16", {"image_size": 128, "input_size": 256}, "input_size"),
        ("JiT-B/16", {"hidden_size": "wide"}, "hidden_size"),
        ("JiT-B/16", {"depth": 2}, "class_tokens_start"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(name: str, options: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}"):
        configure(name, **options)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 8, 8, generator=random), torch.tensor([1.0, 500.0, 999.0]), torch.tensor([0, 3, 4])


def u_vit() -> Any:
    torch.manual_seed(0)
    return create_model("U-ViT", **SMALL).eval()


def test_every_long_skip_is_used_and_joins_its_own_pair_of_blocks() -> None:
    """Block 0 with block 4, block 1 with block 3: what the later one takes in is what the earlier one gave."""
    network, given = u_vit(), {}
    for index, block in enumerate(network.blocks):
        block.register_forward_hook(lambda _, inputs, output, index=index: given.update({index: (inputs, output)}))
    with torch.no_grad():
        whole = network(*batch())
    dim = SMALL["hidden_size"]
    assert [len(given[index][0]) for index in range(5)] == [1, 1, 1, 2, 2]
    for early, late in ((0, 4), (1, 3)):
        assert torch.equal(given[late][0][1], given[early][1])
        changed = u_vit()
        with torch.no_grad():
            changed.blocks[late].skip_linear.weight[:, dim:] = 0  # of the concatenation, the skip's half
            assert not torch.allclose(changed(*batch()), whole, atol=1e-5)


def test_time_and_label_are_tokens_with_a_position_each() -> None:
    x, t, labels = batch()
    network = u_vit()
    with torch.no_grad():
        whole = network(x, t, labels)
        assert whole.shape == x.shape
        assert not torch.allclose(network(x, t + 100, labels)[:2], whole[:2])
        other, null = network(x, t, torch.tensor([1, 3, 4])), network(x, t, torch.tensor([4, 3, 4]))
        assert not torch.allclose(other[0], whole[0]) and not torch.allclose(null[0], whole[0])
        assert torch.allclose(other[1:], whole[1:], atol=1e-6)
        for place in range(network.positions.shape[1]):
            network.positions[:, place] += 1
            moved = network(x, t, labels)
            assert not torch.allclose(moved, whole, atol=1e-5), place
            network.positions[:, place] -= 1


def test_the_convolution_at_the_end_looks_across_patches() -> None:
    """A pixel's output depends on the eight around it, those of other patches too."""
    final = u_vit().final_layer
    tokens = torch.randn(1, 2 + 16, SMALL["hidden_size"], requires_grad=True)
    final(tokens)[0, :, 3, 3].sum().backward()  # the last pixel of patch (1, 1)
    assert tokens.grad is not None
    seen = tokens.grad[0, 2:].abs().sum(-1).reshape(4, 4) > 0
    assert seen.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_weights_start_as_wide_as_is_said() -> None:
    """Of linear maps and positions; labels at N(0, 1), the rest as torch has it."""
    for given, std in (({}, 0.02), ({"init_std": 0.1}, 0.1)):
        torch.manual_seed(0)
        network = create_model("U-ViT", **{**SMALL, "hidden_size": 64, "num_classes": 999}, **given)
        for name in ("blocks.4.skip_linear.weight", "blocks.0.attn.qkv.weight", "positions"):
            assert network.get_parameter(name).std().item() == pytest.approx(std, rel=0.1)
        assert network.get_parameter("y_embedder.embedding_table.weight").std().item() == pytest.approx(1, rel=0.05)


def test_a_u_vit_predicts_a_variance_where_it_is_asked_to() -> None:
    arch = configure("U-ViT", **SMALL, learn_sigma=True)
    assert (arch.out_channels, replace(arch, learn_sigma=False).out_channels) == (6, 3)
    assert create_model("U-ViT", **SMALL, learn_sigma=True)(*batch()).shape == (3, 6, 8, 8)
