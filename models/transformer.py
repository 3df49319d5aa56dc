"""The Diffusion Transformer (Peebles & Xie 2022, arXiv 2212.09748)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.conditions import Captions, Condition
from models.designs import PAPER_LAYERS, Layers
from models.layers import (
    BottleneckPatchEmbed,
    DropPath,
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    classifier_free,
    guided_channels,
    position_table,
    rotation_table,
)
from models.pixart.captions import OPERATORS, CaptionEmbedder, CaptionTokens

if TYPE_CHECKING:
    from models.dit import DiTConfig


class DiT(nn.Module):
    """Predicts the noise (and the variance, if `learn_sigma`) in a noised latent, for labels or for captions.

    Parameter names and shapes of the adaln-zero design equal the official release's, so that its checkpoints
    load with `strict=True`.
    """

    operators = OPERATORS  # for `bench.flops`

    def __init__(self, arch: DiTConfig) -> None:
        super().__init__()
        self.arch = arch
        self.out_channels = arch.out_channels
        self.null_label = arch.num_classes
        dim = arch.hidden_size
        condition, block, final_layer = arch.design.modules()

        patches = (arch.input_size, arch.patch_size, arch.in_channels)
        self.x_embedder = (
            PatchEmbed(*patches, dim)
            if arch.patch_bottleneck is None
            else BottleneckPatchEmbed(*patches, arch.patch_bottleneck, dim)
        )
        self.t_embedder = TimestepEmbedder(dim, arch.frequency_embedding_size)
        self.y_embedder = (
            LabelEmbedder(arch.num_classes, dim)
            if arch.caption_shape is None
            else CaptionEmbedder(*arch.caption_shape, dim)
        )
        device, grid = self.x_embedder.proj.weight.device, arch.input_size // arch.patch_size
        # Fixed, and parameters all the same: a file of weights shows which positions a network has.
        if arch.has_table:
            table = position_table(dim, grid, arch.position_base)
            self.pos_embed = nn.Parameter(table.to(device), requires_grad=False)
        if arch.has_rotation:
            table = rotation_table(dim // arch.num_heads, grid, arch.position_base)
            self.rotation = nn.Parameter(table.to(device), requires_grad=False)
        if arch.window_size is not None:
            sizes = [float(arch.window_of(i) or 0) for i in range(arch.depth)]
            self.windows = nn.Parameter(torch.tensor(sizes, device=device), requires_grad=False)
        if arch.class_tokens:
            self.class_positions = nn.Parameter(torch.empty(1, arch.class_tokens, dim))
        self.condition = condition(dim)
        self.condition_as_tokens = arch.design.condition_as_tokens
        sizes = (dim, arch.num_heads, arch.mlp_ratio)
        self.blocks = nn.ModuleList([block(*sizes, *_last_argument(arch.layers_of(i))) for i in range(arch.depth)])
        self.final_layer = final_layer(dim, arch.patch_size**2 * self.out_channels, *_last_argument(arch.layers))
        self._paths = [module for module in self.blocks.modules() if isinstance(module, DropPath)]
        self._initialize_weights()

    def _initialize_weights(self) -> None:
        """Xavier for linear maps, normal for embeddings; then as the design's modules say (Sec. 3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.flatten(1))
        # An MLP of features is no table: it starts as that of timesteps, as in PixArt-alpha.
        self.y_embedder.initialize(
            self.arch.timestep_init_std if self.arch.caption_tokens else self.arch.label_init_std
        )
        if self.arch.class_tokens:
            nn.init.normal_(self.class_positions, std=self.arch.label_init_std)
        for name, parameter in self.x_embedder.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        for module in (self.t_embedder, self.condition, *self.blocks, self.final_layer):
            initialize: Any = getattr(module, "initialize", None)
            if initialize is not None:
                initialize(self.arch.timestep_init_std)

    def forward(self, x: Tensor, t: Tensor, y: Condition) -> Tensor:
        """x (N, C, H, W), timesteps t (N,), labels y (N,) int64 or captions -> (N, 2C, H, W), or (N, C, H, W).

        Raises:
            ValueError: captions for a network that is told labels, or the other way around, or of another shape.
        """
        tokens = self.x_embedder(x)
        if self.arch.has_table:
            tokens = tokens + self.pos_embed
        num_tokens = tokens.shape[1]
        label = self._embedded(y)
        for_blocks, for_final = self.condition(self.t_embedder(t), label)
        if self.condition_as_tokens:
            joining = for_blocks.tokens if isinstance(for_blocks, CaptionTokens) else for_blocks
            tokens = torch.cat([tokens, joining], dim=1)
        rotation = self._rotation(tokens)
        for i, block in enumerate(self.blocks):
            if self.arch.class_tokens and i == self.arch.class_tokens_start:
                assert isinstance(label, Tensor)  # with captions they are refused
                tokens = torch.cat([tokens, label.unsqueeze(1) + self.class_positions], dim=1)
                rotation = self._rotation(tokens)
            tokens = block(tokens, for_blocks, *rotation)
        return self.unpatchify(self.final_layer(tokens[:, :num_tokens], for_final))

    def _embedded(self, condition: Condition) -> Tensor | CaptionTokens:
        """What blocks are told beside the time: the label or the mean of a caption, (N, D), or a caption's tokens."""
        needed = "labels" if self.arch.caption_shape is None else "captions"
        given = "captions" if isinstance(condition, Captions) else "labels"
        if given != needed:
            raise ValueError(
                f"{given}: the network is told {needed} (its caption_tokens are {self.arch.caption_tokens})"
            )
        embedded = self.y_embedder(condition)
        is_pooled = isinstance(embedded, CaptionTokens) and self.arch.design.captions == "pooled"
        return embedded.pooled() if is_pooled else embedded

    @property
    def training_draws(self) -> int:
        """Random numbers of an image that a forward pass in training takes (`use_draws`)."""
        return len(self._paths) if self.arch.drop_path else 0

    def use_draws(self, draws: Tensor) -> None:
        """Of the next forward pass in training: (N, training_draws), uniform in 0 .. 1.

        So what is dropped of an image is decided by whoever trains: not by ranks, nor by steps taken before.
        """
        for path, values in zip(self._paths, draws.unbind(1), strict=True):
            path.draws = values

    def _rotation(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """What a block gets beside tokens and condition: their rotation, (T, 2 D / num_heads), if there is one."""
        if not self.arch.has_rotation:
            return ()
        others = tokens.shape[1] - len(self.rotation)
        # Those that are no patches stay as they are, as does the patch of row 0 and column 0.
        return (torch.cat([self.rotation, self.rotation[:1].expand(others, -1)]),)

    def forward_with_cfg(
        self, x: Tensor, t: Tensor, y: Condition, cfg_scale: float, channels: int | None = 3
    ) -> Tensor:
        """Classifier-free guidance with the official signature: batch [half; half], labels or captions [class; null].

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


def _last_argument(layers: Layers) -> tuple[Layers, ...]:
    """Of a block or a final layer: a design of one's own may take none where all is as in the paper."""
    return () if layers == PAPER_LAYERS else (layers,)
