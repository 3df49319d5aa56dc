"""Weights to and from diffusers' `DiTTransformer2DModel`; the layout here is the official one."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from models.dit import DiTConfig
from models.transformer import DiT

if TYPE_CHECKING:
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    from models.diffusers_transformer import OfficialDiTTransformer2DModel

# Ours -> diffusers', outside the blocks.
_OUTER = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
# Ours -> diffusers', inside a block; diffusers holds q, k and v apart.
_INNER = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
# Ours -> diffusers', which keeps a copy of the condition's embedders in every block.
_EMBEDDERS = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}


def _renamed(depth: int) -> dict[str, list[str]]:
    """Our module names -> diffusers' module names that hold the same tensor (qkv left out)."""
    names = {ours: [theirs] for ours, theirs in _OUTER.items()}
    for ours, theirs in _EMBEDDERS.items():
        names[ours] = [f"transformer_blocks.{i}.norm1.emb.{theirs}" for i in range(depth)]
    for i in range(depth):
        names |= {f"blocks.{i}.{ours}": [f"transformer_blocks.{i}.{theirs}"] for ours, theirs in _INNER.items()}
    return names


def state_dict_to_diffusers(state_dict: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Rename an adaln-zero state dict to the names of diffusers' `DiTTransformer2DModel`.

    Raises:
        ValueError: tensors of another design, or of more blocks than `depth`.
    """
    renamed = _renamed(depth)
    result: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        module, _, kind = key.rpartition(".")
        if module.endswith("attn.qkv"):
            block = module.split(".")[1]
            for name, part in zip(("to_q", "to_k", "to_v"), tensor.chunk(3), strict=True):
                result[f"transformer_blocks.{block}.attn1.{name}.{kind}"] = part.clone()
        elif key in renamed:
            result[renamed[key][0]] = tensor
        elif module in renamed:
            result |= {f"{theirs}.{kind}": tensor for theirs in renamed[module]}
        else:
            raise ValueError(f"{key}: not a tensor of an adaln-zero model of depth {depth}")
    return result


def state_dict_from_diffusers(state_dict: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The inverse of `state_dict_to_diffusers`.

    Raises:
        ValueError: a block's copy of an embedder differs from the first block's (the layout here has one), or
            tensors are missing or unexpected.
    """
    left = dict(state_dict)
    try:
        result = _take_from_diffusers(left, depth)
    except KeyError as error:
        raise ValueError(f"not a DiTTransformer2DModel of depth {depth}: missing {error}") from None
    if left:
        raise ValueError(f"not a DiTTransformer2DModel of depth {depth}: unexpected {min(left)}")
    return result


def _take_from_diffusers(left: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Move the tensors that have a place in our layout out of `left`."""
    result: dict[str, Tensor] = {}
    for ours, copies in _renamed(depth).items():
        if ours == "pos_embed":
            result[ours] = left.pop(copies[0])
            continue
        for kind in ("weight",) if "embedding_table" in ours else ("weight", "bias"):
            first = left.pop(f"{copies[0]}.{kind}")
            for other in copies[1:]:
                if not torch.equal(first, left.pop(f"{other}.{kind}")):
                    raise ValueError(f"{other}.{kind} differs from {copies[0]}.{kind}: one shared embedder expected")
            result[f"{ours}.{kind}"] = first
    for i in range(depth):
        for kind in ("weight", "bias"):
            parts = [left.pop(f"transformer_blocks.{i}.attn1.{name}.{kind}") for name in ("to_q", "to_k", "to_v")]
            result[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    return result


def check_held_by_diffusers(arch: DiTConfig) -> None:
    """Refuse what diffusers' class has no setting for: all that has a default here, and block designs.

    Raises:
        ValueError: `key: what it is, and what diffusers has`.
    """
    fixed = {"block": "adaln-zero", **{f.name: f.default for f in fields(arch) if f.default is not MISSING}}
    for key, value in fixed.items():
        # How weights were initialised does not matter any more.
        if getattr(arch, key) != value and not key.endswith("_init_std"):
            raise ValueError(f"{key}: {getattr(arch, key)}; diffusers has {value} only")


def to_diffusers(model: DiT) -> OfficialDiTTransformer2DModel:
    """The same network as diffusers' `DiTTransformer2DModel`, computing the same outputs; a saved copy does too.

    diffusers spaces the timestep frequencies by half - 1 intervals where the official code uses half, and cannot be
    configured otherwise: the returned module is of a subclass.

    Raises:
        ValueError: see `check_held_by_diffusers`.
    """
    transformer = built_by_diffusers(model.arch)
    transformer.load_state_dict(state_dict_to_diffusers(model.state_dict(), model.arch.depth), strict=True)
    return transformer.eval()


def built_by_diffusers(arch: DiTConfig) -> OfficialDiTTransformer2DModel:
    """The module of `to_diffusers`, with weights as diffusers initialises them; errors as there."""
    from models.diffusers_transformer import OfficialDiTTransformer2DModel

    check_held_by_diffusers(arch)
    build: Any = OfficialDiTTransformer2DModel  # with the arguments of its base class
    return build(
        num_attention_heads=arch.num_heads,
        attention_head_dim=arch.hidden_size // arch.num_heads,
        in_channels=arch.in_channels,
        out_channels=arch.out_channels,
        num_layers=arch.depth,
        sample_size=arch.input_size,
        patch_size=arch.patch_size,
        num_embeds_ada_norm=arch.num_classes,
        norm_eps=1e-6,
    )


def from_diffusers(transformer: DiTTransformer2DModel) -> DiT:
    """The same weights in our layout, with the official timestep frequencies and norms (see `to_diffusers`).

    Raises:
        ValueError: blocks that do not share one timestep and label embedder.
    """
    config = transformer.config
    arch = DiTConfig(
        block="adaln-zero",
        depth=config["num_layers"],
        hidden_size=config["num_attention_heads"] * config["attention_head_dim"],
        num_heads=config["num_attention_heads"],
        patch_size=config["patch_size"],
        input_size=config["sample_size"],
        in_channels=config["in_channels"],
        num_classes=config["num_embeds_ada_norm"],
        learn_sigma=transformer.out_channels == 2 * config["in_channels"],
    )
    model = DiT(arch)
    weights = {key: tensor.detach() for key, tensor in transformer.state_dict().items()}
    weights["pos_embed.pos_embed"] = transformer.pos_embed.pos_embed
    model.load_state_dict(state_dict_from_diffusers(weights, arch.depth), strict=True)
    return model.eval()
