"""Clips cut into patches of time and space, and put together again; the fixed tables of their positions.

Open-Sora 1.0's: padded with zeros at the end of every axis up to whole patches, and cropped again at the other side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.video.sizes import Sizes, grid_of, triple


def padded(x: Tensor, patch: Sizes) -> Tensor:
    """(N, C, T, H, W) with zeros at the end of W, H and T, up to whole patches."""
    missing = [-size % side for size, side in zip(x.shape[2:], patch, strict=True)]
    if not any(missing):
        return x
    t, h, w = missing
    return F.pad(x, (0, w, 0, h, 0, t))


def unpatchify(tokens: Tensor, sizes: Sizes, patch: Sizes) -> Tensor:
    """Tokens (N, T' H' W', t h w C) of clips of `sizes` -> (N, C, T, H, W), without what `padded` added."""
    (t, h, w), (time, rows, columns) = patch, grid_of(sizes, patch)
    x = tokens.reshape(len(tokens), time, rows, columns, t, h, w, -1)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(tokens), -1, time * t, rows * h, columns * w)
    return x[:, :, : sizes[0], : sizes[1], : sizes[2]]


class PatchEmbed3D(nn.Module):
    """A convolution whose kernel is its stride, computed as one linear map of flattened patches, as `PatchEmbed` is.

    Args:
        patch_size: (t, h, w), or one number for all three.
        in_chans: channels of the clip.
        embed_dim: channels of a patch, D.
        norm_layer: makes a norm over these, `norm_layer(D)`; None: there is none.
        flatten: to (N, T' H' W', D), frame by frame in row-major order; else the patches stay (N, D, T', H', W').

    Raises:
        ValueError: a patch without extent.
    """

    def __init__(
        self,
        patch_size: int | Sizes = (2, 4, 4),
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        flatten: bool = True,
    ) -> None:
        super().__init__()
        self.patch_size = triple("patch_size", patch_size)
        self.flatten = flatten
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=self.patch_size, stride=self.patch_size)
        self.norm = None if norm_layer is None else norm_layer(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, T' H' W', D), or (N, D, T', H', W')."""
        t, h, w = self.patch_size
        x = padded(x, self.patch_size)
        n, c, time, height, width = x.shape
        grid = (time // t, height // h, width // w)
        x = x.reshape(n, c, grid[0], t, grid[1], h, grid[2], w)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(n, grid[0] * grid[1] * grid[2], c * t * h * w)
        tokens = F.linear(x, self.proj.weight.flatten(1), self.proj.bias)
        if self.norm is not None:
            tokens = self.norm(tokens)
        return tokens if self.flatten else tokens.transpose(1, 2).reshape(n, -1, *grid)


def time_table(hidden_size: int, frames: int) -> Tensor:
    """Fixed sine-cosine table of frames, (1, T, D): sines, then cosines, at frequencies 10000^(-i / (D / 2))."""
    frequencies = 10_000.0 ** -(torch.arange(hidden_size // 2, dtype=torch.float64, device="cpu") / (hidden_size / 2))
    angles = torch.arange(frames, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float().unsqueeze(0)
