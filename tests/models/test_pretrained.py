"""Weights to and from diffusers' `DiTTransformer2DModel`, whose forward pass is an independent one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn

from models import BLOCKS, create_model
from models.diffusers_weights import from_diffusers, state_dict_from_diffusers, state_dict_to_diffusers, to_diffusers
from models.transformer import DiT


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)


def small(block: str = "adaln-zero", learn_sigma: bool = True, **sizes: Any) -> DiT:
    """Three blocks, random weights, 16 tokens."""
    options = {"depth": 3, "hidden_size": 32, "num_heads": 4, "patch_size": 2, "input_size": 8} | sizes
    model = create_model("DiT", block=block, num_classes=7, learn_sigma=learn_sigma, **options)
    randomise(model)
    return model.eval()


def theirs(shared: bool = True, **config: Any) -> DiTTransformer2DModel:
    """A diffusers model of random weights, by default with one embedder common to all blocks."""
    options: dict[str, Any] = {
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 3,
        "sample_size": 8,
        "patch_size": 2,
        "num_embeds_ada_norm": 7,
        "norm_eps": 1e-6,
    }
    model = DiTTransformer2DModel(**(options | config)).eval()
    randomise(model)
    if shared:
        state = model.state_dict()
        for name, tensor in state.items():
            _, _, embedder = name.partition(".norm1.emb.")
            if embedder:
                tensor.copy_(state[f"transformer_blocks.0.norm1.emb.{embedder}"])
    return model


def batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 250, 731, 999]), torch.tensor([0, 7, 3, 6, 1])


@torch.no_grad()
def outputs_agree(ours: DiT, transformer: DiTTransformer2DModel) -> None:
    x, t, y = batch()
    expected = transformer(x, timestep=t, class_labels=y, return_dict=False)[0]
    assert expected.std() > 0.1
    assert torch.allclose(ours(x, t, y), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_diffusers_computes_the_same_outputs(learn_sigma: bool) -> None:
    model = small(learn_sigma=learn_sigma)
    outputs_agree(model, to_diffusers(model))


@pytest.mark.parametrize("sizes", [{"depth": 1, "hidden_size": 48, "num_heads": 3}, {"patch_size": 4}])
def test_diffusers_computes_the_same_outputs_at_other_sizes(sizes: dict[str, Any]) -> None:
    model = small(**sizes)
    outputs_agree(model, to_diffusers(model))


def test_a_model_made_by_diffusers_computes_the_same_here() -> None:
    """With the official spacing of the timestep frequencies, which diffusers' configuration cannot express."""
    transformer = theirs()
    ours = from_diffusers(transformer)
    for module in transformer.modules():
        if hasattr(module, "time_proj"):
            setattr(module.time_proj, "downscale_freq_shift", 0)  # noqa: B010 - the stub types it a tensor
    outputs_agree(ours, transformer)


@pytest.mark.parametrize("out_channels", [4, 8])
def test_sizes_come_from_the_configuration(out_channels: int) -> None:
    arch = from_diffusers(theirs(out_channels=out_channels)).arch
    assert (arch.depth, arch.hidden_size, arch.num_heads, arch.patch_size) == (3, 32, 4, 2)
    assert (arch.input_size, arch.in_channels, arch.num_classes, arch.block) == (8, 4, 7, "adaln-zero")
    assert arch.learn_sigma == (out_channels == 8)


def test_round_trip_through_diffusers_keeps_every_tensor() -> None:
    model = small()
    back = from_diffusers(to_diffusers(model))
    assert back.arch == model.arch
    state = model.state_dict()
    returned = back.state_dict()
    assert list(returned) == list(state)
    assert [name for name in state if not torch.equal(state[name], returned[name])] == []


def test_converted_models_share_no_memory_with_their_source() -> None:
    model = small()
    transformer = to_diffusers(model)
    back = from_diffusers(transformer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    randomise(transformer)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(before[name], tensor) for name, tensor in back.state_dict().items())


def test_the_position_table_is_a_copy() -> None:
    model = small()
    transformer = to_diffusers(model)
    table = transformer.pos_embed.pos_embed
    assert isinstance(table, Tensor)
    before = model.pos_embed.clone()
    table.zero_()
    assert torch.equal(model.pos_embed, before)


def test_names_are_diffusers_names() -> None:
    """All of them and no other, apart from the table that diffusers computes."""
    renamed = state_dict_to_diffusers(small().state_dict(), 3)
    expected = {name: tensor.shape for name, tensor in theirs().state_dict().items()}
    assert {name: tensor.shape for name, tensor in renamed.items() if name != "pos_embed.pos_embed"} == expected


def test_state_dict_round_trip() -> None:
    state = small().state_dict()
    back = state_dict_from_diffusers(state_dict_to_diffusers(state, 3), 3)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "name",
    [
        "timestep_embedder.linear_1.weight",
        "timestep_embedder.linear_1.bias",
        "timestep_embedder.linear_2.weight",
        "timestep_embedder.linear_2.bias",
        "class_embedder.embedding_table.weight",
    ],
)
@pytest.mark.parametrize("block", [1, 2])
def test_a_block_with_an_embedder_of_its_own_is_an_error(name: str, block: int) -> None:
    """The layout here has one embedder: one changed number must not be dropped."""
    transformer = to_diffusers(small())
    key = f"transformer_blocks.{block}.norm1.emb.{name}"
    transformer.state_dict()[key].flatten()[-1] += 1e-3
    with pytest.raises(ValueError, match=rf"{key} differs"):
        from_diffusers(transformer)


def test_independent_embedders_are_an_error() -> None:
    with pytest.raises(ValueError, match="one shared embedder expected"):
        from_diffusers(theirs(shared=False))


def test_a_missing_tensor_is_an_error_that_names_it() -> None:
    renamed = state_dict_to_diffusers(small().state_dict(), 3)
    for missing in list(renamed):
        with pytest.raises(ValueError, match=missing):
            state_dict_from_diffusers({k: v for k, v in renamed.items() if k != missing}, 3)


def test_a_depth_greater_than_the_models_is_an_error() -> None:
    renamed = state_dict_to_diffusers(small().state_dict(), 3)
    with pytest.raises(ValueError, match=r"depth 4.*transformer_blocks\.3\."):
        state_dict_from_diffusers(renamed, 4)


def test_a_depth_smaller_than_the_models_is_an_error() -> None:
    renamed = state_dict_to_diffusers(small().state_dict(), 3)
    with pytest.raises(ValueError, match=r"transformer_blocks\.2\."):
        state_dict_from_diffusers(renamed, 2)


def test_norm_weights_that_this_layout_does_not_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="norm3"):
        from_diffusers(theirs(norm_elementwise_affine=True))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b != "adaln-zero"])
def test_designs_that_diffusers_does_not_have_are_an_error(block: str) -> None:
    with pytest.raises(ValueError, match="adaln-zero"):
        to_diffusers(small(block))


@pytest.mark.parametrize("sizes", [{"mlp_ratio": 2.0}, {"frequency_embedding_size": 128}])
def test_sizes_that_diffusers_fixes_are_an_error(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(sizes))):
        to_diffusers(small(**sizes))
