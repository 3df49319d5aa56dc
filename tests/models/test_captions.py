"""Captions in every block design: what pads them is not seen, a dropped one is the null caption, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import BLOCKS, create_model, designs, load_pretrained
from models.blocks import AdaLNBlock, AdaLNFinalLayer
from models.conditions import Captions, drop, joined, rows
from models.designs import BlockDesign
from models.pixart.captions import CaptionEmbedder
from models.registry import configure
from models.transformer import DiT

S, CHANNELS, DIM, CLASSES = 5, 6, 24, 4
SIZES: dict[str, Any] = {
    "depth": 2, "hidden_size": DIM, "num_heads": 2, "patch_size": 2, "input_size": 8, "in_channels": 3,
    "num_classes": CLASSES, "frequency_embedding_size": 10,
}  # fmt: skip
CAPTIONS: dict[str, Any] = {"caption_tokens": S, "caption_channels": CHANNELS}
# Tokens of each caption: all, some, one, and one whose tokens are not the first.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 1]], dtype=torch.bool)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(block: str, randomised: bool = True, **options: Any) -> DiT:
    model = create_model("DiT", block=block, **{**SIZES, **CAPTIONS, **options}).double()
    if randomised:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.3)
    return model


def inputs() -> tuple[Tensor, Tensor, Captions]:
    embeddings = torch.randn(4, S, CHANNELS, dtype=torch.float64)
    none = torch.zeros(4, dtype=torch.bool)
    return (
        torch.randn(4, 3, 8, 8, dtype=torch.float64),
        torch.tensor([0, 421, 7, 999]),
        Captions(embeddings, MASK, none),
    )


@pytest.mark.parametrize("padding", [1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("block", BLOCKS)
def test_what_pads_a_caption_changes_nothing_bit_for_bit(block: str, padding: float) -> None:
    model, (x, t, captions) = small(block), inputs()
    padded = captions._replace(embeddings=torch.where(MASK[..., None], captions.embeddings, padding))
    out = model(x, t, captions)
    assert torch.equal(model(x, t, padded), out)
    out.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("block", BLOCKS)
def test_every_token_that_is_no_padding_counts(block: str) -> None:
    model, (x, t, captions) = small(block), inputs()
    out = model(x, t, captions)
    for token in range(S):
        embeddings = captions.embeddings.clone()
        embeddings[:, token] += 1
        changed = (model(x, t, captions._replace(embeddings=embeddings)) - out).abs().amax((1, 2, 3)) > 1e-6
        assert changed.tolist() == MASK[:, token].tolist()


@pytest.mark.parametrize("block", BLOCKS)
def test_a_dropped_caption_is_the_null_caption_whatever_it_said(block: str) -> None:
    """So is one that has no token at all."""
    model, (x, t, captions) = small(block), inputs()
    assert isinstance(model.y_embedder, CaptionEmbedder)
    null = model.y_embedder.null_caption.detach().expand(4, -1, -1)
    whole, none = torch.ones(4, S, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    expected = model(x, t, Captions(null, whole, none))
    assert torch.equal(model(x, t, drop(captions, ~none, CLASSES)), expected)
    assert torch.equal(model(x, t, captions._replace(mask=~whole)), expected)
    some = torch.tensor([False, True, False, True])
    out, told = model(x, t, drop(captions, some, CLASSES)), model(x, t, captions)
    assert torch.equal(out[some], expected[some])
    assert torch.equal(out[~some], told[~some])
    assert (told - expected).abs().amax() > 1e-3


@pytest.mark.parametrize("block", BLOCKS)
def test_images_of_a_batch_do_not_see_each_other_and_gradients_reach_every_weight(block: str) -> None:
    model, (x, t, captions) = small(block), inputs()
    captions = drop(captions, torch.tensor([False, False, False, True]), CLASSES)
    together = model(x, t, captions)
    for i in range(4):
        one = slice(i, i + 1)
        assert torch.allclose(together[one], model(x[one], t[one], rows(captions, one)), rtol=0, atol=1e-12)
    (together * torch.randn_like(together)).sum().backward()
    for name, parameter in model.named_parameters():
        assert name == "pos_embed" or (parameter.grad is not None and parameter.grad.any()), name


@pytest.mark.parametrize("block", BLOCKS)
def test_guidance_is_of_captions_and_the_null_caption(block: str) -> None:
    model, (x, t, captions) = small(block), inputs()
    null = drop(captions, torch.ones(4, dtype=torch.bool), CLASSES)
    out = model.forward_with_cfg(x.repeat(2, 1, 1, 1), t.repeat(2), joined([captions, null]), 2.5, None)
    told, untold = model(x, t, captions)[:, :3], model(x, t, null)[:, :3]
    assert torch.allclose(out[:4, :3], untold + 2.5 * (told - untold), rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", ["adaln", "adaln-zero", "adaln-single"])
def test_adaptive_norms_get_the_mean_of_the_embedded_tokens_for_the_label(block: str) -> None:
    model, (x, t, captions) = small(block), inputs()
    embedder = model.y_embedder
    assert isinstance(embedder, CaptionEmbedder)
    means = [embedder.mlp(captions.embeddings[i, MASK[i]]).mean(0) for i in range(4)]
    labels = create_model("DiT", block=block, **SIZES).double()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("y_embedder.")}
    table = torch.cat([torch.stack(means), torch.zeros(1, DIM, dtype=torch.float64)])
    labels.load_state_dict({**state, "y_embedder.embedding_table.weight": table})
    assert torch.allclose(model(x, t, captions), labels(x, t, torch.arange(4)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", ["cross-attention", "in-context"])
def test_sequences_get_every_token_of_a_caption_for_the_label(block: str) -> None:
    """A caption of one token, embedded as a label is, is that label."""
    model, (x, t, captions) = small(block, caption_tokens=1), inputs()
    assert isinstance(model.y_embedder, CaptionEmbedder)
    captions = captions._replace(embeddings=captions.embeddings[:, :1], mask=MASK[:, :1] | True)
    labels = create_model("DiT", block=block, **SIZES).double()
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("y_embedder.")}
    table = torch.cat([model.y_embedder.mlp(captions.embeddings)[:, 0], torch.zeros(1, DIM, dtype=torch.float64)])
    labels.load_state_dict({**state, "y_embedder.embedding_table.weight": table})
    assert torch.allclose(model(x, t, captions), labels(x, t, torch.arange(4)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("options", "std"), [({}, 0.02), ({"timestep_init_std": 0.15}, 0.15)])
def test_initial_spread_of_the_embedder(options: dict[str, Any], std: float) -> None:
    """Its maps as those of timesteps, N(0, 0.02); the null caption N(0, 1) / sqrt(channels), as PixArt's."""
    sizes = {**SIZES, "hidden_size": 256}
    model = create_model("DiT", block="pixart", **sizes, caption_tokens=40, caption_channels=512, **options)
    state = model.state_dict()
    for layer in ("fc1", "fc2"):
        assert state[f"y_embedder.mlp.{layer}.weight"].std().item() == pytest.approx(std, rel=0.02)
        assert not state[f"y_embedder.mlp.{layer}.bias"].any()
    assert state["y_embedder.null_caption"].std().item() == pytest.approx(512**-0.5, rel=0.02)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_null_caption_is_trained_and_among_the_weights_that_are_stored(block: str, tmp_path: Any) -> None:
    model, (x, t, captions) = small(block), inputs()
    assert dict(model.named_parameters())["y_embedder.null_caption"].requires_grad
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    again = small(block)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    assert torch.equal(again(x, t, captions), model(x, t, captions))


