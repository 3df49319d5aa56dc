"""The Diffusion Transformer (Peebles & Xie 2022, arXiv 2212.09748)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.layers import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    classifier_free,
    guided_channels,
    position_table,
)

if TYPE_CHECKING:
    from models.dit import DiTConfig


class DiT(nn.Module):
    """Predicts the noise (and the variance, if `learn_sigma`) in a noised latent.

    Parameter names and shapes of the adaln-zero design equal the official release's, so that its checkpoints
    load with `strict=True`.
    """

    def __init__(self, arch: DiTConfig) -> None:
        super().__init__()
        self.arch = arch
        self.out_channels = arch.out_channels
        self.null_label = arch.num_classes
        dim = arch.hidden_size
        condition, block, final_layer = arch.design.modules()

        self.x_embedder = PatchEmbed(arch.input_size, arch.patch_size, arch.in_channels, dim)
        self.t_embedder = TimestepEmbedder(dim, arch.frequency_embedding_size)
        self.y_embedder = LabelEmbedder(arch.num_classes, dim)
        table = position_table(dim, arch.input_size // arch.patch_size).to(self.x_embedder.proj.weight.device)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.condition = condition(dim)
        self.condition_as_tokens = arch.design.condition_as_tokens
        self.blocks = nn.ModuleList([block(dim, arch.num_heads, arch.mlp_ratio) for _ in range(arch.depth)])
        self.final_layer = final_layer(dim, arch.patch_size**2 * self.out_channels)
        self._initialize_weights()

    def _initialize_weights(self) -> None:
        """Xavier for linear maps, normal for embeddings; then as the design's modules say (Sec. 3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.arch.hidden_size, -1))
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=self.arch.label_init_std)
        for name, parameter in self.x_embedder.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        for module in (self.t_embedder, self.condition, *self.blocks, self.final_layer):
            initialize: Any = getattr(module, "initialize", None)
            if initialize is not None:
                initialize(self.arch.timestep_init_std)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x (N, C, H, W), timesteps t (N,), labels y (N,) int64 -> (N, 2C, H, W), or (N, C, H, W)."""
        tokens = self.x_embedder(x) + self.pos_embed
        num_tokens = tokens.shape[1]
        for_blocks, for_final = self.condition(self.t_embedder(t), self.y_embedder(y))
        if self.condition_as_tokens:
            tokens = torch.cat([tokens, for_blocks], dim=1)
        for block in self.blocks:
            tokens = block(tokens, for_blocks)
        return self.unpatchify(self.final_layer(tokens[:, :num_tokens], for_final))

    def forward_with_cfg(self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float, channels: int | None = 3) -> Tensor:
        """Classifier-free guidance with the official signature: batch [half; half], labels [class; null].

        Only the first half of x is read. Both halves of the result, (2N, 2C, H, W), are guided alike in the first
        `channels` noise channels: 3, as in the paper's code (its latents have 4), or None for all. The others, and
        the variance, are the unguided predictions: class, then null.

        Raises:
            ValueError: more guided channels than the model predicts, or an odd batch.
        """
        if len(x) % 2:
            raise ValueError(f"a batch of {len(x)} is not [half; half]")
        half = x[: len(x) // 2]
        channels = guided_channels(channels, self.arch.in_channels)
        out = self(torch.cat([half, half]), t, y)
        guided = classifier_free(out[:, :channels], cfg_scale)
        return torch.cat([torch.cat([guided, guided]), out[:, channels:]], dim=1)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(N, T, p*p*C) -> (N, C, H, W)."""
        p, grid = self.arch.patch_size, self.arch.input_size // self.arch.patch_size
        x = tokens.reshape(-1, grid, grid, p, p, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, grid * p, grid * p)
