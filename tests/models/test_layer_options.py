"""The DiT's options that later systems brought, against formulas written out here; without them nothing has changed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from models import BLOCKS, create_model, designs, load_pretrained
from models.blocks import AdaLNBlock
from models.designs import PAPER_LAYERS, BlockDesign, Layers
from models.layers import rotation_table, timestep_features
from models.registry import configure
from models.transformer import DiT

DEPTH, DIM, HEADS, PATCH, SIZE, CHANNELS, CLASSES, FREQUENCIES = 3, 24, 2, 2, 6, 3, 5, 10
GRID, HEAD = SIZE // PATCH, DIM // HEADS
SIZES: dict[str, Any] = {
    "depth": DEPTH, "hidden_size": DIM, "num_heads": HEADS, "patch_size": PATCH, "input_size": SIZE,
    "in_channels": CHANNELS, "num_classes": CLASSES, "frequency_embedding_size": FREQUENCIES, "learn_sigma": False,
}  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {"qk_norm": True}, {"norm": "rms"}, {"mlp": "swiglu"}, {"positions": "rotary"}, {"positions": "both"},
    {"patch_bottleneck": 5}, {"class_tokens": 4}, {"class_tokens": 4, "class_tokens_start": 2},
]  # fmt: skip
# As in JiT: everything.
EVERYTHING: dict[str, Any] = {
    "qk_norm": True, "norm": "rms", "mlp": "swiglu", "positions": "both", "patch_bottleneck": 5, "class_tokens": 4,
    "class_tokens_start": 1,
}  # fmt: skip
PAPERS_NORMS = {**EVERYTHING, "norm": "layer", "positions": "rotary", "class_tokens_start": 2}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(block: str = "adaln-zero", randomised: bool = True, **options: Any) -> DiT:
    """In float64."""
    model = create_model("DiT", block=block, **SIZES, **options).double()
    if randomised:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.3)
    return model


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(3, CHANNELS, SIZE, SIZE, dtype=torch.float64)
    return x, torch.tensor([0, 421, 999]), torch.tensor([CLASSES, 0, 3])


# Without the options


# Of the version before they came: a projection of all initial weights, then one of a prediction, of each design.
BEFORE = {
    "adaln-zero": (13.239349672097445, -14.13173310123993),
    "adaln": (-0.41075959593073663, -1.9448183142381357),
    "adaln-single": (7.2033695605148225, 6.60136152145858),
    "cross-attention": (23.7350452316073, -4.770666802276287),
    "in-context": (-80.95796135052872, -2.5415382856284863),
}


def projection(values: Tensor) -> float:
    flat = values.detach().double().flatten()
    return (flat * torch.arange(len(flat), dtype=torch.float64).mul(0.1).cos()).sum().item()


@pytest.mark.parametrize("block", BEFORE)
def test_networks_without_them_start_and_compute_as_before(block: str) -> None:
    sizes: dict[str, Any] = {"depth": 2, "hidden_size": 24, "num_heads": 2, "patch_size": 2, "input_size": 8}
    model = create_model("DiT", block=block, in_channels=3, num_classes=5, frequency_embedding_size=16, **sizes)
    weights = torch.cat([parameter.flatten() for parameter in model.parameters()])
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    prediction = model(torch.randn(2, 3, 8, 8), torch.tensor([3, 700]), torch.tensor([1, 5]))
    assert projection(weights) == pytest.approx(BEFORE[block][0], rel=1e-7)
    assert projection(prediction) == pytest.approx(BEFORE[block][1], rel=1e-4)


# With them: an independent forward pass


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    out = torch.einsum("...i,oi->...o", x, w[f"{name}.weight"].flatten(1))
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def normalised(w: dict[str, Tensor], name: str, x: Tensor, kind: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    out = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    if kind == "rms":
        return out * w[f"{name}.weight"]
    return out * w[f"{name}.weight"] + w[f"{name}.bias"] if f"{name}.weight" in w else out


def rotated(x: Tensor) -> Tensor:
    """x (N, heads, T, HEAD): pairs of channels as complex numbers, turned by row and by column; patches come first."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()).clone()
    half = HEAD // 4
    for row in range(GRID):
        for column in range(GRID):
            for i in range(half):
                frequency = 10_000 ** (-i / half)
                for axis, place in enumerate((row, column)):
                    angle = torch.tensor(complex(math.cos(place * frequency), math.sin(place * frequency)))
                    pairs[:, :, row * GRID + column, axis * half + i] *= angle
    return torch.view_as_real(pairs).flatten(-2)


