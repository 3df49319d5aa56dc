"""The whole model: parameter counts, the official layout, an independent forward pass, guidance."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from analysis.printed_gmacs import TABLE
from models import BLOCKS, create_model
from models.layers import timestep_features
from models.transformer import DiT

# Every tensor, the fixed position table included; of these T x d are not trained.
PARAMETERS = {
    "DiT-S/8": 33_148_160, "DiT-S/4": 32_945_024, "DiT-S/2": 32_963_360,
    "DiT-B/8": 130_881_536, "DiT-B/4": 130_475_648, "DiT-B/2": 130_512_416,
    "DiT-L/8": 458_594_816, "DiT-L/4": 458_053_760, "DiT-L/2": 458_102_816,
    "DiT-XL/8": 675_683_072, "DiT-XL/4": 675_074_432, "DiT-XL/2": 675_129_632,
}  # fmt: skip

# A model small enough for loops: 9 tokens, one odd size each.
DEPTH, DIM, HEADS, PATCH, SIZE, CHANNELS, CLASSES, HIDDEN, FREQUENCIES = 2, 24, 3, 2, 6, 3, 5, 60, 10


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(block: str = "adaln-zero", channels: int = CHANNELS, learn_sigma: bool = True) -> DiT:
    """The small model in float64 with every trainable tensor random."""
    model = create_model(
        "DiT", block=block, in_channels=channels, num_classes=CLASSES, learn_sigma=learn_sigma,
        depth=DEPTH, hidden_size=DIM, num_heads=HEADS, patch_size=PATCH, input_size=SIZE,
        mlp_ratio=HIDDEN / DIM, frequency_embedding_size=FREQUENCIES,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return model


# Parameter counts


def parameter_counts(name: str, block: str, image_size: int = 256) -> tuple[int, int]:
    """(all, trainable) without allocating."""
    with torch.device("meta"):
        model = create_model(name, block=block, image_size=image_size)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


def published_parameters() -> list[tuple[str, str, int, int]]:
    """(model, block, image size, millions of parameters), each once."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [(r["model"], r["block"], int(r["image_size"]), int(r["params_m"])) for r in csv.DictReader(file)]
    return list(dict.fromkeys(rows))


@pytest.mark.parametrize("name", PARAMETERS)
def test_exact_parameter_counts(name: str) -> None:
    total, trainable = parameter_counts(name, "adaln-zero")
    assert total == PARAMETERS[name]
    dim = {"S": 384, "B": 768, "L": 1024, "XL": 1152}[name[4:-2]]
    assert total - trainable == (32 // int(name[-1])) ** 2 * dim


@pytest.mark.parametrize(("name", "block", "image_size", "millions"), published_parameters())
def test_published_parameter_counts(name: str, block: str, image_size: int, millions: int) -> None:
    """The paper counts what is trained."""
    _, trainable = parameter_counts(name, block, image_size)
    assert round(trainable / 1e6) == millions


def test_all_published_designs_are_among_those_counted() -> None:
    assert {block for _, block, _, _ in published_parameters()} == set(BLOCKS) - {"adaln-single", "pixart"}


def test_adaln_single_trains_457_million() -> None:
    _, trainable = parameter_counts("DiT-XL/2", "adaln-single")
    assert round(trainable / 1e6, 1) == 457.2


# The official layout


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official release's state dict, for the small model."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 9, DIM),
        "x_embedder.proj.weight": (DIM, CHANNELS, PATCH, PATCH),
        "x_embedder.proj.bias": (DIM,),
        "t_embedder.mlp.0.weight": (DIM, FREQUENCIES),
        "t_embedder.mlp.0.bias": (DIM,),
        "t_embedder.mlp.2.weight": (DIM, DIM),
        "t_embedder.mlp.2.bias": (DIM,),
        "y_embedder.embedding_table.weight": (CLASSES + 1, DIM),
        "final_layer.linear.weight": (PATCH * PATCH * 2 * CHANNELS, DIM),
        "final_layer.linear.bias": (PATCH * PATCH * 2 * CHANNELS,),
        "final_layer.adaLN_modulation.1.weight": (2 * DIM, DIM),
        "final_layer.adaLN_modulation.1.bias": (2 * DIM,),
    }
    for i in range(DEPTH):
        shapes |= {
            f"blocks.{i}.attn.qkv.weight": (3 * DIM, DIM),
            f"blocks.{i}.attn.qkv.bias": (3 * DIM,),
            f"blocks.{i}.attn.proj.weight": (DIM, DIM),
            f"blocks.{i}.attn.proj.bias": (DIM,),
            f"blocks.{i}.mlp.fc1.weight": (HIDDEN, DIM),
            f"blocks.{i}.mlp.fc1.bias": (HIDDEN,),
            f"blocks.{i}.mlp.fc2.weight": (DIM, HIDDEN),
            f"blocks.{i}.mlp.fc2.bias": (DIM,),
            f"blocks.{i}.adaLN_modulation.1.weight": (6 * DIM, DIM),
            f"blocks.{i}.adaLN_modulation.1.bias": (6 * DIM,),
        }
    return shapes


