"""muP against Table 8 of Tensor Programs V (arXiv 2203.03466): how weights start, at which rate they learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import create_model
from models.blocks import AdaLNFinalLayer, AdaLNZeroBlock, SumCondition
from models.designs import BlockDesign
from models.parametrization import Kind, kinds_of
from models.registry import configure

# Of digits, with the digits study's S and XL as the two widths; a head has 12 channels.
SHAPE: dict[str, Any] = {"patch_size": 2, "input_size": 8, "in_channels": 1, "num_classes": 99}
DIGITS = {**SHAPE, "depth": 2, "frequency_embedding_size": 64}
BASE, HEAD = 24, 12


def dit(width: int, **more: Any) -> Any:
    torch.manual_seed(0)
    given = {**DIGITS, "hidden_size": width, "num_heads": width // HEAD, "parametrization": "mup", "base_width": BASE}
    return create_model("DiT", **given | more)


# Name in the network -> the standard deviation that it starts with at width D, and its learning rate at twice the base.
ZERO = 0.0
RULES: dict[str, tuple[Any, float]] = {
    "x_embedder.proj.weight": (lambda width: 1 / 2, 1),  # of 4 pixels
    "t_embedder.mlp.0.weight": (lambda width: 1 / 8, 1),  # of 64 features
    "t_embedder.mlp.2.weight": (lambda width: width**-0.5, 1 / 2),
    "y_embedder.embedding_table.weight": (lambda width: 1, 1),
    "blocks.0.attn.qkv.weight": (lambda width: width**-0.5, 1 / 2),
    "blocks.0.attn.proj.weight": (lambda width: width**-0.5, 1 / 2),
    "blocks.1.mlp.fc1.weight": (lambda width: width**-0.5, 1 / 2),
    "blocks.1.mlp.fc2.weight": (lambda width: (4 * width) ** -0.5, 1 / 2),
    "blocks.1.adaLN_modulation.1.weight": (lambda width: ZERO, 1 / 2),
    "final_layer.adaLN_modulation.1.weight": (lambda width: ZERO, 1 / 2),
    "final_layer.linear.weight": (lambda width: ZERO, 1),
}


@pytest.mark.parametrize("width", [24, 72, 48])
def test_weights_start_and_learn_by_their_kind(width: int) -> None:
    network = dit(width)
    parameters = dict(network.named_parameters())
    for name, (std, rate) in RULES.items():
        values, expected = parameters[name], std(width)
        # A sample's standard deviation is off by about 1 / sqrt(2 n).
        assert values.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * values.numel())), name
        assert abs(values.mean().item()) <= 4 * expected / math.sqrt(values.numel()), name
        power = 0 if rate == 1 else 1
        assert network.rate_multipliers.get(name, 1.0) == pytest.approx((BASE / width) ** power), name
    assert all(not p.any() for name, p in parameters.items() if name.endswith("bias"))
    others = {name for name in network.rate_multipliers if not name.endswith("weight")}
    assert not others and (width == BASE) == (not network.rate_multipliers)


def test_the_hand_tuned_starts_of_the_digits_study_are_near_what_is_prescribed() -> None:
    """It starts labels with N(0, 1) and the timestep's two maps with N(0, 0.15); the paper all with N(0, 0.02)."""
    stds = [dit(width).t_embedder.mlp[2].weight.std().item() for width in (24, 48, 60, 72)]
    assert stds == pytest.approx([0.204, 0.144, 0.129, 0.118], rel=0.1)
    assert min(stds) < 0.15 < max(stds)
    first = dit(72).t_embedder.mlp[0].weight.std().item()
    assert first == pytest.approx(0.125, rel=0.05)
    assert dit(72).y_embedder.embedding_table.weight.std().item() == pytest.approx(1, rel=0.05)


def test_sp_is_what_it_was() -> None:
    """No multipliers, no scaled inputs, and N(0, 0.02) in the timestep's maps."""
    network = dit(48, parametrization="sp", base_width=None)
    assert not hasattr(network, "rate_multipliers")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert network.t_embedder.mlp[2].weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_final_map_sees_inputs_that_shrink_with_the_width() -> None:
    linear = dit(48).final_layer.linear
    nn.init.normal_(linear.weight)
    nn.init.normal_(linear.bias)
    x = torch.randn(3, 48)
    assert torch.allclose(linear(x), 0.5 * x @ linear.weight.T + linear.bias, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_logits_of_attention_are_divided_by_the_size_of_a_head(qk_norm: bool) -> None:
    attention = dit(24, qk_norm=qk_norm).blocks[0].attn
    x = torch.randn(2, 5, 24)
    q, k, v = attention.qkv(x).unflatten(-1, (3, 2, HEAD)).permute(2, 0, 3, 1, 4)
    if qk_norm:
        q, k = (nn.functional.layer_norm(each, (HEAD,), eps=1e-6) for each in (q, k))
    expected = torch.softmax(q @ k.transpose(-1, -2) / HEAD, -1) @ v
    assert torch.allclose(attention(x), attention.proj(expected.transpose(1, 2).flatten(2)), atol=1e-5)


# Of other families and designs: of each kind, by what their names contain; all that is left is a vector.
HIDDEN = {
    "qkv",
    "attn.proj",
    "cross_attn",
    "fc1",
    "fc2",
    "adaLN_modulation",
    "t_block",
    "skip_linear",
    "mlp.2",
    "attn_temporal",
}
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[Kind, set[str]]]] = {
    "adaln-single": ("DiT", {"block": "adaln-single"}, {"modulation": {"scale_shift_table"}}),
    "cross-attention": ("DiT", {"block": "cross-attention"}, {}),
    "pixart": (
        "PixArt",
        {"caption_tokens": 3, "caption_channels": 5, "window_size": 2, "use_rel_pos": True},
        {"modulation": {"scale_shift_table"}, "input": {"y_embedder.mlp.fc1"}, "fixed": {"null_caption", "rel_pos"}},
    ),
    "jit": ("JiT", {}, {"input": {"x_embedder.expand"}, "fixed": {"x_embedder.proj", "q_norm", "k_norm"}}),
    "u-vit": ("U-ViT", {"depth": 3}, {"fixed": {"final_layer.conv"}}),
    "video": ("VideoDiT", {"frames": 2, "patch_frames": 1, "attention": "sequential", "block": "adaln-single"},
              {"modulation": {"scale_shift_table"}}),
}  # fmt: skip


