"""The block designs and the embeddings against formulas written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models import BLOCKS, create_model
from models.blocks import (
    AdaLNBlock,
    AdaLNSingleBlock,
    AdaLNZeroBlock,
    CrossAttention,
    CrossAttentionBlock,
    InContextBlock,
    SharedModulation,
    modulate,
)
from models.layers import PatchEmbed, TimestepEmbedder, position_table, timestep_features
from models.transformer import DiT

DIM, HEADS = 16, 4


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def randomise(module: nn.Module) -> None:
    """Replace every trainable tensor, zeros of the initialisation included."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)


def small(block: str, learn_sigma: bool = True, randomised: bool = True, channels: int = 3) -> DiT:
    """A two-block model in float64 on 8 x 8 latents, 16 tokens."""
    model = create_model(
        "DiT", block=block, in_channels=channels, num_classes=5, learn_sigma=learn_sigma,
        depth=2, hidden_size=DIM, num_heads=HEADS, patch_size=2, input_size=8,
    )  # fmt: skip
    if randomised:
        randomise(model)
    return model.double()


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention head by head: q (N, T, D), k and v (N, S, D)."""
    size = DIM // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("ntd,nsd->nts", q[..., part], k[..., part]) / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("nts,nsd->ntd", weights, v[..., part]))
    return torch.cat(heads, dim=-1)


def affine(x: Tensor, norm: nn.Module) -> Tensor:
    """`x` times weight plus bias of a LayerNorm (typed optional by torch)."""
    assert isinstance(norm, nn.LayerNorm)
    assert norm.bias is not None
    return x * norm.weight + norm.bias


def normalised(x: Tensor) -> Tensor:
    """LayerNorm without weights, eps 1e-6."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def tokens(count: int = 6) -> Tensor:
    return torch.randn(2, count, DIM, dtype=torch.float64)


def condition() -> Tensor:
    return torch.randn(2, DIM, dtype=torch.float64)


# Blocks


def test_modulate_shifts_and_scales_around_one() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    result = modulate(x, torch.tensor([[10.0, 20.0]]), torch.tensor([[0.5, -1.0]]))
    assert torch.equal(result, torch.tensor([[[11.5, 20.0], [14.5, 20.0]]]))


def test_self_attention_is_softmax_attention() -> None:
    attn = AdaLNBlock(DIM, HEADS, 4.0).double().attn
    randomise(attn)
    x = tokens()
    assert attn.qkv is not None
    q, k, v = (x @ attn.qkv.weight.T + attn.qkv.bias).split(DIM, dim=-1)
    expected = explicit_attention(q, k, v) @ attn.proj.weight.T + attn.proj.bias
    assert torch.allclose(attn(x), expected, rtol=0, atol=1e-12)


def test_cross_attention_is_softmax_attention_to_the_condition() -> None:
    attn = CrossAttention(DIM, HEADS).double()
    randomise(attn)
    x, c = tokens(), tokens(2)
    k, v = (c @ attn.kv.weight.T + attn.kv.bias).split(DIM, dim=-1)
    expected = explicit_attention(x @ attn.q.weight.T + attn.q.bias, k, v) @ attn.proj.weight.T + attn.proj.bias
    assert torch.allclose(attn(x, c), expected, rtol=0, atol=1e-12)


def test_adaln_zero_block_starts_as_the_identity() -> None:
    block = small("adaln-zero", randomised=False).blocks[0]
    x = tokens()
    assert torch.equal(block(x, condition()), x)


@pytest.mark.parametrize("design", [b for b in BLOCKS if b != "adaln-zero"])
def test_the_other_designs_start_with_open_branches(design: str) -> None:
    block = small(design, randomised=False).blocks[0]
    x = tokens()
    vectors = torch.randn(2, 6 * DIM, dtype=torch.float64)
    c = {"adaln": condition(), "adaln-single": vectors, "pixart": vectors}.get(design, tokens(2))
    assert (block(x, c) - x).abs().mean() > 0.01


def test_adaln_zero_block_is_gated_modulated_branches() -> None:
    block = AdaLNZeroBlock(DIM, HEADS, 4.0).double()
    randomise(block)
    x, c = tokens(), condition()
    silu = c / (1 + (-c).exp())
    linear = block.adaLN_modulation[1]
    assert isinstance(linear, nn.Linear)
    vectors = (silu @ linear.weight.T + linear.bias)[:, None, :]
    shift1, scale1, gate1, shift2, scale2, gate2 = vectors.split(DIM, dim=-1)
    half = x + gate1 * block.attn(normalised(x) * (1 + scale1) + shift1)
    expected = half + gate2 * block.mlp(normalised(half) * (1 + scale2) + shift2)
    assert torch.allclose(block(x, c), expected, rtol=0, atol=1e-12)