def test_state_dict_is_the_official_layout() -> None:
    assert {name: tuple(tensor.shape) for name, tensor in small().state_dict().items()} == official_shapes()


def test_a_file_in_the_official_layout_loads_and_computes_the_same_function(tmp_path: Path) -> None:
    """Tensors made without our model, saved, loaded strictly: equal outputs in float64."""
    weights = {name: 0.3 * torch.randn(shape, dtype=torch.float64) for name, shape in official_shapes().items()}
    torch.save(weights, tmp_path / "official.pt")
    model = small()
    model.load_state_dict(torch.load(tmp_path / "official.pt", weights_only=True), strict=True)
    x, t, y = inputs()
    expected = reference("adaln-zero", weights, x, timestep_features(t, FREQUENCIES).double(), y)
    assert expected.std() > 0.1
    assert torch.allclose(model(x, t, y), expected, rtol=0, atol=1e-9)


# An independent forward pass


def inputs(channels: int = CHANNELS) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(3, channels, SIZE, SIZE, dtype=torch.float64)
    return x, torch.tensor([0, 421, 999]), torch.tensor([CLASSES, 0, 3])


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w[f"{name}.bias"]


def norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    x = (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-6)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"] if f"{name}.weight" in w else x


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (z.reshape(len(z), -1, HEADS, DIM // HEADS) for z in (q, k, v))
    scores = torch.einsum("nthc,nshc->nhts", q, k) / math.sqrt(DIM // HEADS)
    return torch.einsum("nhts,nshc->nthc", torch.softmax(scores, -1), v).reshape(len(q), -1, DIM)


def self_attention(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    q, k, v = linear(w, f"{name}.qkv", x).split(DIM, -1)
    return linear(w, f"{name}.proj", attention(q, k, v))


def cross_attention(w: dict[str, Tensor], name: str, x: Tensor, c: Tensor) -> Tensor:
    k, v = linear(w, f"{name}.kv", c).split(DIM, -1)
    return linear(w, f"{name}.proj", attention(linear(w, f"{name}.q", x), k, v))


def mlp(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    h = linear(w, f"{name}.fc1", x)
    h = 0.5 * h * (1 + torch.tanh((2 / math.pi) ** 0.5 * (h + 0.044715 * h**3)))
    return linear(w, f"{name}.fc2", h)


# With one map for the vectors of all blocks; told labels, PixArt's is adaLN-single.
SHARED = ("adaln-single", "pixart")


def six_vectors(design: str, w: dict[str, Tensor], block: str, c: Tensor) -> list[Tensor]:
    """shift, scale, gate of attention, then of the MLP, each (N, 1, D)."""
    if design in SHARED:
        vectors = linear(w, "condition.t_block.1", silu(c)) + w[f"{block}.scale_shift_table"].flatten()
    else:
        vectors = linear(w, f"{block}.adaLN_modulation.1", silu(c))
    parts = list(vectors[:, None].split(DIM, -1))
    if design == "adaln":
        one = torch.ones_like(parts[0])
        parts = [parts[0], parts[1], one, parts[2], parts[3], one]
    return parts


def reference(design: str, w: dict[str, Tensor], x: Tensor, features: Tensor, y: Tensor) -> Tensor:
    """The designs from the papers' texts, on a state dict; patches cut and joined one by one."""
    corners = [(i, j) for i in range(0, SIZE, PATCH) for j in range(0, SIZE, PATCH)]
    patches = torch.stack([x[:, :, i : i + PATCH, j : j + PATCH] for i, j in corners], 1)
    h = torch.einsum("ntcij,dcij->ntd", patches, w["x_embedder.proj.weight"]) + w["x_embedder.proj.bias"]
    h = h + w["pos_embed"]
    t = linear(w, "t_embedder.mlp.2", silu(linear(w, "t_embedder.mlp.0", features)))
    label = w["y_embedder.embedding_table.weight"][y]
    c, sequence = t + label, torch.stack([t, label], 1)
    if design == "in-context":
        h = torch.cat([h, sequence], 1)
    for i in range(DEPTH):
        b = f"blocks.{i}"
        if design in ("in-context", "cross-attention"):
            h = h + self_attention(w, f"{b}.attn", norm(w, f"{b}.norm1", h))
            if design == "cross-attention":
                h = h + cross_attention(w, f"{b}.cross_attn", h, sequence)
            h = h + mlp(w, f"{b}.mlp", norm(w, f"{b}.norm2", h))
        else:
            shift1, scale1, gate1, shift2, scale2, gate2 = six_vectors(design, w, b, c)
            h = h + gate1 * self_attention(w, f"{b}.attn", norm(w, "", h) * (1 + scale1) + shift1)
            h = h + gate2 * mlp(w, f"{b}.mlp", norm(w, "", h) * (1 + scale2) + shift2)
    h = norm(w, "final_layer.norm_final", h[:, : len(corners)])
    if design in SHARED:
        table = w["final_layer.scale_shift_table"]
        h = h * (1 + table[1] + c[:, None]) + table[0] + c[:, None]
    elif design.startswith("adaln"):
        shift, scale = linear(w, "final_layer.adaLN_modulation.1", silu(c))[:, None].split(DIM, -1)
        h = h * (1 + scale) + shift
    h = linear(w, "final_layer.linear", h)
    out = x.new_zeros(len(x), h.shape[-1] // PATCH**2, SIZE, SIZE)
    for token, (i, j) in enumerate(corners):
        # A token holds its pixels row by row, and the channels of a pixel side by side.
        out[:, :, i : i + PATCH, j : j + PATCH] = h[:, token].reshape(len(x), PATCH, PATCH, -1).permute(0, 3, 1, 2)
    return out


@pytest.mark.parametrize("learn_sigma", [True, False])
@pytest.mark.parametrize("design", BLOCKS)
def test_forward_equals_the_independent_one(design: str, learn_sigma: bool) -> None:
    model = small(design, learn_sigma=learn_sigma)
    x, t, y = inputs()
    expected = reference(design, dict(model.state_dict()), x, timestep_features(t, FREQUENCIES).double(), y)
    assert expected.std() > 0.1
    assert torch.allclose(model(x, t, y), expected, rtol=0, atol=1e-9)


def test_forward_with_features_in_float64_is_close() -> None:
    """Cosines and sines of t / 10000^(i / half) computed here, where ours are float32."""
    model = small()
    x, t, y = inputs()
    angles = t[:, None].double() / 10_000 ** (torch.arange(FREQUENCIES // 2, dtype=torch.float64) / (FREQUENCIES // 2))
    features = torch.cat([torch.cos(angles), torch.sin(angles)], 1)
    expected = reference("adaln-zero", dict(model.state_dict()), x, features, y)
    assert torch.allclose(model(x, t, y), expected, rtol=0, atol=1e-2)
    assert torch.allclose(model(x, t, y)[0], expected[0], rtol=0, atol=1e-9)  # t = 0: exact features


# Initialisation


def test_initialisation() -> None:
    """Sec. 3.2: what is zero, and the spread of what is not."""
    sizes: dict[str, Any] = {"depth": 1, "hidden_size": 128, "num_heads": 2, "patch_size": 2, "input_size": 8}
    model = create_model("DiT", **sizes, label_init_std=0.5)
    state = model.state_dict()
    zero = {name for name, tensor in state.items() if not tensor.any()}
    biases = {name for name in state if name.endswith("bias")}
    assert zero == biases | {
        "blocks.0.adaLN_modulation.1.weight",
        "final_layer.adaLN_modulation.1.weight",
        "final_layer.linear.weight",
    }
    assert state["y_embedder.embedding_table.weight"].std().item() == pytest.approx(0.5, rel=0.02)
    for name in ("t_embedder.mlp.0.weight", "t_embedder.mlp.2.weight"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.03)
    for name in ("blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight", "x_embedder.proj.weight"):
        flat = state[name].flatten(1)
        bound = math.sqrt(6 / sum(flat.shape))  # Xavier: uniform in +- the bound
        assert flat.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert flat.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_initial_spread_of_the_timestep_can_be_chosen() -> None:
    """Of its embedder, and of adaLN-single's shared map, which has no zeros to start from."""
    sizes: dict[str, Any] = {"depth": 1, "hidden_size": 128, "num_heads": 2, "patch_size": 2, "input_size": 8}
    for std in (0.02, 0.1):
        state = create_model("DiT", block="adaln-single", **sizes, timestep_init_std=std).state_dict()
        for name in ("t_embedder.mlp.0", "t_embedder.mlp.2", "condition.t_block.1"):
            assert state[f"{name}.weight"].std().item() == pytest.approx(std, rel=0.03)
            assert not state[f"{name}.bias"].any()
        assert state["y_embedder.embedding_table.weight"].std().item() == pytest.approx(0.02, rel=0.03)
        table = state["blocks.0.scale_shift_table"]
        assert table.std().item() == pytest.approx(128**-0.5, rel=0.1)


# Classifier-free guidance


GUIDED = 4  # latent channels
SCALES = st.floats(-3, 10)


def guidance_inputs(model: DiT) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, t, y and the conditional and unconditional predictions."""
    x, t, y = inputs(GUIDED)
    y = torch.tensor([4, 0, 3])
    return x, t, y, model(x, t, y), model(x, t, torch.full_like(y, CLASSES))


@pytest.fixture(scope="module")
def guided_model() -> DiT:
    torch.manual_seed(1)
    return small(channels=GUIDED)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scale=SCALES, channels=st.sampled_from([1, 2, 3, 4, None]))
def test_guidance_by_its_formula(guided_model: DiT, scale: float, channels: int | None) -> None:
    """The official doubled form: null + scale (class - null) on the guided noise channels of both halves, the class
    prediction on the others of the first, the null label's on those of the second.
    """
    x, t, y, conditional, unconditional = guidance_inputs(guided_model)
    garbage = torch.full_like(x, math.nan)  # the second half of x is not read
    out = doubled(guided_model, torch.cat([x, garbage]), t, y, scale, channels)
    count = GUIDED if channels is None else channels
    guided = (1 - scale) * unconditional[:, :count] + scale * conditional[:, :count]
    assert out.shape == (6, 2 * GUIDED, SIZE, SIZE)
    assert torch.allclose(out[:3, :count], guided, rtol=0, atol=1e-10)
    assert torch.allclose(out[3:, :count], guided, rtol=0, atol=1e-10)
    assert torch.allclose(out[:3, count:], conditional[:, count:], rtol=0, atol=1e-10)
    assert torch.allclose(out[3:, count:], unconditional[:, count:], rtol=0, atol=1e-10)


def doubled(model: DiT, x: Tensor, t: Tensor, y: Tensor, scale: float, *channels: int | None) -> Tensor:
    """Guidance of the batch [x; x] with labels [y; null]."""
    null = torch.full_like(y, CLASSES)
    return model.forward_with_cfg(x, torch.cat([t, t]), torch.cat([y, null]), scale, *channels)


def test_scale_one_is_the_conditional_prediction(guided_model: DiT) -> None:
    x, t, y, conditional, unconditional = guidance_inputs(guided_model)
    assert (conditional - unconditional).abs().min(dim=1).values.max() > 0.01
    for channels in (3, None):
        out = doubled(guided_model, torch.cat([x, x]), t, y, 1.0, channels)
        assert torch.allclose(out[:3], conditional, rtol=0, atol=1e-12)


def test_three_channels_are_guided_unless_asked(guided_model: DiT) -> None:
    """The paper's code guides 3 of its 4 latent channels."""
    x, t, y, conditional, _ = guidance_inputs(guided_model)
    default = doubled(guided_model, torch.cat([x, x]), t, y, 4.0)[:3]
    every = doubled(guided_model, torch.cat([x, x]), t, y, 4.0, None)[:3]
    assert torch.equal(default[:, :3], every[:, :3])
    assert torch.allclose(default[:, 3], conditional[:, 3], rtol=0, atol=1e-12)
    assert (every[:, 3] - conditional[:, 3]).abs().max() > 0.01
    assert torch.equal(default[:, 4:], every[:, 4:])


def test_guidance_without_a_learned_variance() -> None:
    model = small(channels=GUIDED, learn_sigma=False)
    x, t, y, conditional, unconditional = guidance_inputs(model)
    out = doubled(model, torch.cat([x, x]), t, y, 2.5, None)
    guided = unconditional + 2.5 * (conditional - unconditional)
    assert torch.allclose(out, torch.cat([guided, guided]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("channels", [0, -1, 5])
def test_guiding_channels_that_are_not_there_is_an_error(guided_model: DiT, channels: int) -> None:
    x, t, y = inputs(GUIDED)
    with pytest.raises(ValueError, match=rf"channels: {channels} .* 1 \.\. 4"):
        guided_model.forward_with_cfg(x[:2], t[:2], y[:2], 2.0, channels)


def test_an_odd_doubled_batch_is_an_error(guided_model: DiT) -> None:
    x, t, y = inputs(GUIDED)
    with pytest.raises(ValueError, match=r"batch of 3 "):
        guided_model.forward_with_cfg(x, t, y, 2.0)
