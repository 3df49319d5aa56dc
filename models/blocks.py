"""The block designs side by side (paper Sec. 3.2 and Fig. 3; adaLN-single: PixArt, arXiv 2310.00426 Sec. 2.3).

Shapes: x (N, T, D) tokens; t and y (N, D), the embedded timestep and label, or y `CaptionTokens` of a design that takes
captions as tokens; rotation (T, 2 D / heads), sines and cosines of the tokens' positions (`layers.rotation_table`).
Which condition, block and final layer make a design, and what it costs, is in `designs.py`; PixArt's block is in
`pixart/block.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.designs import PAPER_LAYERS, Layers
from models.layers import RMSNorm
from models.layers.of_timm import AttentionRope, GELUTanh, GluMlp, Mlp, SwiGLUPacked
from models.pixart.captions import CaptionTokens

EPS = 1e-6
NORMS = {"layer": nn.LayerNorm, "rms": RMSNorm}


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (N, T, D) scaled by 1 + scale and shifted, both (N, D)."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def _norm(dim: int, layers: Layers) -> nn.Module:
    return NORMS[layers.norm](dim, eps=EPS)


def _plain_norm(dim: int, layers: Layers) -> nn.Module:
    """For what is modulated afterwards: LayerNorm leaves scale and shift to that, RMSNorm keeps its scale."""
    return nn.LayerNorm(dim, elementwise_affine=False, eps=EPS) if layers.norm == "layer" else _norm(dim, layers)


def _attention(dim: int, num_heads: int, layers: Layers) -> AttentionRope:
    """Self-attention, (x, rotation or None); with None it is timm's `Attention`."""
    norm: Any = partial(NORMS[layers.norm], eps=EPS)
    # No prefix: the rotation has a row for every token.
    return AttentionRope(dim, num_heads, num_prefix_tokens=0, qk_norm=layers.qk_norm, norm_layer=norm)


def head_norms(head_size: int, layers: Layers) -> tuple[nn.Module, nn.Module]:
    """Of the queries and of the keys of a head."""
    if not layers.qk_norm:
        return nn.Identity(), nn.Identity()
    return _norm(head_size, layers), _norm(head_size, layers)


