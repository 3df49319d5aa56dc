"""The Diffusion Transformer (Peebles & Xie 2022, arXiv 2212.09748)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.blocks import DESIGNS
from models.layers import LabelEmbedder, PatchEmbed, TimestepEmbedder, position_table
from models.registry import Architecture


class DiT(nn.Module):
    """Predicts the noise (and the variance, if `learn_sigma`) in a noised latent.

    Parameter names and shapes of the adaln-zero design equal the official release's, so that its checkpoints
    load with `strict=True`.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.out_channels = arch.in_channels * (2 if arch.learn_sigma else 1)
        self.null_label = arch.num_classes
        dim = arch.hidden_size
        design = DESIGNS[arch.block]

        self.x_embedder = PatchEmbed(arch.input_size, arch.patch_size, arch.in_channels, dim)
        self.t_embedder = TimestepEmbedder(dim, arch.frequency_embedding_size)
        self.y_embedder = LabelEmbedder(arch.num_classes, dim)
        table = position_table(dim, arch.input_size // arch.patch_size).to(self.x_embedder.proj.weight.device)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.condition = design.condition(dim)
        self.condition_as_tokens = design.condition_as_tokens
        self.blocks = nn.ModuleList([design.block(dim, arch.num_heads, arch.mlp_ratio) for _ in range(arch.depth)])
        self.final_layer = design.final_layer(dim, arch.patch_size**2 * self.out_channels)
        self._initialize_weights()

    def _initialize_weights(self) -> None:
        """Xavier for linear maps, normal for embeddings, zero for modulations and the output (Sec. 3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.arch.hidden_size, -1))
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=self.arch.label_init_std)
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith(("final_layer.linear", "x_embedder.proj.bias")):
                nn.init.zeros_(parameter)
            elif name.startswith(("t_embedder", "condition")) and name.endswith("weight"):
                nn.init.normal_(parameter, std=self.arch.timestep_init_std)

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

    def forward_with_cfg(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        cfg_scale: float,
        channels: int | None = 3,
        batch_doubled: bool = True,
    ) -> Tensor:
        """Classifier-free guidance: null + cfg_scale * (class - null) on the first `channels` noise channels.

        Args:
            x, t, y: the official signature, batch [half; half] with labels [class; null], where only the first
                half of x is read; with `batch_doubled=False` a plain batch that the model doubles itself.
            channels: 3, as in the paper's code (Table 4's latents have 4), or None for all noise channels.
                The other channels, and the variance, are the unguided prediction.

        Returns:
            (2N, 2C, H, W) with both halves guided alike if `batch_doubled` (the unguided channels differ:
            class, then null), else the first half, (N, 2C, H, W).

        Raises:
            ValueError: more guided channels than the model predicts, or an odd doubled batch.
        """
        channels = self.arch.in_channels if channels is None else channels
        if not 0 < channels <= self.arch.in_channels:
            raise ValueError(f"channels: {channels} is not in 1 .. {self.arch.in_channels}, the model's noise channels")
        if batch_doubled:
            if len(x) % 2:
                raise ValueError(f"a batch of {len(x)} is not [half; half]; batch_doubled=False takes a plain batch")
            half = x[: len(x) // 2]
        else:
            half = x
            t = torch.cat([t, t])
            y = torch.cat([y, torch.full_like(y, self.null_label)])
        out = self(torch.cat([half, half]), t, y)
        noise, rest = out[:, :channels], out[:, channels:]
        conditional, unconditional = noise.chunk(2)
        guided = unconditional + cfg_scale * (conditional - unconditional)
        if batch_doubled:
            return torch.cat([torch.cat([guided, guided]), rest], dim=1)
        return torch.cat([guided, rest.chunk(2)[0]], dim=1)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(N, T, p*p*C) -> (N, C, H, W)."""
        p, grid = self.arch.patch_size, self.arch.input_size // self.arch.patch_size
        x = tokens.reshape(-1, grid, grid, p, p, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, grid * p, grid * p)
