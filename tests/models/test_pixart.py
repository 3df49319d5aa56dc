"""PixArt-alpha's block against formulas written out here: captions, windows, relative positions, dropped paths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models import create_model, load_pretrained
from models.conditions import Captions
from models.designs import Layers, Windows
from models.layers import DropPath, position_table, rotation_table
from models.pixart.block import PixArtBlock, WindowAttention
from models.registry import configure
from models.transformer import DiT

DIM, HEADS, GRID, S = 24, 2, 4, 3
HEAD = DIM // HEADS
SIZES: dict[str, Any] = {
    "depth": 4, "hidden_size": DIM, "num_heads": HEADS, "patch_size": 2, "input_size": 2 * GRID, "in_channels": 3,
    "num_classes": 5, "frequency_embedding_size": 10,
}  # fmt: skip
CAPTIONS: dict[str, Any] = {"caption_tokens": S, "caption_channels": 7}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def randomised(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return module


def small(**options: Any) -> DiT:
    return randomised(create_model("DiT", block="pixart", **{**SIZES, **options}).double())


def inputs(n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(n, 3, 2 * GRID, 2 * GRID, dtype=torch.float64)
    return x, torch.arange(n) * 300, torch.arange(n)


def captions(n: int = 3) -> Captions:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1]], dtype=torch.bool)
    return Captions(torch.randn(n, S, 7, dtype=torch.float64), mask[:n], torch.zeros(n, dtype=torch.bool))


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def normalised(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """q (N, T, D), k and v (N, S, D), seen (N, S) bool."""
    q, k, v = (z.unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for z in (q, k, v))
    logits = torch.einsum("nhtc,nhsc->nhts", q, k) / math.sqrt(HEAD)
    if seen is not None:
        logits = logits.masked_fill(~seen[:, None, None], -math.inf)
    return torch.einsum("nhts,nhsc->nhtc", logits.softmax(-1), v).transpose(1, 2).flatten(2)


def test_forward_equals_the_independent_one() -> None:
    """Block order, adaLN-single from the timestep alone, cross-attention without norm or gate, the final layer."""
    model, (x, t, _), told = small(**CAPTIONS), inputs(), captions()
    w = dict(model.state_dict())
    silu = torch.nn.functional.silu
    c = model.t_embedder(t)
    text = linear(w, "y_embedder.mlp.fc2", gelu(linear(w, "y_embedder.mlp.fc1", told.embeddings)))
    shared = linear(w, "condition.t_block.1", silu(c))
    h = model.x_embedder(x) + w["pos_embed"]
    for i in range(4):
        b = f"blocks.{i}"
        vectors = (w[f"{b}.scale_shift_table"].flatten() + shared)[:, None].split(DIM, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        q, k, v = linear(w, f"{b}.attn.qkv", normalised(h) * (1 + scale1) + shift1).split(DIM, -1)
        h = h + gate1 * linear(w, f"{b}.attn.proj", attention(q, k, v))
        k, v = linear(w, f"{b}.cross_attn.kv", text).split(DIM, -1)
        crossed = attention(linear(w, f"{b}.cross_attn.q", h), k, v, told.mask)
        h = h + linear(w, f"{b}.cross_attn.proj", crossed)
        hidden = gelu(linear(w, f"{b}.mlp.fc1", normalised(h) * (1 + scale2) + shift2))
        h = h + gate2 * linear(w, f"{b}.mlp.fc2", hidden)
    table = w["final_layer.scale_shift_table"]
    h = normalised(h) * (1 + table[1] + c[:, None]) + table[0] + c[:, None]
    expected = model.unpatchify(linear(w, "final_layer.linear", h))
    assert expected.std() > 0.1
    assert torch.allclose(model(x, t, told), expected, rtol=0, atol=1e-9)


def test_with_labels_it_is_adaln_single() -> None:
    own, shared = small(), create_model("DiT", block="adaln-single", **SIZES).double()
    shared.load_state_dict(own.state_dict(), strict=True)
    given = inputs()
    assert torch.equal(own(*given), shared(*given))


def test_a_file_of_its_weights_for_labels_is_read_as_adaln_single(tmp_path: Any) -> None:
    model, given = small().float(), inputs()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_pretrained(tmp_path / "weights.safetensors", num_heads=HEADS)
    assert loaded.arch.block == "adaln-single"
    assert torch.equal(loaded(given[0].float(), *given[1:]), model(given[0].float(), *given[1:]))


def test_blocks_start_as_if_there_were_no_captions() -> None:
    model = create_model("DiT", block="pixart", **SIZES, **CAPTIONS).double()
    with_text = model.blocks[0]
    without = PixArtBlock(DIM, HEADS, 4.0).double()
    state = with_text.state_dict()
    without.load_state_dict({name: value for name, value in state.items() if not name.startswith("cross_attn.")})
    x, vectors = torch.randn(3, GRID**2, DIM, dtype=torch.float64), torch.randn(3, 6 * DIM, dtype=torch.float64)
    (_, tokens), _ = model.condition(torch.randn(3, DIM, dtype=torch.float64), model.y_embedder(captions()))
    out = with_text(x, (vectors, tokens))
    assert torch.equal(out, without(x, vectors))
    assert not torch.equal(out, x)
    assert state["cross_attn.kv.weight"].abs().max().item() == pytest.approx(math.sqrt(6 / (3 * DIM)), rel=0.05)


def test_initial_spread_of_the_shared_map_and_the_tables() -> None:
    state = create_model("DiT", block="pixart", **{**SIZES, "hidden_size": 512, "depth": 2}).state_dict()
    assert state["condition.t_block.1.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert not state["condition.t_block.1.bias"].any()
    for name in ("blocks.0.scale_shift_table", "final_layer.scale_shift_table"):
        assert state[name].std().item() == pytest.approx(512**-0.5, rel=0.06)


# Windows and relative positions


def window_attention(size: int, use_rel_pos: bool, qk_norm: bool = False) -> WindowAttention:
    windows = Windows(GRID, size, use_rel_pos)
    return randomised(WindowAttention(DIM, HEADS, Layers(qk_norm=qk_norm), windows).double())


@pytest.mark.parametrize("use_rel_pos", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_patch_attends_to_its_window_with_what_distances_say(size: int, use_rel_pos: bool) -> None:
    attn = window_attention(size, use_rel_pos)
    x = torch.randn(2, GRID**2, DIM, dtype=torch.float64)
    w = dict(attn.state_dict())
    q, k, v = (z.unflatten(-1, (HEADS, HEAD)) for z in linear(w, "qkv", x).split(DIM, -1))
    expected = torch.zeros_like(q)
    places = [(row, column) for row in range(GRID) for column in range(GRID)]
    for i, (row, column) in enumerate(places):
        seen = [j for j, (r, c) in enumerate(places) if (r // size, c // size) == (row // size, column // size)]
        logits = torch.einsum("nhc,nshc->nhs", q[:, i], k[:, seen]) / math.sqrt(HEAD)
        if use_rel_pos:
            far_h = torch.stack([w["rel_pos_h"][row - places[j][0] + size - 1] for j in seen])
            far_w = torch.stack([w["rel_pos_w"][column - places[j][1] + size - 1] for j in seen])
            logits = logits + torch.einsum("nhc,sc->nhs", q[:, i], far_h + far_w)
        expected[:, i] = torch.einsum("nhs,nshc->nhc", logits.softmax(-1), v[:, seen])
    assert torch.allclose(attn(x), linear(w, "proj", expected.flatten(2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_one_window_is_global_attention(qk_norm: bool) -> None:
    windowed, whole = (small(qk_norm=qk_norm, **options) for options in ({"window_size": GRID}, {}))
    state = windowed.state_dict()
    del state["windows"]
    whole.load_state_dict(state, strict=True)
    given = inputs()
    assert torch.allclose(windowed(*given), whole(*given), rtol=0, atol=1e-10)


def test_relative_positions_start_as_none() -> None:
    plain = small(window_size=2)
    relative = create_model("DiT", block="pixart", **SIZES, window_size=2, use_rel_pos=True).double()
    tables = {name for name, _ in relative.named_parameters() if "rel_pos" in name}
    assert len(tables) == 2 * 4 and not any(relative.state_dict()[name].any() for name in tables)
    relative.load_state_dict({**relative.state_dict(), **plain.state_dict()}, strict=True)
    given = inputs()
    assert torch.allclose(relative(*given), plain(*given), rtol=0, atol=1e-12)
    relative(*given).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in relative.named_parameters() if name in tables)


def test_every_second_block_may_attend_globally() -> None:
    """What a far patch says crosses windows in those blocks, and in no other."""
    model, x = small(window_size=2, global_every=2), torch.randn(1, GRID**2, DIM, dtype=torch.float64)
    vectors, far = torch.randn(1, 6 * DIM, dtype=torch.float64), x.clone()
    far[:, -1] += torch.randn(DIM)
    crosses = [not torch.equal(block(x, vectors)[:, 0], block(far, vectors)[:, 0]) for block in model.blocks]
    assert crosses == [False, True, False, True]
    assert model.windows.tolist() == [2, 0, 2, 0]


# Positions


def test_positions_of_another_resolution_fill_the_square_of_the_base() -> None:
    assert torch.equal(position_table(DIM, 8, 8), position_table(DIM, 8))
    coarse, fine = position_table(DIM, 4).view(4, 4, DIM), position_table(DIM, 8, 4).view(8, 8, DIM)
    assert torch.equal(fine[::2, ::2], coarse)
    assert torch.allclose(fine[1, 0, DIM // 2], torch.tensor(0.5).sin())  # the row's first frequency is 1
    rotations = rotation_table(8, 8, 4).view(8, 8, 16)
    assert torch.allclose(rotations[::2, ::2], rotation_table(8, 4).view(4, 4, 16))
    model = create_model("DiT", **SIZES, position_base=2)
    assert torch.equal(model.pos_embed, position_table(DIM, GRID, 2))


# Dropped paths


def test_branches_are_left_out_by_the_draws_and_scaled_up_otherwise() -> None:
    drop, branch = DropPath(0.25), torch.randn(4, 2, DIM)
    drop.draws = torch.tensor([0.1, 0.2499, 0.25, 0.9])
    assert torch.equal(drop(branch), branch * torch.tensor([0, 0, 4 / 3, 4 / 3])[:, None, None])
    assert torch.equal(drop.eval()(branch), branch)


def test_a_branch_keeps_its_mean_without_draws_too() -> None:
    out = DropPath(0.3)(torch.ones(20000, 1, 1))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_rates_rise_linearly_and_draws_decide_what_is_dropped() -> None:
    model, (x, t, y) = small(drop_path=0.6), inputs()
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0, 0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6])
    assert model.training_draws == 8
    draws = torch.rand(3, 8)
    model.train().use_draws(draws)
    out = model(x, t, y)
    assert torch.equal(model(x, t, y), out)
    for i in range(3):  # an image's own numbers alone
        model.use_draws(draws[i : i + 1])
        assert torch.allclose(model(x[i : i + 1], t[i : i + 1], y[i : i + 1]), out[i : i + 1], rtol=0, atol=1e-12)
    model.use_draws(torch.zeros(3, 8))  # everything is dropped but for the first block's, whose rate is 0
    only = small(depth=1)
    only.load_state_dict({k: v for k, v in model.state_dict().items() if k in only.state_dict()}, strict=True)
    assert torch.allclose(model(x, t, y), only(x, t, y), rtol=0, atol=1e-12)
    assert small().training_draws == 0


# What is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"window_size": 3}, ["window_size: 3", "does not divide", "4"]),
        ({"window_size": 8}, ["window_size: 8", "4"]),
        ({"window_size": 0}, ["window_size: 0", "positive"]),
        ({"window_size": 2.0}, ["window_size: 2.0", "whole"]),
        ({"window_size": 2, "global_every": 1}, ["global_every: 1", "2 to 4"]),
        ({"window_size": 2, "global_every": 5}, ["global_every: 5", "2 to 4"]),
        ({"global_every": 2}, ["global_every: 2", "window_size"]),
        ({"use_rel_pos": True}, ["use_rel_pos: True", "window_size"]),
        ({"window_size": 2, "use_rel_pos": 2}, ["use_rel_pos: 2", "False, True"]),
        ({"window_size": 2, "positions": "rotary"}, ["positions: rotary", "sincos"]),
        ({"window_size": 2, "class_tokens": 2}, ["class_tokens: 2", "window_size"]),
        ({"drop_path": 1.0}, ["drop_path: 1.0", "less than 1"]),
        ({"drop_path": -0.1}, ["drop_path: -0.1", "0 or greater"]),
        ({"drop_path": math.nan}, ["drop_path: nan", "less than 1"]),
        ({"position_base": 0}, ["position_base: 0", "positive"]),
        ({"window_size": 2, "block": "adaln-zero"}, ["window_size: 2", "adaln-zero", "accepted: None"]),
        ({"drop_path": 0.1, "block": "in-context"}, ["drop_path: 0.1", "in-context", "accepted: 0.0"]),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        configure("DiT", **{**SIZES, "block": "pixart", **options})
    message = str(caught.value)
    assert message.startswith(named[0])
    assert [word for word in named if word not in message] + message.splitlines()[1:] == []


@pytest.mark.parametrize("options", [{"window_size": 2}, {"window_size": GRID, "use_rel_pos": True}])
def test_a_file_of_weights_with_windows_is_never_taken_for_one_without(options: dict[str, Any], tmp_path: Any) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(create_model("DiT", block="pixart", **SIZES, **options).state_dict(), path)
    with pytest.raises(ValueError, match=r"windows: .*option window_size"):
        load_pretrained(path, num_heads=HEADS)


@pytest.mark.parametrize("options", [{}, CAPTIONS, {"window_size": 2, "use_rel_pos": True, "drop_path": 0.2}])
def test_a_state_dict_is_the_whole_network(options: dict[str, Any]) -> None:
    model, other, (x, t, y) = small(**options).eval(), small(**options).eval(), inputs()
    said = captions() if "caption_tokens" in options else y
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(x, t, said), model(x, t, said))
