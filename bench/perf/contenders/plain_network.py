"""A DiT with adaLN-Zero as its paper describes it (Peebles & Xie 2022, arXiv 2212.09748, Sec. 3.2), in plain PyTorch.

Attention, MLP and patch embedding are timm's. Written for comparison, from the paper; modules are named as in
`models.transformer`, so that either loads the other's weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.dit import DiTConfig
from models.layers import position_table
from models.layers.of_timm import Attention, GELUTanh, Mlp, PatchEmbed


class PlainDiT(nn.Module):
    """Predicts noise and variance, (N, 2C, H, W), of x (N, C, H, W) at steps t (N,) for labels y (N,)."""

    def __init__(self, arch: DiTConfig) -> None:
        super().__init__()
        dim = arch.hidden_size
        self.patch_size, self.out_channels = arch.patch_size, arch.out_channels
        self.x_embedder = PatchEmbed(arch.input_size, arch.patch_size, arch.in_channels, dim)
        self.t_embedder = _TimestepEmbedder(dim, arch.frequency_embedding_size)
        self.y_embedder = _LabelEmbedder(arch.num_classes, dim)
        table = position_table(dim, arch.input_size // arch.patch_size)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList([_Block(dim, arch.num_heads, arch.mlp_ratio) for _ in range(arch.depth)])
        self.final_layer = _FinalLayer(dim, arch.patch_size**2 * arch.out_channels)
        self._initialize()

    def _initialize(self) -> None:
        """Linear maps as a ViT's; modulations and the last map at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        for name, parameter in self.named_parameters():
            if name.startswith(("t_embedder", "y_embedder")) and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02)
            if "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self._image(self.final_layer(tokens, condition))

    def guided(self, x: Tensor, t: Tensor, y: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance of a batch [half; the same half] whose labels are [class; null]: the noise of both
        halves is the guided one, (2N, 2C, H, W); their variances are their own.
        """
        half = x[: len(x) // 2]
        noise, variance = self(torch.cat([half, half]), t, y).chunk(2, dim=1)
        with_class, without = noise.chunk(2)
        guided = without + scale * (with_class - without)
        return torch.cat([torch.cat([guided, guided]), variance], dim=1)

    def _image(self, tokens: Tensor) -> Tensor:
        """(N, T, p p 2C) -> (N, 2C, H, W)."""
        p, side = self.patch_size, math.isqrt(tokens.shape[1])
        patches = tokens.reshape(len(tokens), side, side, p, p, self.out_channels)
        return torch.einsum("nhwpqc->nchpwq", patches).reshape(len(tokens), self.out_channels, side * p, side * p)


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=GELUTanh)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class _FinalLayer(nn.Module):
    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(dim, out_features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        return self.linear(self.norm_final(x) * (1 + scale) + shift)


class _TimestepEmbedder(nn.Module):
    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = self.features // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angles = t[:, None].float() * frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class _LabelEmbedder(nn.Module):
    """The last row is the null label."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, dim)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)
