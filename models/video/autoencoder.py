"""A small causal 3-D autoencoder of clips, of `CausalConv3d` (as EasyAnimate's and other video models' are).

It is for training on clips of one's own: 1 + n s frames, s the factor in time, become 1 + n frames of latents, so that
an image is a clip of one frame. Latent frame k sees the frames up to k s alone, and these, decoded, see latent frames
up to k alone: a clip goes on without any change of its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.video.causal_conv import CausalConv3d
from models.video.sizes import check_positive

# Bounds of the log variance, as of diffusers' autoencoders.
LOGVAR = (-30.0, 20.0)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an autoencoder.

    Attributes:
        in_channels: of the clip.
        latent_channels: of the latents.
        channels: of each level, the finest first.
        time_factors: how many frames become one between a level and the next, 1 or 2 each; rows and columns are halved.
        groups: of the norms.
    """

    in_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (64, 128, 256)
    time_factors: tuple[int, ...] = (2, 2)
    groups: int = 32

    @property
    def time_factor(self) -> int:
        return prod(self.time_factors)

    @property
    def space_factor(self) -> int:
        return 2 ** len(self.time_factors)


class Posterior(NamedTuple):
    """A Gaussian of latents: mean and log variance, (N, C, T, H, W) each."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """(N, C, T, H, W)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Tensor:
        """Divergence from the standard normal, summed over a clip, (N,), in nats."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class FrameNorm(nn.GroupNorm):
    """Group norm of every frame by itself: over a whole clip, earlier frames would see later ones."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same."""
        n, _, frames = input.shape[:3]
        normed = super().forward(input.transpose(1, 2).flatten(0, 1))
        return normed.unflatten(0, (n, frames)).transpose(1, 2)


class ResBlock(nn.Module):
    """Norm, SiLU, causal convolution, twice, beside a shortcut."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(groups, channels)
        self.conv1 = CausalConv3d(channels, out_channels)
        self.norm2 = FrameNorm(groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        self.shortcut = nn.Identity() if channels == out_channels else CausalConv3d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class Upsample(nn.Module):
    """Twice the rows and columns, and all frames but the first `time_factor` times; then a causal convolution."""

    def __init__(self, channels: int, time_factor: int) -> None:
        super().__init__()
        self.time_factor = time_factor
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 1 + n, H, W) -> (N, C, 1 + n time_factor, 2 H, 2 W)."""
        x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        # The first frame stands for itself, as an image does.
        return self.conv(x.repeat_interleave(self.time_factor, dim=2)[:, :, self.time_factor - 1 :])


class CausalAutoencoder(nn.Module):
    """Clips (N, C, 1 + n s, H, W) in [-1, 1] to latents and back; freshly initialised."""

    operators: ClassVar = {"aten::repeat_interleave": None, "aten::randn": None}  # cost no multiply-accumulates

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AutoencoderConfig()
        _check(config)
        first, last, groups = config.channels[0], config.channels[-1], config.groups
        steps = list(zip(config.channels, config.channels[1:], config.time_factors, strict=False))
        self.encoder = nn.Sequential(CausalConv3d(config.in_channels, first))
        for channels, out_channels, factor in steps:
            self.encoder.append(ResBlock(channels, channels, groups))
            self.encoder.append(CausalConv3d(channels, out_channels, stride=(factor, 2, 2)))
        self.encoder.extend([ResBlock(last, last, groups), FrameNorm(groups, last), nn.SiLU()])
        self.encoder.append(CausalConv3d(last, 2 * config.latent_channels))
        self.decoder = nn.Sequential(CausalConv3d(config.latent_channels, last), ResBlock(last, last, groups))
        for out_channels, channels, factor in reversed(steps):
            self.decoder.append(Upsample(channels, factor))
            self.decoder.append(ResBlock(channels, out_channels, groups))
        self.decoder.extend([FrameNorm(groups, first), nn.SiLU(), CausalConv3d(first, config.in_channels)])

    def encode(self, x: Tensor) -> Posterior:
        """Clips (N, C, 1 + n s, H, W) -> the posterior of their latents, (N, c, 1 + n, H / f, W / f).

        Raises:
            ValueError: other numbers of channels, frames, rows or columns.
        """
        config, shape = self.config, tuple(x.shape[1:])
        if len(shape) != 4 or shape[0] != config.in_channels:
            raise ValueError(f"x: clips of shape {shape}; accepted: {config.in_channels} channels, (C, T, H, W)")
        if (shape[1] - 1) % config.time_factor or not shape[1]:
            accepted = ", ".join(str(1 + n * config.time_factor) for n in range(3))
            raise ValueError(f"x: {shape[1]} frames; accepted: {accepted}, ...")
        if shape[2] % config.space_factor or shape[3] % config.space_factor:
            raise ValueError(f"x: {shape[2]} x {shape[3]} pixels; accepted: multiples of {config.space_factor}")
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR))

    def decode(self, latents: Tensor) -> Tensor:
        """(N, c, 1 + n, h, w) -> clips (N, C, 1 + n s, f h, f w).

        Raises:
            ValueError: another number of channels.
        """
        shape = tuple(latents.shape[1:])
        if len(shape) != 4 or shape[0] != self.config.latent_channels:
            accepted = self.config.latent_channels
            raise ValueError(f"latents: of shape {shape}; accepted: {accepted} channels, (C, T, H, W)")
        return self.decoder(latents)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Posterior]:
        """A clip decoded again from a sample of its posterior, and the posterior, for a loss of both."""
        posterior = self.encode(x)
        return self.decode(posterior.sample(generator)), posterior


def _check(config: AutoencoderConfig) -> None:
    for name in ("in_channels", "latent_channels", "groups"):
        check_positive(name, getattr(config, name))
    if len(config.channels) != len(config.time_factors) + 1:
        raise ValueError(
            f"time_factors: {len(config.time_factors)} between {len(config.channels)} levels of channels; accepted: "
            f"{len(config.channels) - 1}"
        )
    for channels in config.channels:
        check_positive("channels", channels)
        if channels % config.groups:
            raise ValueError(f"groups: {config.groups} does not divide channels {channels}")
    for factor in config.time_factors:
        if factor not in (1, 2):
            raise ValueError(f"time_factors: {factor!r}; accepted: 1, 2")