def test_adaln_block_is_adaln_zero_with_gates_of_one() -> None:
    """The same weights with both gates fixed at 1 give the same function."""
    plain, gated = AdaLNBlock(DIM, HEADS, 4.0).double(), AdaLNZeroBlock(DIM, HEADS, 4.0).double()
    randomise(plain)
    state = plain.state_dict()
    weight, bias = state["adaLN_modulation.1.weight"], state["adaLN_modulation.1.bias"]
    zeros, ones = torch.zeros(DIM, DIM, dtype=torch.float64), torch.ones(DIM, dtype=torch.float64)
    state["adaLN_modulation.1.weight"] = torch.cat([weight[: 2 * DIM], zeros, weight[2 * DIM :], zeros])
    state["adaLN_modulation.1.bias"] = torch.cat([bias[: 2 * DIM], ones, bias[2 * DIM :], ones])
    gated.load_state_dict(state, strict=True)
    x, c = tokens(), condition()
    assert torch.allclose(plain(x, c), gated(x, c), rtol=0, atol=1e-12)


def test_adaln_single_block_is_adaln_zero_with_the_shared_map_plus_its_table() -> None:
    """An adaLN-Zero block whose own map is the shared one, its bias raised by the table, is the same function."""
    shared, single = SharedModulation(DIM).double(), AdaLNSingleBlock(DIM, HEADS, 4.0).double()
    randomise(shared)
    randomise(single)
    zero = AdaLNZeroBlock(DIM, HEADS, 4.0).double()
    state = single.state_dict()
    table = state.pop("scale_shift_table")
    state["adaLN_modulation.1.weight"] = shared.state_dict()["t_block.1.weight"]
    state["adaLN_modulation.1.bias"] = shared.state_dict()["t_block.1.bias"] + table.reshape(-1)
    zero.load_state_dict(state, strict=True)
    x, t, y = tokens(), condition(), condition()
    for_blocks, for_final = shared(t, y)
    assert torch.allclose(single(x, for_blocks), zero(x, t + y), rtol=0, atol=1e-12)
    assert torch.equal(for_final, t + y)


def test_cross_attention_block_attends_to_itself_then_to_the_condition() -> None:
    block = CrossAttentionBlock(DIM, HEADS, 4.0).double()
    randomise(block)
    x, c = tokens(), tokens(2)
    half = x + block.attn(affine(normalised(x), block.norm1))
    half = half + block.cross_attn(half, c)
    expected = half + block.mlp(affine(normalised(half), block.norm2))
    assert torch.allclose(block(x, c), expected, rtol=0, atol=1e-12)


def test_in_context_block_leaves_the_condition_to_the_tokens() -> None:
    block = InContextBlock(DIM, HEADS, 4.0).double()
    randomise(block)
    x = tokens()
    half = x + block.attn(affine(normalised(x), block.norm1))
    expected = half + block.mlp(affine(normalised(half), block.norm2))
    assert torch.allclose(block(x, tokens(2)), expected, rtol=0, atol=1e-12)


def test_mlp_is_the_tanh_approximation_of_gelu() -> None:
    mlp = InContextBlock(DIM, HEADS, 2.5).double().mlp
    randomise(mlp)
    x = tokens()
    hidden = nn.functional.linear(x, mlp.fc1.weight, mlp.fc1.bias)
    assert hidden.shape[-1] == 40
    hidden = hidden / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    assert torch.allclose(mlp(x), nn.functional.linear(hidden, mlp.fc2.weight, mlp.fc2.bias), rtol=0, atol=1e-12)


# Every design as a model


@pytest.mark.parametrize("design", BLOCKS)
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_output_shape(design: str, learn_sigma: bool) -> None:
    model = small(design, learn_sigma)
    out = model(torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.arange(3), torch.arange(3))
    assert out.shape == (3, 6 if learn_sigma else 3, 8, 8)


