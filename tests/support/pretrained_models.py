"""Small models of random weights, ours and diffusers', for the tests of checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

from models import create_model
from models.transformer import DiT


def small(block: str = "adaln-zero", **options: Any) -> DiT:
    """Two blocks, of the width of no model of the paper."""
    torch.manual_seed(0)
    sizes: Any = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 2, "input_size": 8}
    model = create_model("DiT", block=block, **(sizes | {"num_classes": 7} | options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model.eval()


def theirs(**config: Any) -> DiTTransformer2DModel:
    """Plain diffusers, of the same sizes, with one embedder common to all blocks."""
    torch.manual_seed(1)
    options: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 8, "out_channels": 8, "num_layers": 2}
    options |= {"sample_size": 8, "num_embeds_ada_norm": 7}
    model = DiTTransformer2DModel(**(options | config)).eval()
    state = model.state_dict()
    for name, tensor in state.items():
        tensor.copy_(torch.randn(tensor.shape) * 0.1)
        _, _, embedder = name.partition(".norm1.emb.")
        if embedder:
            tensor.copy_(state[f"transformer_blocks.0.norm1.emb.{embedder}"])
    return model
