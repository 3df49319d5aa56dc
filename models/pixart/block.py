"""PixArt-alpha's block (arXiv 2310.00426, and its public code): adaLN-single, captions by cross-attention, windows.

Shapes as in `blocks.py`. With labels instead of captions it is adaLN-single, as class-conditional PixArt is.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import AdaLNSingleBlock, CrossAttention, SharedModulation, head_norms, modulate
from models.designs import PAPER_LAYERS, Layers, Windows
from models.layers import DropPath
from models.pixart.captions import CaptionTokens


class PixArtCondition(SharedModulation):
    """The six vectors of every block, (N, 6D), from the timestep alone where there are captions, beside these."""

    def forward(self, t: Tensor, y: Tensor | CaptionTokens) -> tuple[Any, Tensor]:
        if isinstance(y, CaptionTokens):
            return (self.t_block(t), y), t
        return super().forward(t, y)


class PixArtBlock(AdaLNSingleBlock):
    """adaLN-single with cross-attention between its two branches: no norm before it, no gate, and it starts as zero."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__(dim, num_heads, mlp_ratio, layers)
        if layers.windows is not None:
            self.attn = WindowAttention(dim, num_heads, layers, layers.windows)
        if layers.captions:
            self.cross_attn = CrossAttention(dim, num_heads, layers)
        self.drop_attn, self.drop_mlp = DropPath(layers.drop_path), DropPath(layers.drop_path)

    def initialize(self, std: float) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("cross_attn.proj."):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, c: Tensor | tuple[Tensor, CaptionTokens], rotation: Tensor | None = None) -> Tensor:
        vectors, captions = c if isinstance(c, tuple) else (c, None)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.vectors(vectors)
        attended = self.attn(modulate(self.norm1(x), shift1, scale1), rotation)
        x = x + self.drop_attn(gate1.unsqueeze(1) * attended)
        if captions is not None:
            x = x + self.cross_attn(x, captions.tokens, captions.mask)
        return x + self.drop_mlp(gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2)))


class WindowAttention(nn.Module):
    """Self-attention within square windows of patches, whose logits may depend on how far patches are apart.

    Relative positions are those of ViTDet (arXiv 2203.16527; from MViTv2, arXiv 2112.01526 Sec. 4.1): a query's
    products with a learned vector for the distance in rows, and with another for that in columns, are added to its
    logits. They start at zero. Names of the maps are those of the other attentions.
    """

    def __init__(self, dim: int, num_heads: int, layers: Layers, windows: Windows) -> None:
        super().__init__()
        self.num_heads, self.windows = num_heads, windows
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm, self.k_norm = head_norms(dim // num_heads, layers)
        self.proj = nn.Linear(dim, dim)
        if windows.use_rel_pos:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * windows.size - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * windows.size - 1, dim // num_heads))

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """x (N, T, D) -> (N, T, D); windows are refused where there are rotations."""
        grid, size = self.windows.grid, self.windows.size
        sides = (grid // size, size, grid // size, size)
        windows = x.unflatten(1, sides).transpose(2, 3)  # (N, rows, columns, size, size, D)
        q, k, v = self.qkv(windows.reshape(-1, size**2, x.shape[-1])).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q, k, v = self.q_norm(q.transpose(1, 2)), self.k_norm(k.transpose(1, 2)), v.transpose(1, 2)
        bias = self.relative_positions(q) if self.windows.use_rel_pos else None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (windows, heads, size^2, D / heads)
        out = self.proj(out.transpose(1, 2).flatten(2))
        return out.reshape(windows.shape).transpose(2, 3).reshape(x.shape)

    def relative_positions(self, q: Tensor) -> Tensor:
        """What is added to the logits, (W, heads, size^2, size^2), of queries (W, heads, size^2, D / heads)."""
        size = self.windows.size
        places = torch.arange(size, device=q.device)
        distances = places[:, None] - places + size - 1  # of query and key, from 0
        q = q.unflatten(2, (size, size))  # by row and column
        by_row = q @ F.embedding(distances, self.rel_pos_h).transpose(1, 2)  # (..., row, column, row of the key)
        by_column = q.transpose(2, 3) @ F.embedding(distances, self.rel_pos_w).transpose(1, 2)
        bias = by_row.unsqueeze(-1) + by_column.transpose(2, 3).unsqueeze(-2)
        return bias.flatten(4).flatten(2, 3)