@pytest.mark.parametrize("design", BLOCKS)
def test_every_design_starts_by_predicting_zero(design: str) -> None:
    """The output layer starts at zero, so the first loss is the noise's own mean square."""
    out = small(design, randomised=False)(torch.randn(2, 3, 8, 8).double(), torch.tensor([0, 999]), torch.arange(2))
    assert torch.equal(out, torch.zeros(2, 6, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("design", BLOCKS)
def test_output_depends_on_image_timestep_and_label(design: str) -> None:
    model = small(design)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    t, y = torch.tensor([10]), torch.tensor([2])
    out = model(x, t, y)
    for changed in (model(x, t + 1, y), model(x, t, y + 1), model(x + 0.1, t, y)):
        assert (changed - out).abs().max() > 1e-4
    assert torch.equal(model(x, t, y), out)


@pytest.mark.parametrize("design", BLOCKS)
def test_samples_of_a_batch_do_not_see_each_other(design: str) -> None:
    model = small(design)
    x, t, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([3, 500, 999]), torch.tensor([4, 0, 5])
    together = model(x, t, y)
    for i in range(3):
        alone = model(x[i : i + 1], t[i : i + 1], y[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("design", BLOCKS)
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_gradients_reach_every_weight(design: str, learn_sigma: bool) -> None:
    """Every single entry, but for labels not in the batch and the keys' bias, which softmax cannot see."""
    model = small(design, learn_sigma)
    out = model(torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([7, 400]), torch.tensor([1, 5]))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in model.named_parameters():
        if name == "pos_embed":
            assert not parameter.requires_grad
            continue
        assert parameter.grad is not None, name
        reached = parameter.grad != 0
        if name == "y_embedder.embedding_table.weight":
            reached = reached[[1, 5]]
        elif name.endswith("attn.qkv.bias"):
            reached = torch.cat([reached[:DIM], reached[2 * DIM :]])
        elif name.endswith("attn.kv.bias"):
            reached = reached[DIM:]
        assert reached.all(), name


# Embeddings


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(0, 1000), st.integers(1, 64), st.sampled_from([10_000.0, 100.0]))
def test_timestep_features_are_cosines_then_sines(t: float, half: int, max_period: float) -> None:
    features = timestep_features(torch.tensor([t], dtype=torch.float64), 2 * half, max_period)[0]
    angles = [np.float32(t) * max_period ** (-i / half) for i in range(half)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    # An angle of up to 1000 in float32 is known to about 1e-4.
    assert features.dtype == torch.float32
    assert features.tolist() == pytest.approx(expected, abs=3e-4)


def test_timestep_features_at_zero_and_one() -> None:
    features = timestep_features(torch.tensor([0, 1]), 4)
    assert features[0].tolist() == [1, 1, 0, 0]
    assert features[1].tolist() == pytest.approx([math.cos(1), math.cos(0.01), math.sin(1), math.sin(0.01)], abs=1e-7)


def test_timestep_embedder_is_a_silu_mlp_of_the_features() -> None:
    embedder = TimestepEmbedder(DIM, 8).double()
    t = torch.tensor([0.0, 12.5, 999.0])
    first, last = embedder.mlp[0], embedder.mlp[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = timestep_features(t, 8).double() @ first.weight.T + first.bias
    hidden = hidden * torch.sigmoid(hidden)
    assert torch.allclose(embedder(t), hidden @ last.weight.T + last.bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dim", "grid"), [(384, 16), (64, 4), (1152, 4), (16, 1)])
def test_position_table_equals_diffusers(dim: int, grid: int) -> None:
    theirs = get_2d_sincos_pos_embed(dim, grid, base_size=grid, output_type="pt")
    assert torch.allclose(position_table(dim, grid)[0], torch.as_tensor(theirs).float(), rtol=0, atol=2e-6)


def test_position_table_by_hand() -> None:
    """D = 8, so frequencies 1 and 1/100: sines and cosines of the column, then of the row."""
    table = position_table(8, 3)
    assert table.shape == (1, 9, 8)
    for row in range(3):
        for column in range(3):
            axes = [(column, column / 100), (row, row / 100)]
            expected = [f(a) for pair in axes for f in (math.sin, math.cos) for a in pair]
            assert table[0, 3 * row + column].tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("patch", "size", "channels"), [(2, 8, 4), (4, 8, 1), (8, 8, 3), (1, 4, 3)])
def test_patch_embedding_is_the_convolution_with_stride_of_its_kernel(patch: int, size: int, channels: int) -> None:
    embed = PatchEmbed(size, patch, channels, DIM).double()
    x = torch.randn(2, channels, size, size, dtype=torch.float64)
    convolved = nn.functional.conv2d(x, embed.proj.weight, embed.proj.bias, stride=patch)
    assert torch.allclose(embed(x), convolved.flatten(2).transpose(1, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_unpatchify_inverts_cutting_into_patches(patch: int, learn_sigma: bool) -> None:
    model = create_model("DiT", in_channels=3, num_classes=2, learn_sigma=learn_sigma, depth=1, hidden_size=8,
                         num_heads=1, patch_size=patch, input_size=8)  # fmt: skip
    image = torch.randn(2, 6 if learn_sigma else 3, 8, 8)
    cut = [
        image[:, :, i : i + patch, j : j + patch].permute(0, 2, 3, 1).flatten(1)
        for i in range(0, 8, patch)
        for j in range(0, 8, patch)
    ]
    assert torch.equal(model.unpatchify(torch.stack(cut, dim=1)), image)