# Designs of one's own, as a recipe would name them in this very file


class Summed(nn.Module):
    """Knows nothing of captions: y is (N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert y.shape == t.shape
        return t + y, t + y


class Plain(AdaLNBlock):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__(dim, num_heads, mlp_ratio)


POOLED = BlockDesign(Summed, Plain, AdaLNFinalLayer)
LABELS_ONLY = replace(designs.ADALN, captions=None)


def test_a_design_that_knows_nothing_of_captions_gets_their_mean() -> None:
    own, builtin, (x, t, captions) = small("test_captions:POOLED"), small("adaln"), inputs()
    own.load_state_dict(builtin.state_dict(), strict=True)
    assert torch.equal(own(x, t, captions), builtin(x, t, captions))


# What is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"caption_tokens": 3}, ["caption_tokens: 3", "caption_channels"]),
        ({"caption_channels": 3}, ["caption_channels: 3", "caption_tokens"]),
        ({"caption_tokens": -1, "caption_channels": 3}, ["caption_tokens: -1", "0 or greater"]),
        ({"caption_tokens": 2.5, "caption_channels": 3}, ["caption_tokens: 2.5", "whole"]),
        ({**CAPTIONS, "label_init_std": 1.0}, ["label_init_std: 1.0", "captions", "accepted: null"]),
        ({**CAPTIONS, "class_tokens": 2}, ["class_tokens: 2", "captions", "accepted: 0"]),
        ({**CAPTIONS, "block": "test_captions:LABELS_ONLY"}, ["caption_tokens: 5", "LABELS_ONLY", "accepted: 0"]),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        configure("DiT", **{**SIZES, **options})
    message = str(caught.value)
    assert message.startswith(named[0])
    assert [word for word in named if word not in message] + message.splitlines()[1:] == []


def test_another_condition_than_the_networks_is_refused() -> None:
    captioned, labelled, (x, t, captions) = small("pixart"), create_model("DiT", **SIZES).double(), inputs()
    with pytest.raises(ValueError, match=r"^labels: .* captions"):
        captioned(x, t, torch.arange(4))
    with pytest.raises(ValueError, match=r"^captions: .* labels"):
        labelled(x, t, captions)
    for other in (
        captions._replace(embeddings=captions.embeddings[..., :3]),
        captions._replace(mask=MASK[:, :2]),
        captions._replace(dropped=captions.dropped[:2]),
        Captions(captions.embeddings[:, :4], MASK[:, :4], captions.dropped),
    ):
        with pytest.raises(ValueError, match=r"captions: \(4, .*\(\d, 5, 6\)"):
            captioned(x, t, other)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_file_of_weights_with_captions_is_refused_in_one_line(block: str, tmp_path: Any) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(small(block).float().state_dict(), path)
    with pytest.raises(ValueError, match=r"null_caption: .*option caption_tokens"):
        load_pretrained(path, num_heads=2)
