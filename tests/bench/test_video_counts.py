"""What networks of clips cost, against the operators' count, torch's own counter, arithmetic and what was published."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.flops import cost_of, counted
from models import create_model
from models.registry import configure

TINY: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "num_heads": 2, "patch_frames": 2, "patch_size": 2, "frames": 5, "input_size": 7,
    "in_channels": 3, "num_classes": 4, "mlp_ratio": 1.3,
}  # fmt: skip


@pytest.mark.parametrize("attention", ["full", "sequential", "parallel"])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"block": "adaln-single", "conditioning": "captions", "caption_tokens": 5, "caption_channels": 9},
        {"conditioning": "pooled", "learn_sigma": False, "no_temporal_pos_emb": True},
        {"conditioning": "captions", "frames": 2},
    ],
)
def test_the_closed_form_is_what_the_operators_count(attention: str, others: dict[str, Any]) -> None:
    arch = configure("VideoDiT", **{**TINY, **others}, attention=attention)
    assert cost_of("VideoDiT", arch) == counted("VideoDiT", arch).cost


@pytest.mark.parametrize(("patch", "gmacs"), [((1, 2, 2), "2909.48"), ((2, 2, 2), "1184.39"), ((2, 4, 4), "245.70")])
def test_gmacs_of_open_soras_dit_at_16x32x32_latents(patch: tuple[int, int, int], gmacs: str) -> None:
    """Width 1152, depth 28: 12 D^2 a token for the maps, 2 T D for attention, 2 D for two norms; 6 D^2 a block."""
    t, h, w = patch
    tokens, pixels = 16 // t * (32 // h) * (32 // w), t * h * w
    block = tokens * (12 * 1152**2 + 2 * tokens * 1152 + 2 * 1152) + 6 * 1152**2
    ends = tokens * pixels * 1152 * (4 + 8) + 256 * 1152 + 1152**2 + 2 * 1152**2
    cost = cost_of("VideoDiT", configure(f"VideoDiT-XL/{t}x{h}x{w}"))
    assert cost.macs == 28 * block + ends
    assert f"{cost.macs / 1e9:.2f}" == gmacs


def test_stdit_has_the_parameters_that_open_sora_prints() -> None:
    """580 M without attention in time, 724 M with it, in units of 2^20, without fixed tables and the null caption."""
    arch = configure("STDiT-XL/1x2x2")
    cost = cost_of("STDiT-XL/1x2x2", arch)
    trained = cost.parameters - cost.fixed_parameters - 120 * 4096
    in_time = 28 * 4 * (1152**2 + 1152)
    assert round(trained / 2**20) == 724
    assert round((trained - in_time) / 2**20, -1) == 580


def test_attention_in_time_is_what_factorised_networks_have_more() -> None:
    full, sequential, parallel = (
        cost_of("VideoDiT", configure("VideoDiT-XL/1x2x2", attention=attention))
        for attention in ("full", "sequential", "parallel")
    )
    assert sequential.parameters - full.parameters == 28 * 4 * (1152**2 + 1152)
    assert parallel.parameters == sequential.parameters
    assert sequential.macs < full.macs
    assert sequential.macs - parallel.macs == 28 * 4096 * 1152  # a norm more


def test_the_name_of_a_preset_is_no_part_of_a_recipes_id() -> None:
    from bench.recipe.parts import ModelConfig

    sizes = {"depth": 12, "hidden_size": 384, "num_heads": 6, "patch_frames": 2, "patch_size": 4}
    preset = ModelConfig.model_validate({"name": "VideoDiT-S/2x4x4"})
    assert ModelConfig.model_validate({"name": "VideoDiT", **sizes}).identity() == preset.identity()


# The U-Net

UNET: dict[str, Any] = {
    "channels": 8, "levels": 2, "layers": 1, "attention_size": 4, "head_size": 4, "groups": 4, "frames": 3,
    "input_size": 8, "in_channels": 2, "num_classes": 3,
}  # fmt: skip


def test_the_unets_count_is_torchs_and_its_norms() -> None:
    network = create_model("UNet3D", **UNET).eval()
    norms = 0

    def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal norms
        norms += output.numel()

    for module in network.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            module.register_forward_hook(add)
    x, one = torch.zeros(1, *network.arch.input_shape), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, one, one)
    found = counted("UNet3D", network.arch).cost
    assert found == cost_of("UNet3D", network.arch)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    assert found.macs == counter.get_total_flops() // 2 + norms


@pytest.mark.parametrize(
    "others", [{"layers": 2, "levels": 3}, {"levels": 1, "attention_size": 1, "learn_sigma": False}, {"input_size": 4}]
)
def test_the_closed_form_of_the_unet_is_what_the_operators_count(others: dict[str, Any]) -> None:
    arch = configure("UNet3D", **{**UNET, **others})
    assert cost_of("UNet3D", arch) == counted("UNet3D", arch).cost
