"""The U-Net of clips: diffusers' residual blocks and attention of frames, each followed by diffusers' layer in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn

from models.layers import LabelEmbedder, TimestepEmbedder

if TYPE_CHECKING:
    from models.video.unet import Step, UNet3DConfig

EPS = 1e-5
EMBEDDING_STD = 0.02


class Layer(nn.Module):
    """A residual block and a convolution in time; perhaps attention within frames, and across them at every place.

    The timestep and label scale and shift the residual block's second norm (ADM's, arXiv 2105.05233 Sec. 3.1).
    """

    def __init__(self, config: UNet3DConfig, step: Step) -> None:
        super().__init__()
        channels, groups = config.width(step.level), config.groups
        heads = channels // config.head_size
        self.resnet = ResnetBlock2D(
            in_channels=step.channels,
            out_channels=channels,
            temb_channels=config.embedding_size,
            groups=groups,
            eps=EPS,
            time_embedding_norm="scale_shift",
        )
        self.conv_in_time = TemporalConvLayer(channels, norm_num_groups=groups)
        self.attention = self.attention_in_time = None
        if config.has_attention(step.level):
            self.attention = Attention(
                channels,
                heads=heads,
                dim_head=config.head_size,
                norm_num_groups=groups,
                eps=EPS,
                bias=True,
                residual_connection=True,
            )
            self.attention_in_time = TransformerTemporalModel(
                heads, config.head_size, in_channels=channels, norm_num_groups=groups
            )

    def forward(self, x: Tensor, embedded: Tensor, frames: int) -> Tensor:
        """x (N T, C, H, W), embedded (N T, E) -> (N T, C', H, W)."""
        x = self.conv_in_time(self.resnet(x, embedded), num_frames=frames)
        if self.attention is not None and self.attention_in_time is not None:
            x = self.attention_in_time(self.attention(x), num_frames=frames, return_dict=False)[0]
        return x


class UNet3D(nn.Module):
    """Predicts the noise (and the variance, if `learn_sigma`) in a noised clip; returns float32."""

    def __init__(self, arch: UNet3DConfig) -> None:
        super().__init__()
        self.arch = arch
        self.out_channels = arch.out_channels
        self.null_label = arch.num_classes
        first, embedded = arch.channels, arch.embedding_size
        self.t_embedder = TimestepEmbedder(embedded, first)
        self.y_embedder = LabelEmbedder(arch.num_classes, embedded)
        self.conv_in = nn.Conv2d(arch.in_channels, first, 3, padding=1)

        def built(step: Step) -> nn.Module:
            if step.kind == "layer":
                return Layer(arch, step)
            resampling = Downsample2D if step.kind == "halve" else Upsample2D
            return resampling(step.channels, use_conv=True, name="op")

        self.down, self.middle, self.up = (nn.ModuleList(map(built, way)) for way in (arch.down, arch.middle, arch.up))
        self.norm_out = nn.GroupNorm(arch.groups, first, eps=EPS)
        self.conv_out = nn.Conv2d(first, self.out_channels, 3, padding=1)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=EMBEDDING_STD)
        for parameter in self.conv_out.parameters():  # as ADM's and the DiT's last map
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """x (N, C, T, H, W), timesteps t (N,), labels (N,) int64 -> (N, 2C, T, H, W), or (N, C, T, H, W).

        Raises:
            ValueError: clips of other sizes than the network's.
        """
        sizes = self.arch.input_shape
        if tuple(x.shape[1:]) != sizes:
            raise ValueError(f"x: clips of shape {tuple(x.shape[1:])}; accepted: {sizes}, (C, T, H, W)")
        frames = self.arch.frames
        condition = self.t_embedder(t) + self.y_embedder(labels)
        embedded = condition.unsqueeze(1).expand(-1, frames, -1).flatten(0, 1)  # every frame's
        x = self.conv_in(x.to(self.conv_in.weight.dtype).transpose(1, 2).flatten(0, 1))
        skips = [x]
        for module in self.down:
            x = module(x, embedded, frames) if isinstance(module, Layer) else module(x)
            skips.append(x)
        for module in self.middle:
            x = module(x, embedded, frames)
        for module in self.up:
            is_layer = isinstance(module, Layer)
            x = module(torch.cat([x, skips.pop()], dim=1), embedded, frames) if is_layer else module(x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        return x.unflatten(0, (-1, frames)).transpose(1, 2).float()
