"""What a DiT costs, in closed form: multiply-accumulates and parameters, by the convention of `bench.flops`.

D is the hidden size. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.designs import DesignCost
from models.registry import Count

if TYPE_CHECKING:
    from models.dit import DiTConfig


def count(config: DiTConfig) -> Count | None:
    """What `bench.flops` counts operator by operator; None where the block design does not say."""
    cost = config.design.cost
    return None if cost is None else Count(_macs(config, cost), _parameters(config, cost), _fixed(config))


def _macs(config: DiTConfig, cost: DesignCost) -> int:
    """Of one forward pass of one image."""
    dim, patches = config.hidden_size, config.num_tokens
    tokens = patches + (_condition_tokens(config, cost) if config.design.condition_as_tokens else 0)
    # Multiplied, not added up: a file of anybody's may say that it has a hundred million blocks.
    first, windowed = config.class_tokens_start, config.windowed_blocks
    blocks = windowed * _block_macs(config, cost, tokens, config.window_size)
    blocks += first * _block_macs(config, cost, tokens)
    blocks += (config.depth - windowed - first) * _block_macs(config, cost, tokens + config.class_tokens)
    embed = patches * _patch_weights(config) + config.frequency_embedding_size * dim + dim**2
    embed += config.caption_tokens * (config.caption_channels * dim + dim**2)
    final = patches * config.patch_size**2 * dim * config.out_channels + cost.in_final * dim**2
    return blocks + cost.shared * dim**2 + embed + final


def _block_macs(config: DiTConfig, cost: DesignCost, tokens: int, window: int | None = None) -> int:
    dim = config.hidden_size
    attention = 4 * tokens * dim**2 + 2 * tokens * (tokens if window is None else window**2) * dim
    if window is not None and config.use_rel_pos:
        attention += 2 * tokens * window * dim
    norms = 2 * tokens * dim
    normalised = 2 * tokens * dim  # queries and keys
    cross = 0
    if _has_cross_attention(config, cost):
        attended = _condition_tokens(config, cost)
        cross = 2 * tokens * dim**2 + 2 * attended * dim**2 + 2 * tokens * attended * dim
        normalised += (tokens + attended) * dim
    qk_norms = normalised if config.qk_norm else 0
    mlp = tokens * _mlp_maps(config) * dim * mlp_width(config)
    return attention + mlp + norms + qk_norms + cross + cost.in_block * dim**2


def _parameters(config: DiTConfig, cost: DesignCost) -> int:
    """Trainable parameters and those that are fixed."""
    dim, hidden, maps = config.hidden_size, mlp_width(config), _mlp_maps(config)
    linear = dim**2 + dim  # D -> D
    is_rms = config.norm == "rms"
    norm = dim if is_rms else 2 * dim if cost.affine_norms else 0
    mlp = maps * dim * hidden + (maps - 1) * hidden + dim
    has_cross = _has_cross_attention(config, cost)
    block = 4 * linear + mlp + 2 * norm + cost.in_block * linear + cost.block_table * dim
    block += 4 * linear if has_cross else 0
    if config.qk_norm:
        block += (2 if has_cross else 1) * 2 * (1 if is_rms else 2) * (dim // config.num_heads)
    patch_in = _patch_weights(config) + dim
    timestep = config.frequency_embedding_size * dim + dim + linear
    out_features = config.patch_size**2 * config.out_channels
    final = dim * out_features + out_features + norm + cost.in_final * linear + cost.final_table * dim
    embed = patch_in + timestep + _told(config) + config.class_tokens * dim
    blocks = config.depth * block + _relative_positions(config)
    return blocks + cost.shared * linear + embed + final + _fixed(config)


def _told(config: DiTConfig) -> int:
    """Parameters that embed labels, or captions, the null one among them."""
    dim, channels = config.hidden_size, config.caption_channels
    if config.caption_shape is None:
        return (config.num_classes + 1) * dim
    return config.caption_tokens * channels + channels * dim + dim + dim**2 + dim


def _relative_positions(config: DiTConfig) -> int:
    """A vector of a head's size for each distance in rows and in columns, in every block with windows."""
    if config.window_size is None or not config.use_rel_pos:
        return 0
    return config.windowed_blocks * 2 * (2 * config.window_size - 1) * config.hidden_size // config.num_heads


def _condition_tokens(config: DiTConfig, cost: DesignCost) -> int:
    """Of the condition: those of a caption stand in the place of the label's."""
    return cost.condition_tokens + (config.caption_tokens - 1 if config.has_caption_tokens else 0)


def _has_cross_attention(config: DiTConfig, cost: DesignCost) -> bool:
    return config.has_caption_tokens if cost.cross_attention == "captions" else cost.cross_attention


def mlp_width(config: DiTConfig) -> int:
    """Hidden features: int(D mlp_ratio), of SwiGLU two thirds of that, rounded down."""
    width = int(config.hidden_size * config.mlp_ratio)
    return 2 * width // 3 if config.mlp == "swiglu" else width


def _mlp_maps(config: DiTConfig) -> int:
    """Linear maps between D and the hidden features: SwiGLU's gate is one more."""
    return 3 if config.mlp == "swiglu" else 2


def _patch_weights(config: DiTConfig) -> int:
    """Weights of the linear map, or of the two, from a patch to D."""
    pixels, dim, bottleneck = config.patch_size**2 * config.in_channels, config.hidden_size, config.patch_bottleneck
    return pixels * dim if bottleneck is None else bottleneck * (pixels + dim)


def _fixed(config: DiTConfig) -> int:
    """The table that is added to the patches, sines and cosines of a head's rotations, windows of every block."""
    table = config.hidden_size if config.has_table else 0
    rotation = 2 * config.hidden_size // config.num_heads if config.has_rotation else 0
    return config.num_tokens * (table + rotation) + (0 if config.window_size is None else config.depth)
