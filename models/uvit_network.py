"""The U-ViT (Bao et al. 2022, arXiv 2209.12152), as its ablations found best (Sec. 3, Fig. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.layers import LabelEmbedder, PatchEmbed, timestep_features
from models.layers.of_timm import Attention, Mlp

if TYPE_CHECKING:
    from models.uvit import UViTConfig


class UViTBlock(nn.Module):
    """A pre-norm transformer block, (N, T, D) -> (N, T, D); with a long skip, which it takes in first."""

    def __init__(self, dim: int, num_heads: int, mlp_width: int, has_skip: bool) -> None:
        super().__init__()
        if has_skip:
            self.skip_linear = nn.Linear(2 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features=mlp_width)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class UViTFinalLayer(nn.Module):
    """Tokens of patches (N, T, D) -> pixels (N, C_out, H, W), with a convolution over them."""

    def __init__(self, arch: UViTConfig) -> None:
        super().__init__()
        self.patch_size, self.grid = arch.patch_size, arch.input_size // arch.patch_size
        self.others = arch.sequence - arch.num_tokens
        self.norm = nn.LayerNorm(arch.hidden_size)
        self.linear = nn.Linear(arch.hidden_size, arch.patch_size**2 * arch.out_channels)
        self.conv = nn.Conv2d(arch.out_channels, arch.out_channels, 3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        # Of all tokens, as in the paper's code; those of time and label are dropped after it.
        patches = self.linear(self.norm(tokens))[:, self.others :]
        p, grid = self.patch_size, self.grid
        x = patches.reshape(len(patches), grid, grid, p, p, -1)
        return self.conv(x.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, grid * p, grid * p))


class UViT(nn.Module):
    """Predicts what its objective says from time, label and patches, all of them tokens."""

    def __init__(self, arch: UViTConfig) -> None:
        super().__init__()
        self.arch = arch
        self.out_channels = arch.out_channels
        self.null_label = arch.num_classes
        dim = arch.hidden_size
        self.x_embedder = PatchEmbed(arch.input_size, arch.patch_size, arch.in_channels, dim)
        self.y_embedder = LabelEmbedder(arch.num_classes, dim)
        self.positions = nn.Parameter(torch.empty(1, arch.sequence, dim))
        self.blocks = nn.ModuleList(
            UViTBlock(dim, arch.num_heads, arch.mlp_width, has_skip=index >= arch.depth - arch.num_skips)
            for index in range(arch.depth)
        )
        self.final_layer = UViTFinalLayer(arch)
        self._initialize_weights()

    def _initialize_weights(self) -> None:
        """As the paper's code: truncated normal for linear maps and positions, else torch's own (labels: N(0, 1))."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=self.arch.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions, std=self.arch.init_std)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """x (N, C, H, W), timesteps t (N,), labels (N,) int64 -> (N, C_out, H, W)."""
        patches = self.x_embedder(x)
        time = timestep_features(t, self.arch.hidden_size).to(self.positions.dtype)  # the token itself: no MLP
        tokens = torch.cat([time.unsqueeze(1), self.y_embedder(labels).unsqueeze(1), patches], dim=1) + self.positions
        skips: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index < self.arch.num_skips:
                tokens = block(tokens)
                skips.append(tokens)
            elif index == self.arch.num_skips:
                tokens = block(tokens)
            else:
                tokens = block(tokens, skips.pop())
        return self.final_layer(tokens)
