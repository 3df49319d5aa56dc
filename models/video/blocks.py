"""Blocks of a video DiT: adaLN-Zero's or adaLN-single's, whose attention may be factorised, with or without captions.

Shapes: tokens (N, T S, D), S of each of T frames; with full attention and labels a block is the DiT's, and so are the
names of its weights. STDiT's order (Open-Sora 1.0): within frames, across frames, to the caption, MLP.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.blocks import EPS, CrossAttention, modulate
from models.layers.of_timm import Attention, GELUTanh, Mlp
from models.pixart.captions import CaptionTokens


class VideoBlock(nn.Module):
    """Attention, in full or factorised; perhaps attention to a caption; MLP. Six vectors modulate all but the caption.

    Args:
        frames: T of the tokens, for attention that is factorised.
        attention: see `models.video.dit.VideoDiTOptions`.
        attends_to_time: whether there is an attention across frames.
        captions: whether there is attention to a caption.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        frames: int,
        attention: str = "full",
        attends_to_time: bool = False,
        captions: bool = False,
    ) -> None:
        super().__init__()
        self.frames, self.attention = frames, attention
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.attn_temporal = Attention(dim, num_heads, qkv_bias=True) if attends_to_time else None
        self.cross_attn = CrossAttention(dim, num_heads) if captions else None
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=EPS)
        self.mlp = Mlp(dim, hidden_features=int(dim * mlp_ratio), act_layer=GELUTanh)

    def initialize(self, std: float) -> None:
        """A network starts without its captions (PixArt-alpha)."""
        if self.cross_attn is not None:
            nn.init.zeros_(self.cross_attn.proj.weight)

    def vectors(self, c: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of the attentions, then of the MLP, (N, D) each."""
        raise NotImplementedError

    def forward(self, x: Tensor, c: Tensor, captions: CaptionTokens | None = None) -> Tensor:
        """x (N, T S, D), c as `vectors` takes it -> (N, T S, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.vectors(c)
        normed = modulate(self.norm1(x), shift1, scale1)
        if self.attention == "parallel":
            x = x + gate1.unsqueeze(1) * (self._within_frames(normed) + self._across_frames(normed))
        else:
            x = x + gate1.unsqueeze(1) * self._within_frames(normed)
            if self.attn_temporal is not None:
                # STDiT's code leaves out this norm; with it, kinds of attention differ in nothing else.
                x = x + gate1.unsqueeze(1) * self._across_frames(modulate(self.norm1(x), shift1, scale1))
        if self.cross_attn is not None and captions is not None:
            x = x + self.cross_attn(x, captions.tokens, captions.mask)
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))

    def _within_frames(self, x: Tensor) -> Tensor:
        """Of every token to those of its frame, or with full attention to all."""
        if self.attention == "full":
            return self.attn(x)
        n, tokens, dim = x.shape
        return self.attn(x.reshape(n * self.frames, tokens // self.frames, dim)).reshape(n, tokens, dim)

    def _across_frames(self, x: Tensor) -> Tensor | float:
        """Of every token to those at its place in all frames; nothing where there is one frame."""
        if self.attn_temporal is None:
            return 0.0
        n, tokens, dim = x.shape
        places = x.reshape(n, self.frames, tokens // self.frames, dim).transpose(1, 2)
        places = self.attn_temporal(places.flatten(0, 1)).unflatten(0, places.shape[:2])  # (N, S, T, D)
        return places.transpose(1, 2).flatten(1, 2)


class ZeroVideoBlock(VideoBlock):
    """The six vectors come from a map of the block's own, which starts at zero: the block starts as the identity."""

    def __init__(self, dim: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, *args, **kwargs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def initialize(self, std: float) -> None:
        super().initialize(std)
        for parameter in self.adaLN_modulation.parameters():
            nn.init.zeros_(parameter)

    def vectors(self, c: Tensor) -> tuple[Tensor, ...]:
        """c (N, D)."""
        return self.adaLN_modulation(c).chunk(6, dim=1)


class SingleVideoBlock(VideoBlock):
    """The six vectors come from one map for all blocks; a block adds a table. At first, frames are by themselves."""

    kinds: ClassVar = {"scale_shift_table": "modulation"}  # for `models.parametrization`

    def __init__(self, dim: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, *args, **kwargs)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)

    def initialize(self, std: float) -> None:
        super().initialize(std)
        if self.attn_temporal is not None:  # as STDiT, which so begins with the weights of a network of images
            nn.init.zeros_(self.attn_temporal.proj.weight)

    def vectors(self, c: Tensor) -> tuple[Tensor, ...]:
        """c (N, 6 D)."""
        return (self.scale_shift_table + c.unflatten(1, (6, -1))).unbind(1)
