"""EasyAnimate's causal 3-D convolution: frame k of what it makes of a clip sees no later frame."""

from __future__ import annotations

from math import ceil
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.video.sizes import Sizes, triple

Mode = Literal["video", "one frame", "more frames"]


class CausalConv3d(nn.Conv3d):
    """A convolution over (N, C, T, H, W) whose weights are `nn.Conv3d`'s.

    Space is padded with zeros. How time is padded depends on `mode`, of which all padding precedes the convolution:
        "video": the first frame is repeated (k_t - 1) dilation_t times before the clip. Frame k of the result depends
            on the frames up to k stride_t alone.
        "one frame" and "more frames": zeros on both sides. One frame is convolved with the middle of the kernel; of a
            clip, the result depends on later frames, as many as there are zeros behind it. EasyAnimate reckons these
            from the kernel in time and from the dilation and stride of the width.

    Args:
        kernel_size, stride, dilation: one number, or three, (t, h, w).
        padding: of height and width; None: so that stride 1 keeps their size, `same_padding`.

    Raises:
        ValueError: a size that is no whole number, or too small.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sizes = 3,
        stride: int | Sizes = 1,
        padding: int | None = None,
        dilation: int | Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        kernel, strides, dilations = (
            triple(name, value)
            for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation))
        )
        if padding is not None and (isinstance(padding, bool) or not isinstance(padding, int) or padding < 0):
            raise ValueError(f"padding: {padding!r}; accepted: a whole number from 0, of height and width, or None")
        height, width = (
            same_padding(*axis) if padding is None else padding
            for axis in zip(kernel[1:], dilations[1:], strides[1:], strict=True)
        )
        super().__init__(
            in_channels, out_channels, kernel, strides, (0, height, width), dilations, groups=groups, bias=bias
        )
        self.mode: Mode = "video"
        self._before = (kernel[0] - 1) * dilations[0]
        self._both_sides = same_padding(kernel[0], dilations[2], strides[2])

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C_out, T', H', W')."""
        if self.mode == "video":
            before = input[:, :, :1].expand(-1, -1, self._before, -1, -1)
            return super().forward(torch.cat([before, input], dim=2))
        zeros = self._both_sides
        return super().forward(F.pad(input, (0, 0, 0, 0, zeros, zeros)))


def set_mode(network: nn.Module, mode: Mode) -> None:
    """Of every causal convolution in a network.

    Raises:
        ValueError: an unknown mode, or a network without any.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode: {mode!r}; accepted: {', '.join(get_args(Mode))}")
    convolutions = [module for module in network.modules() if isinstance(module, CausalConv3d)]
    if not convolutions:
        raise ValueError(f"mode: {type(network).__name__} has no causal convolution")
    for convolution in convolutions:
        convolution.mode = mode


def same_padding(kernel: int, dilation: int, stride: int) -> int:
    """ceil(((k - 1) dilation + 1 - stride) / 2), of one side of an axis; none where that is negative."""
    return max(0, ceil(((kernel - 1) * dilation + 1 - stride) / 2))
