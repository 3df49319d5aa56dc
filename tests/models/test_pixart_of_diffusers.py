"""PixArt beside diffusers' own network of it: the same weights predict the same."""

from __future__ import annotations

import re

import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor

from models import create_model
from models.conditions import Captions

DEPTH, DIM, HEADS, GRID, TOKENS, CHANNELS = 2, 24, 2, 4, 3, 7
# What our names begin with -> what theirs do; the maps of queries, keys and values are apart there.
OF_DIFFUSERS = {
    r"x_embedder\.proj": "pos_embed.proj",
    r"t_embedder\.mlp\.0": "adaln_single.emb.timestep_embedder.linear_1",
    r"t_embedder\.mlp\.2": "adaln_single.emb.timestep_embedder.linear_2",
    r"condition\.t_block\.1": "adaln_single.linear",
    r"y_embedder\.mlp\.fc": "caption_projection.linear_",
    r"blocks\.(\d+)\.attn\.proj": r"transformer_blocks.\1.attn1.to_out.0",
    r"blocks\.(\d+)\.cross_attn\.proj": r"transformer_blocks.\1.attn2.to_out.0",
    r"blocks\.(\d+)\.cross_attn\.q": r"transformer_blocks.\1.attn2.to_q",
    r"blocks\.(\d+)\.mlp\.fc1": r"transformer_blocks.\1.ff.net.0.proj",
    r"blocks\.(\d+)\.mlp\.fc2": r"transformer_blocks.\1.ff.net.2",
    r"blocks\.(\d+)\.scale_shift_table": r"transformer_blocks.\1.scale_shift_table",
    r"final_layer\.linear": "proj_out",
    r"final_layer\.scale_shift_table": "scale_shift_table",
}


def theirs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        if found := re.fullmatch(r"blocks\.(\d+)\.(attn\.qkv|cross_attn\.kv)\.(\w+)", name):
            attention, letters = ("attn1", "qkv") if found[2] == "attn.qkv" else ("attn2", "kv")
            for letter, part in zip(letters, tensor.chunk(len(letters)), strict=True):
                renamed[f"transformer_blocks.{found[1]}.{attention}.to_{letter}.{found[3]}"] = part
        elif name not in ("pos_embed", "y_embedder.null_caption"):
            (pattern,) = [pattern for pattern in OF_DIFFUSERS if re.match(pattern, name)]
            renamed[re.sub(pattern, OF_DIFFUSERS[pattern], name)] = tensor
    return renamed


def test_the_same_weights_predict_the_same() -> None:
    torch.manual_seed(0)
    model = create_model(
        "DiT", block="pixart", depth=DEPTH, hidden_size=DIM, num_heads=HEADS, patch_size=2, input_size=2 * GRID,
        caption_tokens=TOKENS, caption_channels=CHANNELS, position_base=GRID // 2,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    other = PixArtTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=DIM // HEADS, num_layers=DEPTH, cross_attention_dim=DIM,
        sample_size=2 * GRID, caption_channels=CHANNELS, interpolation_scale=2,
    )  # fmt: skip
    other.load_state_dict(theirs(model.state_dict()), strict=True)
    x, t, text = torch.randn(3, 4, 2 * GRID, 2 * GRID), torch.tensor([0, 400, 999]), torch.randn(3, TOKENS, CHANNELS)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    with torch.no_grad():
        ours = model(x, t, Captions(text, mask, torch.zeros(3, dtype=torch.bool)))
        (expected,) = other(x, text, t, encoder_attention_mask=mask, return_dict=False)
    assert expected.std() > 0.1
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
