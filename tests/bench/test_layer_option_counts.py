"""The closed-form costs of the DiT's options against the operators' count, and JiT's networks against its paper."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from command_line import ditbench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench import flops
from bench.flops import count_macs
from models import BLOCKS
from models.dit import FAMILY
from models.registry import Count, configure

# The DiT's options with which it is the network of JiT (arXiv 2511.13720, Table 8 and text; patches of 16 at 256 px).
JIT: dict[str, Any] = {
    "patch_size": 16, "input_size": 256, "in_channels": 3, "learn_sigma": False, "qk_norm": True, "norm": "rms",
    "mlp": "swiglu", "positions": "both", "class_tokens": 32,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "B": {"depth": 12, "hidden_size": 768, "num_heads": 12, "patch_bottleneck": 128, "class_tokens_start": 4},
    "L": {"depth": 24, "hidden_size": 1024, "num_heads": 16, "patch_bottleneck": 128, "class_tokens_start": 8},
    "H": {"depth": 32, "hidden_size": 1280, "num_heads": 16, "patch_bottleneck": 256, "class_tokens_start": 10},
}


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    block=st.sampled_from(BLOCKS),
    depth=st.integers(1, 3),
    heads=st.integers(1, 3),
    head_size=st.sampled_from([4, 8, 20]),
    patch=st.sampled_from([1, 2]),
    grid=st.integers(1, 4),
    mlp_ratio=st.sampled_from([0.8, 1.3, 4.0]),
    qk_norm=st.booleans(),
    norm=st.sampled_from(["layer", "rms"]),
    mlp=st.sampled_from(["gelu", "swiglu"]),
    positions=st.sampled_from(["sincos", "rotary", "both"]),
    patch_bottleneck=st.none() | st.integers(1, 9),
    class_tokens=st.integers(0, 4),
    start=st.integers(0, 2),
)
def test_every_option_of_every_design_costs_what_its_operators_count(
    block: str, depth: int, heads: int, head_size: int, patch: int, grid: int, class_tokens: int, start: int,
    **options: Any,
) -> None:  # fmt: skip
    arch = configure(
        "DiT", block=block, depth=depth, hidden_size=heads * head_size, num_heads=heads, patch_size=patch,
        input_size=patch * grid, in_channels=3, num_classes=4, frequency_embedding_size=8, class_tokens=class_tokens,
        class_tokens_start=min(start, depth - 1) if class_tokens else 0, **options,
    )  # fmt: skip
    assert FAMILY.count(arch) == flops.counted("DiT", arch).cost


@pytest.mark.parametrize("options", [{"norm": "rms", "positions": "both"}, {"norm": "layer", "positions": "rotary"}])
@pytest.mark.parametrize("block", BLOCKS)
def test_all_options_together_cost_what_their_operators_count(block: str, options: dict[str, Any]) -> None:
    arch = configure(
        "DiT", block=block, depth=3, hidden_size=24, num_heads=2, patch_size=2, input_size=8, qk_norm=True,
        mlp="swiglu", patch_bottleneck=5, class_tokens=3, class_tokens_start=2, **options,
    )  # fmt: skip
    assert FAMILY.count(arch) == flops.counted("DiT", arch).cost


class Normed(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.norm(x)


def test_rms_norm_counts_what_layer_norm_does() -> None:
    for norm in (nn.LayerNorm(8), nn.RMSNorm(8), nn.RMSNorm(8, elementwise_affine=False)):
        assert count_macs(Normed(norm), (2, 3, 5, 8))[""] == 2 * 3 * 5 * 8


def test_jit_b_by_its_parts() -> None:
    """25 GMACs and 131 M parameters, as its paper prints: what they are made of, written out."""
    width, depth, heads, hidden, pixels, patches = 768, 12, 12, 2048, 16 * 16 * 3, 256
    tokens = 4 * [patches] + 8 * [patches + 32]  # of each block
    macs = {
        "attention's maps": sum(4 * t * width**2 for t in tokens),
        "attention's products": sum(2 * t**2 * width for t in tokens),
        "SwiGLU": sum(3 * t * width * hidden for t in tokens),
        "modulation": 12 * 6 * width**2 + 2 * width**2,
        "norms, and those of queries and keys": sum(2 * t * width + 2 * t * width for t in tokens),
        "patches": patches * (pixels * 128 + 128 * width),
        "timestep": 256 * width + width**2,
        "output": patches * width * pixels,
    }
    trained = {
        "attention": depth * (4 * width**2 + 4 * width + 2 * width // heads),
        "SwiGLU": depth * (3 * width * hidden + 2 * hidden + width),
        "modulation": (6 * depth + 2) * (width**2 + width),
        "norms": (2 * depth + 1) * width,
        "patches": pixels * 128 + 128 * width + width,
        "timestep": 256 * width + width + width**2 + width,
        "labels": 1001 * width,
        "class tokens": 32 * width,
        "output": width * pixels + pixels,
    }
    fixed = patches * (width + 2 * width // heads)
    found = flops.cost_of("DiT", configure("DiT", **JIT, **SIZES["B"]))
    assert found == Count(sum(macs.values()), sum(trained.values()) + fixed, fixed)
    assert found == flops.counted("DiT", configure("DiT", **JIT, **SIZES["B"])).cost
    assert (round(found.macs / 1e9, 3), found.parameters - found.fixed_parameters) == (25.233, 131_123_712)


@pytest.mark.parametrize(("size", "millions", "gmacs"), [("B", 131, 25), ("L", 459, 88), ("H", 953, 182)])
def test_jit_as_its_paper_prints_it(size: str, millions: int, gmacs: int) -> None:
    cost = FAMILY.count(configure("DiT", **JIT, **SIZES[size]))
    assert cost is not None
    assert (round((cost.parameters - cost.fixed_parameters) / 1e6), round(cost.macs / 1e9)) == (millions, gmacs)


@pytest.mark.parametrize("name", ["DiT-S/4", "DiT-XL/2"])
def test_swiglu_has_as_many_parameters_as_gelu(name: str) -> None:
    """To within a hidden feature's weights and the biases."""
    gelu, swiglu = (FAMILY.count(configure(name, mlp=mlp)) for mlp in ("gelu", "swiglu"))
    assert gelu is not None and swiglu is not None
    assert swiglu.macs == pytest.approx(gelu.macs, rel=1e-3)
    assert swiglu.parameters == pytest.approx(gelu.parameters, rel=1e-3)


def test_the_command_has_the_options_and_shows_where_blocks_become_longer() -> None:
    given = {**JIT, **SIZES["B"]}
    words = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value).lower())]
    (row,) = json.loads(ditbench("flops", "DiT", *words, "--format", "json").out)
    assert (row["gmacs"], row["parameters"], row["tokens"]) == (25.233064, 131_353_088, 256)
    table = ditbench("flops", "DiT", *words, "--by-module").out
    assert set(re.findall(r"blocks\.\d+(?= )", table)) == {"blocks.0", "blocks.4"}
    assert "blocks.4.attn.q_norm" in table


def test_two_models_in_one_table_show_their_first_blocks() -> None:
    table = ditbench("flops", "DiT-S/8", "DiT-B/8", "--by-module").out.splitlines()
    assert [line.split()[0] for line in table if line.split()[2:3] == ["blocks.0"]] == ["DiT-S/8", "DiT-B/8"]
    assert not any("blocks.1" in line for line in table)