def attention(w: dict[str, Tensor], name: str, x: Tensor, options: dict[str, Any]) -> Tensor:
    q, k, v = (z.unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for z in linear(w, f"{name}.qkv", x).split(DIM, dim=-1))
    if options["qk_norm"]:
        q = normalised(w, f"{name}.q_norm", q, options["norm"])
        k = normalised(w, f"{name}.k_norm", k, options["norm"])
    if options["positions"] != "sincos":
        q, k = rotated(q), rotated(k)
    scores = torch.einsum("nhtc,nhsc->nhts", q, k) / math.sqrt(HEAD)
    return linear(w, f"{name}.proj", torch.einsum("nhts,nhsc->nhtc", scores.softmax(-1), v).transpose(1, 2).flatten(2))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def mlp(w: dict[str, Tensor], name: str, x: Tensor, kind: str) -> Tensor:
    hidden = linear(w, f"{name}.fc1", x)
    if kind == "swiglu":
        gate, value = hidden.chunk(2, dim=-1)
        assert gate.shape[-1] == 2 * 4 * DIM // 3
        return linear(w, f"{name}.fc2", silu(gate) * value)
    tanh = torch.tanh((2 / math.pi) ** 0.5 * (hidden + 0.044715 * hidden**3))
    return linear(w, f"{name}.fc2", 0.5 * hidden * (1 + tanh))


def reference(w: dict[str, Tensor], block: str, given: dict[str, Any], x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """adaln-zero and in-context with the options, on a state dict: what the final layer gives, (N, T, p p C)."""
    options = {"qk_norm": False, "norm": "layer", "mlp": "gelu", "positions": "sincos", **given}
    kind = options["norm"]
    corners = [(i, j) for i in range(0, SIZE, PATCH) for j in range(0, SIZE, PATCH)]
    patches = torch.stack([x[:, :, i : i + PATCH, j : j + PATCH].flatten(1) for i, j in corners], 1)
    h = linear(w, "x_embedder.proj", patches)
    if "patch_bottleneck" in options:
        h = linear(w, "x_embedder.expand", h)
    if options["positions"] != "rotary":
        h = h + w["pos_embed"]
    features = timestep_features(t, FREQUENCIES).double()
    time = linear(w, "t_embedder.mlp.2", silu(linear(w, "t_embedder.mlp.0", features)))
    label = w["y_embedder.embedding_table.weight"][y]
    if block == "in-context":
        h = torch.cat([h, time[:, None], label[:, None]], 1)
    for i in range(DEPTH):
        if i == options.get("class_tokens_start", 0) and "class_tokens" in options:
            copies = [label + w["class_positions"][0, k] for k in range(options["class_tokens"])]
            h = torch.cat([h, torch.stack(copies, 1)], 1)
        b = f"blocks.{i}"
        vectors: Any = (0.0, 0.0, 1.0) * 2
        if block == "adaln-zero":
            vectors = linear(w, f"{b}.adaLN_modulation.1", silu(time + label))[:, None].split(DIM, -1)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors
        h = h + gate1 * attention(w, f"{b}.attn", normalised(w, f"{b}.norm1", h, kind) * (1 + scale1) + shift1, options)
        h = h + gate2 * mlp(w, f"{b}.mlp", normalised(w, f"{b}.norm2", h, kind) * (1 + scale2) + shift2, options["mlp"])
    h = normalised(w, "final_layer.norm_final", h[:, : len(corners)], kind)
    if block == "adaln-zero":
        shift, scale = linear(w, "final_layer.adaLN_modulation.1", silu(time + label))[:, None].split(DIM, -1)
        h = h * (1 + scale) + shift
    return linear(w, "final_layer.linear", h)


@pytest.mark.parametrize("options", [*OPTIONS, EVERYTHING, PAPERS_NORMS])
@pytest.mark.parametrize("block", ["adaln-zero", "in-context"])
def test_forward_equals_the_independent_one(block: str, options: dict[str, Any]) -> None:
    model = small(block, **options)
    x, t, y = inputs()
    expected = model.unpatchify(reference(dict(model.state_dict()), block, options, x, t, y))
    assert expected.std() > 0.1
    # The tables of positions are stored in float32.
    assert torch.allclose(model(x, t, y), expected, rtol=0, atol=1e-5)


def test_cross_attention_normalises_queries_and_keys_too() -> None:
    """Scaling a map to queries or to keys changes nothing any more, but for the epsilon."""
    x, t, y = inputs()
    for qk_norm in (False, True):
        model = small("cross-attention", qk_norm=qk_norm)
        before = model(x, t, y)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("cross_attn.q.weight", "cross_attn.q.bias")):
                    parameter.mul_(100)
                elif ".cross_attn.kv." in name or ".attn.qkv." in name:
                    parameter[:DIM].mul_(100)
        assert torch.allclose(model(x, t, y), before, rtol=0, atol=1e-3) == qk_norm


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    rows=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    columns=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    down=st.integers(0, 4),
    right=st.integers(0, 4),
)
def test_rotations_make_products_depend_on_the_offset_alone(
    rows: tuple[int, int], columns: tuple[int, int], down: int, right: int
) -> None:
    grid, size = 8, 12
    sines, cosines = rotation_table(size, grid).double().unflatten(0, (grid, grid)).chunk(2, -1)
    q, k = torch.randn(2, size, dtype=torch.float64)

    def product(down: int, right: int) -> float:
        turned = []
        for x, row, column in ((q, rows[0] + down, columns[0] + right), (k, rows[1] + down, columns[1] + right)):
            other = torch.stack([-x[1::2], x[::2]], -1).flatten()
            turned.append(x * cosines[row, column] + other * sines[row, column])
        return (turned[0] @ turned[1]).item()

    assert product(down, right) == pytest.approx(product(0, 0), abs=1e-5)