def _mlp(dim: int, mlp_ratio: float, layers: Layers) -> Mlp | GluMlp:
    hidden = int(dim * mlp_ratio)
    if layers.mlp == "swiglu":
        return SwiGLUPacked(dim, hidden_features=2 * (2 * hidden // 3))  # of gate and value together
    return Mlp(dim, hidden_features=hidden, act_layer=GELUTanh)


def _modulation(dim: int, num_vectors: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(dim, num_vectors * dim))


class _ZeroModulation(nn.Module):
    """Modulations start at zero, and a final layer's map too: blocks begin as the identity or near it (Sec. 3.2)."""

    def initialize(self, std: float) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith(("adaLN_modulation", "linear")):
                nn.init.zeros_(parameter)


class AdaLNZeroBlock(_ZeroModulation):
    """Shift, scale and gate from t + y; gates start at zero, so the block starts as the identity."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm1 = _plain_norm(dim, layers)
        self.attn = _attention(dim, num_heads, layers)
        self.norm2 = _plain_norm(dim, layers)
        self.mlp = _mlp(dim, mlp_ratio, layers)
        self.adaLN_modulation = _modulation(dim, 6)

    def forward(self, x: Tensor, c: Tensor, rotation: Tensor | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), rotation)
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class AdaLNBlock(_ZeroModulation):
    """Shift and scale from t + y, no gate: the residual branches are open from the start."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm1 = _plain_norm(dim, layers)
        self.attn = _attention(dim, num_heads, layers)
        self.norm2 = _plain_norm(dim, layers)
        self.mlp = _mlp(dim, mlp_ratio, layers)
        self.adaLN_modulation = _modulation(dim, 4)

    def forward(self, x: Tensor, c: Tensor, rotation: Tensor | None = None) -> Tensor:
        shift1, scale1, shift2, scale2 = self.adaLN_modulation(c).chunk(4, dim=1)
        x = x + self.attn(modulate(self.norm1(x), shift1, scale1), rotation)
        return x + self.mlp(modulate(self.norm2(x), shift2, scale2))


class AdaLNSingleBlock(nn.Module):
    """The six vectors of adaLN-Zero come from one map shared by all blocks; a block adds a table of its own."""

    kinds: ClassVar = {"scale_shift_table": "modulation"}  # for `models.parametrization`

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm1 = _plain_norm(dim, layers)
        self.attn = _attention(dim, num_heads, layers)
        self.norm2 = _plain_norm(dim, layers)
        self.mlp = _mlp(dim, mlp_ratio, layers)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def vectors(self, c: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of attention, then of the MLP, (N, D) each, of the shared map's (N, 6D)."""
        return (self.scale_shift_table + c.unflatten(1, (6, -1))).unbind(1)

    def forward(self, x: Tensor, c: Tensor, rotation: Tensor | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.vectors(c)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), rotation)
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class CrossAttention(nn.Module):
    """Queries from the image tokens, keys and values from the condition, fused attention."""

    def __init__(self, dim: int, num_heads: int, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.q_norm, self.k_norm = head_norms(dim // num_heads, layers)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, c: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (N, T, D), c (N, S, D), mask (N, S) bool of those of c that are attended to -> (N, T, D)."""
        mask = None if mask is None else mask[:, None, None, :]  # for all heads and all of x
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (N, heads, T, D/heads)
        k, v = self.kv(c).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).flatten(2))


class CrossAttentionBlock(nn.Module):
    """A standard block with cross-attention to the sequence [t, y], or [t, caption], after self-attention."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm1 = _norm(dim, layers)
        self.attn = _attention(dim, num_heads, layers)
        self.cross_attn = CrossAttention(dim, num_heads, layers)
        self.norm2 = _norm(dim, layers)
        self.mlp = _mlp(dim, mlp_ratio, layers)

    def forward(self, x: Tensor, c: Tensor | CaptionTokens, rotation: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        x = x + (self.cross_attn(x, *c) if isinstance(c, CaptionTokens) else self.cross_attn(x, c))
        return x + self.mlp(self.norm2(x))


class InContextBlock(nn.Module):
    """A standard ViT block; the condition is more tokens, [t, y] or [t, caption], which the model appends once."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm1 = _norm(dim, layers)
        self.attn = _attention(dim, num_heads, layers)
        self.norm2 = _norm(dim, layers)
        self.mlp = _mlp(dim, mlp_ratio, layers)

    def forward(self, x: Tensor, c: Tensor | CaptionTokens, rotation: Tensor | None = None) -> Tensor:
        mask = None
        if isinstance(c, CaptionTokens):  # the image's tokens come first
            image = c.mask.new_ones(len(x), x.shape[1] - c.mask.shape[1])
            mask = torch.cat([image, c.mask], 1)[:, None, None, :]
        x = x + self.attn(self.norm1(x), rotation, mask)
        return x + self.mlp(self.norm2(x))


class SumCondition(nn.Module):
    """t + y, (N, D), for blocks and final layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return t + y, t + y


class SequenceCondition(nn.Module):
    """The sequence [t, y], (N, 2, D), or [t, caption], for blocks and final layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, t: Tensor, y: Tensor | CaptionTokens) -> tuple[Tensor | CaptionTokens, Tensor | CaptionTokens]:
        c = y.after(t) if isinstance(y, CaptionTokens) else torch.stack([t, y], dim=1)
        return c, c


class SharedModulation(nn.Module):
    """One SiLU + Linear from t + y to the six vectors of every block, (N, 6D); t + y for the final layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.t_block = _modulation(dim, 6)

    def initialize(self, std: float) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, std=std)

    def forward(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.t_block(t + y), t + y


class FinalLayer(_ZeroModulation):
    """A norm and a linear map to patch pixels, for the designs without adaptive normalisation."""

    def __init__(self, dim: int, out_features: int, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm_final = _norm(dim, layers)
        self.linear = nn.Linear(dim, out_features)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.linear(self.norm_final(x))


class AdaLNFinalLayer(_ZeroModulation):
    """Shift and scale from t + y, then a linear map to patch pixels."""

    def __init__(self, dim: int, out_features: int, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm_final = _plain_norm(dim, layers)
        self.linear = nn.Linear(dim, out_features)
        self.adaLN_modulation = _modulation(dim, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class AdaLNSingleFinalLayer(_ZeroModulation):
    """Shift and scale are t + y plus a table of the layer's own."""

    kinds: ClassVar = {"scale_shift_table": "modulation"}  # for `models.parametrization`

    def __init__(self, dim: int, out_features: int, layers: Layers = PAPER_LAYERS) -> None:
        super().__init__()
        self.norm_final = _plain_norm(dim, layers)
        self.linear = nn.Linear(dim, out_features)
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + c.unsqueeze(1)).unbind(1)
        return self.linear(modulate(self.norm_final(x), shift, scale))