@pytest.mark.parametrize("case", FAMILIES)
def test_kinds_of_other_families(case: str) -> None:
    name, options, own = FAMILIES[case]
    given = {**SHAPE, "depth": 2, "hidden_size": 32, "num_heads": 4, "parametrization": "mup", "base_width": 16}
    with torch.device("meta"):
        network: Any = create_model(name, **given | options)
    kinds = kinds_of(network, type(network))
    assert set(kinds) == {key for key, p in network.named_parameters() if p.requires_grad}
    for key, kind in kinds.items():
        of_own = [each for each, parts in own.items() if any(part in key for part in parts)]
        expected = of_own[0] if of_own and not key.endswith("bias") else None
        if key == "final_layer.linear.bias":
            expected = "fixed"
        if expected is None and key.endswith("weight") and "norm" not in key:
            expected = (
                "table" if "embedding_table" in key
                else "output" if key == "final_layer.linear.weight"
                else "input" if key in ("x_embedder.proj.weight", "t_embedder.mlp.0.weight")
                else "hidden"
            )  # fmt: skip
            assert expected != "hidden" or any(part in key for part in HIDDEN), key
        if key.endswith("bias") and kind == "fixed":
            expected = "fixed"  # of a map to features that no width changes
        assert kind == (expected or "vector"), key
    hidden = {key for key, kind in kinds.items() if kind == "hidden"}
    assert network.rate_multipliers == dict.fromkeys(hidden, 0.5)


class Mixing(AdaLNZeroBlock):
    """With a matrix that is no `weight`."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__(dim, num_heads, mlp_ratio)
        self.mixing = nn.Parameter(torch.ones(dim, dim))

    def forward(self, x: Tensor, c: Tensor, rotation: Tensor | None = None) -> Tensor:
        return super().forward(x, c, rotation) @ self.mixing


class Stated(Mixing):
    kinds = {"mixing": "hidden"}  # noqa: RUF012


UNSTATED = BlockDesign(SumCondition, Mixing, AdaLNFinalLayer)
STATED = BlockDesign(SumCondition, Stated, AdaLNFinalLayer)


def test_a_block_of_ones_own_states_what_its_shapes_do_not_show() -> None:
    with pytest.raises(ValueError, match=r"blocks\.0\.mixing of Mixing is of no kind .*needed: kinds = \{'mixing'"):
        dit(48, block="test_parametrization:UNSTATED")
    network = dit(48, block="test_parametrization:STATED")
    assert network.rate_multipliers["blocks.0.mixing"] == 0.5
    assert network.blocks[0].mixing.std().item() == pytest.approx(48**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_width": 16}, "base_width: 16, but parametrization is sp; accepted with mup"),
        ({"parametrization": "mup"}, "base_width: missing"),
        ({"parametrization": "mup", "base_width": 20}, "base_width: 20 is not a multiple of the size of a head, 8"),
        ({"parametrization": "mup", "base_width": 0}, "base_width: 0 is not positive"),
        ({"parametrization": "mup", "base_width": 2.5}, "base_width: 2.5 is not a whole number"),
        ({"parametrization": "up", "base_width": 16}, "parametrization: 'up'; accepted: sp, mup"),
    ],
)
@pytest.mark.parametrize("family", ["DiT", "JiT", "U-ViT", "VideoDiT"])
def test_what_does_not_fit_together_is_refused(family: str, given: dict[str, Any], message: str) -> None:
    sizes = {**SHAPE, "depth": 3, "hidden_size": 32, "num_heads": 4}
    sizes |= {"frames": 2, "patch_frames": 1} if family == "VideoDiT" else {}
    with pytest.raises(ValueError, match=message) as refusal:
        configure(family, **sizes, **given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("family", "key"), [("DiT", "label_init_std"), ("JiT", "timestep_init_std"), ("U-ViT", "init_std")]
)
def test_starts_of_ones_own_are_refused_beside_mup(family: str, key: str) -> None:
    sizes = {**SHAPE, "depth": 3, "hidden_size": 32, "num_heads": 4, "parametrization": "mup", "base_width": 16}
    with pytest.raises(ValueError, match=f"{key}: 1.0, but parametrization mup says how weights start; accepted: 0.02"):
        configure(family, **sizes, **{key: 1.0})


def test_tables_tell_the_parametrizations_apart() -> None:
    sizes = {**SHAPE, "depth": 3, "hidden_size": 32, "num_heads": 4}
    for family, more in (("DiT", {}), ("U-ViT", {}), ("VideoDiT", {"frames": 2, "patch_frames": 1})):
        sp = configure(family, **sizes, **more)
        mup = configure(family, **sizes, **more, parametrization="mup", base_width=16)
        assert "mup" not in sp.columns.get("block", "")
        assert mup.columns["block"].endswith("parametrization=mup base_width=16")
        assert {k: v for k, v in mup.columns.items() if k != "block"} == {
            k: v for k, v in sp.columns.items() if k != "block"
        }
    with pytest.raises(ValueError, match="unknown option parametrization of UNet"):
        configure("UNet", parametrization="mup")