def test_the_first_patch_is_not_rotated_which_stands_for_tokens_that_are_no_patches() -> None:
    sines, cosines = rotation_table(8, 4)[0].chunk(2)
    assert torch.equal(sines, torch.zeros(8))
    assert torch.equal(cosines, torch.ones(8))


# At the start


@pytest.mark.parametrize("options", [*OPTIONS, EVERYTHING])
def test_a_block_starts_as_the_identity_and_the_network_by_predicting_zero(options: dict[str, Any]) -> None:
    model = small(randomised=False, **options)
    tokens = torch.randn(2, GRID**2, DIM, dtype=torch.float64)
    rotation = (model.rotation,) if model.arch.has_rotation else ()
    assert torch.equal(model.blocks[0](tokens, torch.randn(2, DIM, dtype=torch.float64), *rotation), tokens)
    x, t, y = inputs()
    assert torch.equal(model(x, t, y), torch.zeros_like(x))


def test_initial_spread_of_what_they_add() -> None:
    wide = {**SIZES, "hidden_size": 256, "num_heads": 4, "input_size": 32, "patch_size": 8}
    state = create_model("DiT", **{**wide, **EVERYTHING, "class_tokens": 100, "patch_bottleneck": 64}).state_dict()
    assert state["class_positions"].std().item() == pytest.approx(0.02, rel=0.03)
    for name in ("x_embedder.proj.weight", "x_embedder.expand.weight", "blocks.0.mlp.fc1.weight"):
        flat = state[name].flatten(1)
        assert flat.abs().max().item() == pytest.approx(math.sqrt(6 / sum(flat.shape)), rel=0.01)  # Xavier
    assert not any(state[name].any() for name in ("x_embedder.expand.bias", "blocks.0.mlp.fc1.bias"))
    for name in ("blocks.0.norm1.weight", "blocks.0.attn.q_norm.weight", "final_layer.norm_final.weight"):
        assert torch.equal(state[name], torch.ones_like(state[name]))


@pytest.mark.parametrize("options", [*OPTIONS, EVERYTHING, PAPERS_NORMS])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_design_follows_them(block: str, options: dict[str, Any]) -> None:
    """Gradients reach every weight, fixed tables stay fixed, and samples of a batch do not see each other."""
    model = small(block, **options)
    x, t, y = inputs()
    together = model(x, t, y)
    assert together.shape == x.shape
    for i in range(len(x)):
        assert torch.allclose(together[i : i + 1], model(*(each[i : i + 1] for each in (x, t, y))), rtol=0, atol=1e-12)
    (together * torch.randn_like(together)).sum().backward()
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tables = {"rotary": {"rotation"}, "both": {"pos_embed", "rotation"}}
    assert fixed == tables.get(options.get("positions", ""), {"pos_embed"})
    for name, parameter in model.named_parameters():
        assert name in fixed or (parameter.grad is not None and parameter.grad.any()), name


