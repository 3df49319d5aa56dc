"""What networks share: embeddings of patches, timestep, class label and positions; and classifier-free guidance."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.of_timm import PatchEmbed as TimmPatchEmbed
from models.layers.of_timm import build_rotary_pos_embed


class PatchEmbed(TimmPatchEmbed):
    """timm's patch embedding, computed as one linear map of flattened patches.

    A convolution with kernel = stride is that linear map; as such it is faster at small patches and can be
    counted on the meta device, where a traced convolution raises.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, T, D), tokens in row-major order."""
        n, c, height, width = x.shape
        p = self.proj.weight.shape[-1]
        x = x.reshape(n, c, height // p, p, width // p, p)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(n, (height // p) * (width // p), c * p * p)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class BottleneckPatchEmbed(PatchEmbed):
    """Two linear maps without an activation between them: to `bottleneck` features, then to D (JiT, 2511.13720)."""

    def __init__(self, input_size: int, patch_size: int, in_channels: int, bottleneck: int, hidden_size: int) -> None:
        super().__init__(input_size, patch_size, in_channels, bottleneck, bias=False)
        self.expand = nn.Linear(bottleneck, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, T, D), tokens in row-major order."""
        return self.expand(super().forward(x))


class RMSNorm(nn.RMSNorm):
    """Computed in its scale's precision, as autocast has LayerNorm: it has no such rule for RMSNorm everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return super().forward(x.to(self.weight.dtype))


class TimestepEmbedder(nn.Module):
    """Sine-cosine features of the timestep through a two-layer MLP (paper Sec. 3.2; ADM's embedding)."""

    def __init__(self, hidden_size: int, frequency_embedding_size: int) -> None:
        super().__init__()
        self.frequency_embedding_size = frequency_embedding_size
        self.mlp = nn.Sequential(
            nn.Linear(frequency_embedding_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def initialize(self, std: float) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, std=std)

    def forward(self, t: Tensor) -> Tensor:
        """Timesteps (N,), integer or fractional -> (N, D)."""
        features = timestep_features(t, self.frequency_embedding_size)
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))


def timestep_features(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """(N,) -> (N, dim) float32: cosines, then sines, at frequencies max_period^(-i / (dim / 2))."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t[:, None].float() * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class LabelEmbedder(nn.Module):
    """A table of class embeddings; its last row is the null label of classifier-free guidance."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def initialize(self, std: float) -> None:
        nn.init.normal_(self.embedding_table.weight, std=std)

    def forward(self, y: Tensor) -> Tensor:
        """Labels (N,) int64 -> (N, D)."""
        return self.embedding_table(y)


class DropPath(nn.Module):
    """Leaves a branch out for a share of the images in training, and scales it up for the others (arXiv 1603.09382).

    Attributes:
        rate: the share.
        draws: (N,), uniform in 0 .. 1, one for each image of the next batch, from whoever trains the network; None: it
            draws them itself, from torch's own generator.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.draws: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        if not self.training or not self.rate:
            return branch
        draws = torch.rand(len(branch), device=branch.device) if self.draws is None else self.draws
        return branch * (draws >= self.rate).to(branch.dtype).div(1 - self.rate)[:, None, None]


def position_table(hidden_size: int, grid_size: int, base_size: int | None = None) -> Tensor:
    """Fixed 2-D sine-cosine table, (1, grid_size^2, D): columns in the first half of D, rows in the second.

    Each half is sines, then cosines, at frequencies 10000^(-i / (D / 4)) (paper Sec. 3.2: ViT frequency-based).
    Positions are 0, 1, ..., or as far from each other as to fill a grid of `base_size` (PixArt-alpha).
    """
    places = torch.arange(grid_size, dtype=torch.float64, device="cpu") * ((base_size or grid_size) / grid_size)
    frequencies = 10_000.0 ** -(torch.arange(hidden_size // 4, dtype=torch.float64, device="cpu") / (hidden_size / 4))
    angles = places[:, None] * frequencies  # (grid, D/4)
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, D/2)
    columns = axis[None, :, :].expand(grid_size, -1, -1)
    rows = axis[:, None, :].expand(-1, grid_size, -1)
    return torch.cat([columns, rows], dim=-1).reshape(1, grid_size**2, hidden_size).float()


def rotation_table(head_size: int, grid_size: int, base_size: int | None = None) -> Tensor:
    """Sines, then cosines, of the angles by which queries and keys are rotated, (grid_size^2, 2 head_size).

    Tokens in row-major order; half of a head's pairs of channels turn with the row, half with the column, at
    frequencies 10000^(-i / (head_size / 4)), as in JiT; `base_size` as for `position_table`.
    """
    grid, base = [grid_size, grid_size], [base_size, base_size] if base_size else None
    turned = build_rotary_pos_embed(
        grid, dim=head_size, in_pixels=False, ref_feat_shape=base, device=torch.device("cpu")
    )
    return torch.cat(turned, dim=-1)


def guided_channels(channels: int | None, in_channels: int) -> int:
    """How many noise channels are guided; None: all.

    Raises:
        ValueError: more than there are.
    """
    channels = in_channels if channels is None else channels
    if not 0 < channels <= in_channels:
        raise ValueError(f"channels: {channels} is not in 1 .. {in_channels}, the model's noise channels")
    return channels


def classifier_free(prediction: Tensor, scale: float) -> Tensor:
    """null + scale * (class - null), (N, ...), of predictions [class; null], (2N, ...) (Ho & Salimans 2022, Eq. 6)."""
    conditional, unconditional = prediction.chunk(2)
    return unconditional + scale * (conditional - unconditional)
