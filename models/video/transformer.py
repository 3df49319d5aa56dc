"""The Diffusion Transformer of clips (Open-Sora 1.0): the DiT with patches of time and space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.blocks import AdaLNFinalLayer, AdaLNSingleFinalLayer, SharedModulation, SumCondition
from models.conditions import Captions, Condition
from models.layers import LabelEmbedder, TimestepEmbedder, position_table
from models.pixart.captions import OPERATORS, CaptionEmbedder, CaptionTokens
from models.video.blocks import SingleVideoBlock, ZeroVideoBlock
from models.video.patches import PatchEmbed3D, time_table, unpatchify

if TYPE_CHECKING:
    from models.video.dit import VideoDiTConfig

# Of the label table and the MLPs of timestep and caption (DiT's, Open-Sora's).
EMBEDDING_STD = 0.02


class VideoDiT(nn.Module):
    """Predicts the noise (and the variance, if `learn_sigma`) in a noised clip.

    Computes in its parameters' dtype, or autocast's, and returns float32. With labels and full attention, its weights
    have the DiT's names, and but for the patch embedding's, which has one more axis, and the table of time, shapes.
    """

    operators = OPERATORS  # for `bench.flops`

    def __init__(self, arch: VideoDiTConfig) -> None:
        super().__init__()
        self.arch = arch
        self.out_channels = arch.out_channels
        self.null_label = arch.num_classes
        dim, is_single = arch.hidden_size, arch.block == "adaln-single"
        block = SingleVideoBlock if is_single else ZeroVideoBlock
        final_layer = AdaLNSingleFinalLayer if is_single else AdaLNFinalLayer
        captions = arch.conditioning == "captions"

        self.x_embedder = PatchEmbed3D(arch.patch, arch.in_channels, dim)
        self.t_embedder = TimestepEmbedder(dim, arch.frequency_embedding_size)
        self.y_embedder = (
            LabelEmbedder(arch.num_classes, dim)
            if arch.caption_shape is None
            else CaptionEmbedder(*arch.caption_shape, dim)
        )
        device, (frames, side, _) = self.x_embedder.proj.weight.device, arch.grid
        # Fixed, and parameters all the same: a file of weights shows which positions a network has.
        self.pos_embed = nn.Parameter(position_table(dim, side).to(device), requires_grad=False)
        if not arch.no_temporal_pos_emb:
            self.pos_embed_temporal = nn.Parameter(time_table(dim, frames).to(device), requires_grad=False)
        self.condition = SharedModulation(dim) if is_single else SumCondition(dim)
        sizes = (dim, arch.num_heads, arch.mlp_ratio, frames, arch.attention, arch.attends_to_time, captions)
        self.blocks = nn.ModuleList([block(*sizes) for _ in range(arch.depth)])
        self.final_layer = final_layer(dim, arch.patch_frames * arch.patch_size**2 * self.out_channels)
        self._initialize_weights()

    def _initialize_weights(self) -> None:
        """As the DiT's, with the patch embedding as a linear map."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        proj = self.x_embedder.proj
        nn.init.xavier_uniform_(proj.weight.flatten(1))
        if proj.bias is not None:
            nn.init.zeros_(proj.bias)
        for module in (self.t_embedder, self.y_embedder, self.condition, *self.blocks, self.final_layer):
            initialize: Any = getattr(module, "initialize", None)
            if initialize is not None:
                initialize(EMBEDDING_STD)

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """x (N, C, T, H, W), timesteps t (N,), labels (N,) int64 or captions -> (N, 2C, T, H, W), or (N, C, T, H, W).

        Raises:
            ValueError: clips of other sizes than the network's, or another kind or size of condition.
        """
        sizes = self.arch.input_shape
        if tuple(x.shape[1:]) != sizes:
            raise ValueError(f"x: clips of shape {tuple(x.shape[1:])}; accepted: {sizes}, (C, T, H, W)")
        tokens = self.x_embedder(x.to(self.x_embedder.proj.weight.dtype))
        tokens = self._with_positions(tokens)
        embedded, time = self._embedded(condition), self.t_embedder(t)
        captions = embedded if isinstance(embedded, CaptionTokens) else None
        # Where blocks attend to captions, their vectors are of the timestep alone.
        beside = torch.zeros_like(time) if isinstance(embedded, CaptionTokens) else embedded
        for_blocks, for_final = self.condition(time, beside)
        for block in self.blocks:
            tokens = block(tokens, for_blocks, captions)
        return unpatchify(self.final_layer(tokens, for_final), sizes[1:], self.arch.patch).float()

    def _with_positions(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T S, D) plus the table of space at every frame, and that of time at every place."""
        by_frame = tokens.unflatten(1, (self.arch.grid[0], -1)) + self.pos_embed.unsqueeze(1)
        if not self.arch.no_temporal_pos_emb:
            by_frame = by_frame + self.pos_embed_temporal.unsqueeze(2)
        return by_frame.flatten(1, 2)

    def _embedded(self, condition: Condition) -> Tensor | CaptionTokens:
        """Labels or pooled captions, (N, D), or captions of tokens."""
        shape = self.arch.caption_shape
        if isinstance(condition, Captions) is (shape is None):
            given, needed = ("captions", "labels") if shape is None else ("labels", f"captions of {shape}")
            raise ValueError(f"{given}: the network is told {needed} (its conditioning is {self.arch.conditioning})")
        embedded = self.y_embedder(condition)
        return embedded.pooled() if self.arch.conditioning == "pooled" else embedded
