"""The diffusion U-Net, of diffusers' blocks, as ADM and LDM have it (see `config.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import (
    UNetMidBlock2D,
    UNetMidBlock2DCrossAttn,
    get_down_block,
    get_up_block,
)
from torch import Tensor, nn

from models.layers import timestep_features

if TYPE_CHECKING:
    from models.unet.config import UNetConfig

EPSILON = 1e-5  # of group norms, but those before transformers


class UNet(nn.Module):
    """Predicts the noise (and the variance, if `learn_sigma`) in a noised image or latent.

    Parameter names and shapes equal those of diffusers' `UNet2DModel` (design adm) and `UNet2DConditionModel` (ldm,
    where the label's token is made outside).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.is_token = config.design == "ldm"  # the label
        widths, size = config.widths, config.embedding_size
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(config.channels, size)
        self.class_embedding = nn.Embedding(config.num_classes + 1, config.label_size if self.is_token else size)
        self.down_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            self.down_blocks.append(
                get_down_block(
                    self._kind("Down", level),
                    num_layers=config.res_blocks,
                    in_channels=widths[max(level - 1, 0)],
                    out_channels=width,
                    add_downsample=level < len(widths) - 1,
                    downsample_type="resnet",
                    downsample_padding=1,
                    **self._of_level(width),
                )
            )
        self.mid_block = self._middle(widths[-1])
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            self.up_blocks.append(
                get_up_block(
                    self._kind("Up", level),
                    num_layers=config.res_blocks + 1,
                    in_channels=widths[max(level - 1, 0)],
                    out_channels=widths[level],
                    prev_output_channel=widths[min(level + 1, len(widths) - 1)],
                    add_upsample=level > 0,
                    upsample_type="resnet",
                    **self._of_level(widths[level]),
                )
            )
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0], EPSILON)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self._start_at_zero()

    def _kind(self, way: str, level: int) -> str:
        """The name of diffusers' block."""
        attends = self.config.attends[level]
        if self.is_token:
            return f"{'CrossAttn' if attends else ''}{way}Block2D"
        return f"Attn{way}Block2D" if attends else f"Resnet{way}sampleBlock2D"

    def _of_level(self, width: int) -> dict[str, Any]:
        config, heads = self.config, self.config.heads(width)
        return {
            "temb_channels": config.embedding_size,
            "resnet_eps": EPSILON,
            "resnet_act_fn": "silu",
            "resnet_groups": config.groups,
            "resnet_time_scale_shift": "default" if self.is_token else "scale_shift",
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "cross_attention_dim": config.label_size,
        }

    def _middle(self, width: int) -> nn.Module:
        shape = self._of_level(width)
        heads, size, label = (
            shape.pop(key) for key in ("num_attention_heads", "attention_head_dim", "cross_attention_dim")
        )
        if self.is_token:
            return UNetMidBlock2DCrossAttn(
                in_channels=width, num_attention_heads=heads, cross_attention_dim=label, **shape
            )
        return UNetMidBlock2D(in_channels=width, attention_head_dim=size, attn_groups=self.config.groups, **shape)

    def _start_at_zero(self) -> None:
        """The last map of every residual block and attention, and of the network: each begins as the identity."""
        for module in self.modules():
            last = {ResnetBlock2D: "conv2", Transformer2DModel: "proj_out", UNet: "conv_out"}.get(type(module))
            if last is not None:
                _zero(getattr(module, last))
            elif isinstance(module, Attention) and not self.is_token:  # a transformer's are within it
                to_out: Any = module.to_out
                _zero(to_out[0])

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x (N, C, H, W), timesteps (N,), labels (N,) int64 -> (N, C_out, H, W)."""
        told = self.time_embedding(timestep_features(t, self.config.channels).to(self.conv_in.weight.dtype))
        label = self.class_embedding(y)
        token = {"encoder_hidden_states": label[:, None]} if self.is_token else {}
        if not self.is_token:
            told = told + label
        x = self.conv_in(x)
        skips = [x]
        for block, attends in zip(self.down_blocks, self.config.attends, strict=True):
            x, more = block(x, told, **(token if attends else {}))
            skips += more
        x = self.mid_block(x, told, **token)
        for block, attends in zip(self.up_blocks, reversed(self.config.attends), strict=True):
            number = self.config.res_blocks + 1
            x = block(x, tuple(skips[-number:]), told, **(token if attends else {}))
            del skips[-number:]
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def _zero(layer: Any) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
