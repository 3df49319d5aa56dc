"""Transformers of clips against formulas written out here, against the DiT, and against themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import create_model
from models.conditions import Captions
from models.registry import configure
from models.video.blocks import SingleVideoBlock, VideoBlock, ZeroVideoBlock
from models.video.patches import PatchEmbed3D, padded, unpatchify

SIZES: dict[str, Any] = {
    "depth": 2, "hidden_size": 16, "num_heads": 2, "patch_frames": 1, "patch_size": 2, "frames": 3, "input_size": 4,
    "in_channels": 2, "num_classes": 3,
}  # fmt: skip
ATTENTION = ("full", "sequential", "parallel")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def randomised(network: Any) -> Any:
    """In float64, with no weight at its start, where much is zero."""
    with torch.no_grad():
        for parameter in network.double().parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return network


def small(**options: Any) -> Any:
    return randomised(create_model("VideoDiT", **{**SIZES, **options}))


def inputs(network: Any) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(2, *network.arch.input_shape, dtype=torch.float64)
    return x, torch.tensor([7, 900]), torch.tensor([1, SIZES["num_classes"]])


def captions(network: Any, tokens: int = 3) -> Captions:
    embeddings = torch.randn(2, *network.arch.caption_shape, dtype=torch.float64)
    mask = torch.arange(embeddings.shape[1]).expand(2, -1) < tokens
    return Captions(embeddings, mask, torch.zeros(2, dtype=torch.bool))


# Patches


@pytest.mark.parametrize(("patch", "sizes"), [((2, 4, 4), (3, 9, 6)), ((1, 2, 2), (3, 4, 6)), ((2, 1, 3), (2, 5, 3))])
def test_patches_are_a_convolution_of_the_padded_clip(patch: Any, sizes: Any) -> None:
    embed = PatchEmbed3D(patch, in_chans=2, embed_dim=5, norm_layer=nn.LayerNorm, flatten=False).double()
    plain = PatchEmbed3D(patch, in_chans=2, embed_dim=5).double()
    plain.proj.load_state_dict(embed.proj.state_dict())
    x = torch.randn(2, 2, *sizes, dtype=torch.float64)
    whole = torch.zeros(
        2, 2, *(math.ceil(size / side) * side for size, side in zip(sizes, patch, strict=True))
    ).double()
    whole[:, :, : sizes[0], : sizes[1], : sizes[2]] = x
    expected = embed.proj(whole)
    torch.testing.assert_close(plain(x), expected.flatten(2).transpose(1, 2))
    normed = nn.functional.layer_norm(expected.movedim(1, -1), (5,)).movedim(-1, 1)
    torch.testing.assert_close(embed(x), normed)


def test_patches_of_two_frames_and_four_pixels_have_96_channels_by_default() -> None:
    embed = PatchEmbed3D()
    assert embed.proj.weight.shape == (96, 3, 2, 4, 4)
    assert embed.norm is None
    assert embed(torch.zeros(1, 3, 4, 8, 12)).shape == (1, 2 * 2 * 3, 96)


@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 4, 4), (3, 2, 5)])
@pytest.mark.parametrize("sizes", [(1, 2, 5), (4, 4, 10), (5, 7, 11)])
def test_padding_then_cropping_is_the_identity(patch: Any, sizes: Any) -> None:
    x = torch.randn(2, 3, *sizes)
    whole = padded(x, patch)
    assert all(length % side == 0 for length, side in zip(whole.shape[2:], patch, strict=True))
    kernels = math.prod(patch)
    cut = PatchEmbed3D(patch, 3, 3 * kernels)
    order = (
        torch.arange(3 * kernels).reshape(3, kernels).T.flatten()
    )  # by place in the patch, as the last layer has them
    with torch.no_grad():  # every number of a patch is a feature
        cut.proj.weight.copy_(torch.eye(3 * kernels).reshape(-1, 3, *patch)[order])
        torch.nn.init.zeros_(cut.get_parameter("proj.bias"))
    assert torch.equal(unpatchify(cut(x), sizes, patch), x)


def test_a_clip_that_fills_no_whole_patches_keeps_its_sizes() -> None:
    network = small(frames=3, patch_frames=2, input_size=5, learn_sigma=True)
    assert network.arch.num_tokens == 2 * 3 * 3
    assert network(*inputs(network)).shape == (2, 4, 3, 5, 5)


# Against the DiT


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("block", ["adaln-zero", "adaln-single"])
def test_a_clip_of_one_frame_is_the_dits_image(attention: str, block: str) -> None:
    """With the same weights, whatever attention is: one frame has no other to attend to."""
    video = small(frames=1, attention=attention, block=block, no_temporal_pos_emb=True)
    shape = {k: v for k, v in SIZES.items() if k not in ("frames", "patch_frames")}
    image = create_model("DiT", block=block, **shape).double()
    weights = video.state_dict()
    weights["x_embedder.proj.weight"] = weights["x_embedder.proj.weight"].squeeze(2)
    image.load_state_dict(weights)
    x, t, labels = inputs(video)
    torch.testing.assert_close(video(x, t, labels).squeeze(2), image(x.squeeze(2), t, labels).float())


@pytest.mark.parametrize("conditioning", ["label", "captions"])
@pytest.mark.parametrize("attention", ["sequential", "parallel"])
def test_factorised_attention_is_full_attention_where_there_is_one_frame(attention: str, conditioning: str) -> None:
    """One frame of patches, that is, of two frames here."""
    options = {"frames": 2, "patch_frames": 2, "conditioning": conditioning, "caption_tokens": None}
    if conditioning == "captions":
        options |= {"caption_tokens": 4, "caption_channels": 6}
    full, other = small(**options), small(**options, attention=attention)
    other.load_state_dict(full.state_dict())
    x, t, labels = inputs(full)
    condition = labels if conditioning == "label" else captions(full)
    torch.testing.assert_close(other(x, t, condition), full(x, t, condition))


# Attention


FRAMES, PLACES, DIM = 3, 4, 8


def block_of(attention: str, kind: type[VideoBlock] = ZeroVideoBlock) -> Any:
    return randomised(kind(DIM, 2, 2.0, FRAMES, attention, attends_to_time=attention != "full"))


@pytest.mark.parametrize("attention", ["sequential", "parallel"])
def test_factorised_attention_frame_by_frame_and_place_by_place(attention: str) -> None:
    block = block_of(attention, SingleVideoBlock)
    x, c = torch.randn(2, FRAMES, PLACES, DIM).double(), torch.randn(2, 6 * DIM).double()
    vectors = (c.reshape(2, 6, DIM) + block.scale_shift_table)[:, :, None, None]
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = vectors.unbind(1)

    def normed(x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (DIM,), eps=1e-6)

    def within(x: Tensor) -> Tensor:
        return torch.stack([block.attn(x[:, frame]) for frame in range(FRAMES)], dim=1)

    def across(x: Tensor) -> Tensor:
        return torch.stack([block.attn_temporal(x[:, :, place]) for place in range(PLACES)], dim=2)

    found = block(x.flatten(1, 2), c)
    modulated = normed(x) * (1 + scale) + shift
    if attention == "parallel":
        x = x + gate * (within(modulated) + across(modulated))
    else:
        x = x + gate * within(modulated)
        x = x + gate * across(normed(x) * (1 + scale) + shift)
    x = x + gate_mlp * block.mlp(normed(x) * (1 + scale_mlp) + shift_mlp)
    torch.testing.assert_close(found.unflatten(1, (FRAMES, PLACES)), x)


@pytest.mark.parametrize(("attention", "reached"), [("full", 12), ("sequential", 12), ("parallel", 6)])
def test_which_tokens_of_a_clip_a_token_reaches_in_one_block(attention: str, reached: int) -> None:
    """In parallel, those of its frame and those at its place: 4 + 3 - 1."""
    block = block_of(attention)
    x, c = torch.randn(1, FRAMES * PLACES, DIM).double(), torch.randn(1, DIM).double()
    other = x.clone()
    other[:, PLACES + 1] += torch.randn(DIM)  # frame 1, place 1
    changed = (block(x, c) != block(other, c)).any(dim=2)[0].unflatten(0, (FRAMES, PLACES))
    assert changed.sum() == reached
    if attention == "parallel":
        assert changed[1].all()
        assert changed[:, 1].all()


# Positions


def test_tables_of_space_at_every_frame_and_of_time_at_every_place() -> None:
    network: Any = create_model("VideoDiT", **SIZES)
    assert torch.equal(network.pos_embed, create_model("DiT", **{**_image_sizes()}).pos_embed)
    half = SIZES["hidden_size"] // 2
    for frame in range(SIZES["frames"]):
        angles = [frame * 10_000 ** (-i / half) for i in range(half)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        assert network.pos_embed_temporal[0, frame].tolist() == pytest.approx(expected, abs=1e-6)
    tokens = network._with_positions(torch.zeros(1, 3 * 4, 16))
    table = network.pos_embed[:, None] + network.pos_embed_temporal[:, :, None]
    assert torch.equal(tokens, table.flatten(1, 2))


def _image_sizes() -> dict[str, Any]:
    return {key: value for key, value in SIZES.items() if key not in ("frames", "patch_frames")}


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("without", [True, False])
def test_only_the_table_of_time_tells_frames_apart(attention: str, without: bool) -> None:
    network = small(attention=attention, no_temporal_pos_emb=without)
    x, t, labels = inputs(network)
    order = [2, 0, 1]
    alike = torch.allclose(network(x[:, :, order], t, labels), network(x, t, labels)[:, :, order], atol=1e-5)
    assert alike is without
    assert ("pos_embed_temporal" in network.state_dict()) is not without


# Conditions


@pytest.mark.parametrize("block", ["adaln-zero", "adaln-single"])
def test_padded_tokens_of_a_caption_change_nothing(block: str) -> None:
    network = small(conditioning="captions", caption_tokens=4, caption_channels=6, block=block, attention="sequential")
    x, t, _ = inputs(network)
    given = captions(network, tokens=3)
    for other in (0.0, 1e6, math.nan):
        embeddings = torch.where(given.mask[..., None], given.embeddings, other)
        assert torch.equal(network(x, t, given._replace(embeddings=embeddings)), network(x, t, given))
    embeddings = given.embeddings.clone()
    embeddings[:, 1] += 1
    assert not torch.equal(network(x, t, given._replace(embeddings=embeddings)), network(x, t, given))


@pytest.mark.parametrize("conditioning", ["pooled", "captions"])
def test_a_dropped_caption_is_the_null_caption(conditioning: str) -> None:
    options = {"caption_tokens": 4} if conditioning == "captions" else {}
    network = small(conditioning=conditioning, caption_channels=6, **options)
    x, t, _ = inputs(network)
    given = captions(network)
    everything = torch.ones_like(given.mask)
    null = Captions(network.y_embedder.null_caption.expand_as(given.embeddings), everything, given.dropped)
    dropped = given._replace(dropped=torch.tensor([True, True]))
    assert torch.equal(network(x, t, dropped), network(x, t, null))
    assert torch.equal(network(x, t, given._replace(mask=~everything)), network(x, t, null))  # there are no words
    assert not torch.equal(network(x, t, given), network(x, t, null))
    first = network(x, t, given._replace(dropped=torch.tensor([True, False])))
    torch.testing.assert_close(first[0], network(x, t, null)[0])
    torch.testing.assert_close(first[1], network(x, t, given)[1])


def test_the_null_caption_is_trained_and_of_the_scale_of_pixarts() -> None:
    network: Any = create_model("VideoDiT", **{**SIZES, "conditioning": "captions"})
    null = dict(network.named_parameters())["y_embedder.null_caption"]
    assert null.shape == (120, 4096)
    assert null.requires_grad
    assert null.std().item() == pytest.approx(4096**-0.5, rel=0.02)


def test_a_pooled_caption_is_one_token_of_512_features() -> None:
    assert configure("VideoDiT-XL/1x2x2", conditioning="pooled").caption_shape == (1, 512)
    assert configure("VideoDiT-XL/1x2x2").caption_shape is None


def test_other_conditions_and_clips_are_refused() -> None:
    by_label, by_caption = small(), small(conditioning="pooled")
    x, t, labels = inputs(by_label)
    words = captions(by_caption)
    with pytest.raises(ValueError, match="captions"):
        by_label(x, t, words)
    with pytest.raises(ValueError, match="labels"):
        by_caption(x, t, labels)
    with pytest.raises(ValueError, match="1, 500"):
        by_caption(x, t, words._replace(embeddings=words.embeddings[..., :500]))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 3\)"):
        by_label(x[..., :3], t, labels)


# Computing


def test_computes_in_its_weights_dtype_and_returns_float32() -> None:
    network = small().float()
    x, t, labels = inputs(network)
    single = network(x, t, labels)
    half = network.bfloat16()(x, t, labels)
    assert single.dtype == half.dtype == torch.float32
    assert not torch.equal(single, half)
    assert (half - single).norm() < 0.1 * single.norm()


def test_starts_as_zero_and_learns() -> None:
    network: Any = create_model("VideoDiT", **SIZES)
    x, t, labels = inputs(network)
    assert not network(x, t, labels).any()
    torch.manual_seed(0)
    stdit: Any = create_model("VideoDiT", **SIZES, attention="sequential", block="adaln-single")
    still = [block.attn_temporal.proj.weight for block in stdit.blocks]
    assert not any(weight.any() for weight in still)
    optimizer = torch.optim.Adam(stdit.parameters(), lr=1e-2)
    for _ in range(3):
        loss = (stdit(x, t, labels) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(weight.any() for weight in still)


def test_autocast_computes_in_bf16() -> None:
    for network in (
        small().float(),
        small(attention="parallel", conditioning="captions", block="adaln-single").float(),
    ):
        x, t, labels = inputs(network)
        condition = captions(network) if network.arch.caption_shape else labels
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(x.float(), t, condition)
        assert out.dtype == torch.float32
        assert 0 < (out - network(x.float(), t, condition)).norm() < 0.1 * out.norm()


# Tables


def test_networks_that_differ_are_told_apart_in_tables() -> None:
    """By what tables have columns for: family, sizes, patch, and block."""
    others: list[dict[str, Any]] = [
        {"attention": attention, "no_temporal_pos_emb": without, "block": block, **told}
        for attention in ATTENTION
        for without in (False, True)
        for block in ("adaln-zero", "adaln-single")
        for told in ({}, {"conditioning": "pooled"}, {"conditioning": "captions"})
    ]
    columns = [configure("VideoDiT", **{**SIZES, **other}).columns for other in others]
    keys = ("block", "patch_size", "hidden_size", "depth", "num_heads", "input_size")
    assert len({tuple(each[key] for key in keys) for each in columns}) == len(others)


# Bad input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"frames": 1, "patch_frames": 2}, "frames: 1 is shorter than patch_frames, 2"),
        ({"input_size": 2, "patch_size": 4}, "input_size: 2 is shorter than patch_size, 4"),
        ({"frames": 0}, "frames: 0"),
        ({"depth": -1}, "depth: -1"),
        ({"patch_size": 2.5}, "patch_size: 2.5"),
        ({"num_classes": True}, "num_classes: True"),
        ({"num_heads": 5}, "num_heads: 5"),
        ({"hidden_size": 18}, "hidden_size: 18"),
        ({"mlp_ratio": 0.0}, "mlp_ratio: 0.0"),
        ({"mlp_ratio": 0.01}, "mlp_ratio: 0.01"),
        ({"mlp_ratio": math.nan}, "mlp_ratio: nan"),
        ({"attention": "spatial"}, "attention: 'spatial'; accepted: full, sequential, parallel"),
        ({"block": "in-context"}, "block: 'in-context'; accepted: adaln-zero, adaln-single"),
        ({"conditioning": "text"}, "conditioning: 'text'; accepted: label, pooled, captions"),
        ({"caption_channels": 512}, "caption_channels: 512, but conditioning is label"),
        ({"conditioning": "pooled", "caption_tokens": 7}, "caption_tokens: 7"),
        ({"learn_sigma": 2}, "learn_sigma: 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        configure("VideoDiT", **{**SIZES, **options})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_family_without_sizes_says_which_are_missing() -> None:
    with pytest.raises(ValueError, match="depth, hidden_size, num_heads, patch_frames, patch_size"):
        configure("VideoDiT")
    with pytest.raises(ValueError, match="patch_size"):
        PatchEmbed3D((0, 2, 2))