# Designs of one's own, as a recipe would name them in this very file


class Plain(AdaLNBlock):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__(dim, num_heads, mlp_ratio)


class Choosy(AdaLNBlock):
    """It follows `norm`, and remembers what it was told."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__(dim, num_heads, mlp_ratio, layers)
        self.told = layers


PLAIN = BlockDesign(designs.ADALN.condition, Plain, designs.ADALN.final_layer)
CHOOSY = replace(designs.ADALN, block=Choosy, cost=None, takes=("norm",))


@pytest.mark.parametrize(
    ("design", "options", "key"),
    [
        ("PLAIN", {"qk_norm": True}, "qk_norm: True"),
        ("PLAIN", {"norm": "rms"}, "norm: rms"),
        ("PLAIN", {"mlp": "swiglu"}, "mlp: swiglu"),
        ("PLAIN", {"positions": "rotary"}, "positions: rotary"),
        ("PLAIN", {"positions": "both"}, "positions: both"),
        ("CHOOSY", {"norm": "rms", "mlp": "swiglu"}, "mlp: swiglu"),
    ],
)
def test_what_a_design_of_ones_own_does_not_take_is_refused(design: str, options: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}.*test_layer_options:{design}.*accepted: "):
        configure("DiT", block=f"test_layer_options:{design}", **SIZES, **options)


@pytest.mark.parametrize("options", [{}, {"patch_bottleneck": 3}, {"class_tokens": 3, "class_tokens_start": 1}])
def test_what_does_not_concern_the_block_works_with_any(options: dict[str, Any]) -> None:
    """A block of three arguments computes what the built-in one does."""
    own, builtin = small("test_layer_options:PLAIN", **options), small("adaln", **options)
    own.load_state_dict(builtin.state_dict(), strict=True)
    x, t, y = inputs()
    assert torch.equal(own(x, t, y), builtin(x, t, y))


def test_a_design_of_ones_own_is_told_what_it_says_that_it_takes() -> None:
    told: Any = [small("test_layer_options:CHOOSY", norm=norm).blocks[0] for norm in ("layer", "rms")]
    assert [block.told for block in told] == [Layers(), Layers(norm="rms")]


# What is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"norm": "batch"}, ["norm", "'batch'", "layer, rms"]),
        ({"mlp": "relu"}, ["mlp", "'relu'", "gelu, swiglu"]),
        ({"positions": "learned"}, ["positions", "'learned'", "sincos, rotary, both"]),
        ({"qk_norm": "rms"}, ["qk_norm", "'rms'", "False, True"]),
        ({"positions": "rotary", "num_heads": 4}, ["positions", "4, 8, 12", "num_heads", "6"]),
        ({"positions": "both", "num_heads": 12}, ["positions", "2"]),
        ({"patch_bottleneck": 0}, ["patch_bottleneck", "0", "positive"]),
        ({"patch_bottleneck": 1.5}, ["patch_bottleneck", "1.5", "whole"]),
        ({"class_tokens": -1}, ["class_tokens", "-1", "0 or greater"]),
        ({"class_tokens": 2.0}, ["class_tokens", "2.0", "whole"]),
        ({"class_tokens": 2, "class_tokens_start": DEPTH}, ["class_tokens_start", "3"]),
        ({"class_tokens": 2, "class_tokens_start": -1}, ["class_tokens_start", "-1"]),
        ({"class_tokens_start": 1}, ["class_tokens_start", "1", "class_tokens"]),
        ({"mlp": "swiglu", "mlp_ratio": 1 / DIM}, ["mlp_ratio", str(1 / DIM)]),
        ({"mlp_ratio": 0.5 / DIM}, ["mlp_ratio", str(0.5 / DIM)]),
    ],
)
def test_errors_name_what_was_given_and_what_is_accepted(options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        configure("DiT", **{**SIZES, **options})
    message = str(caught.value)
    assert message.startswith(f"{named[0]}: ")
    assert [word for word in named if word not in message] == []


@pytest.mark.parametrize("options", OPTIONS)
def test_a_file_of_weights_is_never_taken_for_another_network(options: dict[str, Any], tmp_path: Any) -> None:
    """Not all of an option can be read off the tensors, so none is guessed."""
    path = tmp_path / "weights.safetensors"
    save_file(create_model("DiT", **SIZES, **options).state_dict(), path)
    with pytest.raises(ValueError, match=r"option|mlp|norm1"):
        load_pretrained(path, num_heads=HEADS)
