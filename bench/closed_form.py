"""GMACs and parameters of a model in closed form: what `bench.flops` counts, without torch, for planning.

The tests hold every term to fvcore's count, exactly, for all block designs.
"""

from __future__ import annotations

from models.registry import Architecture

# Vectors of width hidden_size that each design computes from the condition: in every block, once for all blocks, and
# in the final layer (paper Sec. 3.2; adaLN-single: PixArt).
_MODULATION = {
    "adaln-zero": (6, 0, 2),
    "adaln": (4, 0, 2),
    "adaln-single": (0, 6, 0),
    "cross-attention": (0, 0, 0),
    "in-context": (0, 0, 0),
}
CONDITION_TOKENS = 2


def forward_gmacs(arch: Architecture) -> float:
    """Multiply-accumulates of one forward pass of one image in 1e9, by the convention of `bench.flops`."""
    dim, image_tokens = arch.hidden_size, arch.num_tokens
    in_block, shared, in_final = _MODULATION[arch.block]
    tokens = image_tokens + (CONDITION_TOKENS if arch.block == "in-context" else 0)
    attention = 4 * tokens * dim**2 + 2 * tokens**2 * dim
    mlp = 2 * tokens * dim * int(dim * arch.mlp_ratio)
    norms = 2 * tokens * dim
    cross = 0
    if arch.block == "cross-attention":
        cross = 2 * tokens * dim**2 + 2 * CONDITION_TOKENS * dim**2 + 2 * tokens * CONDITION_TOKENS * dim
    block = attention + mlp + norms + cross + in_block * dim**2
    patch = arch.patch_size**2 * dim * image_tokens
    embed = patch * arch.in_channels + arch.frequency_embedding_size * dim + dim**2
    final = patch * _out_channels(arch) + in_final * dim**2
    return (arch.depth * block + shared * dim**2 + embed + final) / 1e9


def num_parameters(arch: Architecture) -> int:
    """Trainable parameters and the fixed position table, as `bench.flops` counts them."""
    dim, hidden = arch.hidden_size, int(arch.hidden_size * arch.mlp_ratio)
    in_block, shared, in_final = _MODULATION[arch.block]
    modulation = dim**2 + dim  # one vector's linear map
    affine_norm = 2 * dim if arch.block in ("cross-attention", "in-context") else 0
    tables = dim if arch.block == "adaln-single" else 0  # a vector of a block's own table
    attention = 4 * (dim**2 + dim)
    mlp = 2 * dim * hidden + hidden + dim
    cross = 4 * (dim**2 + dim) if arch.block == "cross-attention" else 0
    block = attention + mlp + cross + 2 * affine_norm + in_block * modulation + 6 * tables
    out_features = arch.patch_size**2 * _out_channels(arch)
    embed = (
        arch.patch_size**2 * arch.in_channels * dim + dim
        + arch.frequency_embedding_size * dim + dim + modulation
        + (arch.num_classes + 1) * dim
        + arch.num_tokens * dim
    )  # fmt: skip
    final = dim * out_features + out_features + affine_norm + in_final * modulation + 2 * tables
    return arch.depth * block + shared * modulation + embed + final


def _out_channels(arch: Architecture) -> int:
    return arch.in_channels * (2 if arch.learn_sigma else 1)
