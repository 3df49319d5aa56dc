"""What a U-Net costs, in closed form: what `bench.flops` counts operator by operator. Imports no torch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from models.registry import Count

if TYPE_CHECKING:
    from models.unet.config import UNetConfig


def count(config: UNetConfig) -> Count:
    """MACs of one forward pass of one image, and parameters."""
    network = _Network(config)
    return Count(sum(network.macs.values()), network.parameters)


def macs_by_part(config: UNetConfig) -> dict[str, int]:
    """Part -> multiply-accumulates: convolutions (by what for), linear maps, attention products, norms."""
    return dict(_Network(config).macs)


class _Network:
    """Its layers one after the other, added up: `macs` by part, and `parameters`."""

    def __init__(self, config: UNetConfig) -> None:
        self.config, self.macs, self.parameters = config, Counter[str](), 0
        self._add_embeddings()
        widths, sides, attends = config.widths, config.sides, config.attends
        last = len(widths) - 1
        self._convolution("first and last convolution", config.in_channels, widths[0], sides[0])
        width, skips = widths[0], [widths[0]]
        for level, side in enumerate(sides):
            for _ in range(config.res_blocks):
                self._residual(width, widths[level], side)
                self._attention_if(attends[level], widths[level], side)
                width = widths[level]
                skips.append(width)
            if level < last:
                self._resampling(width, side, side // 2)
                skips.append(width)
        self._residual(width, width, sides[last])
        self._attention_if(True, width, sides[last])
        self._residual(width, width, sides[last])
        for level in reversed(range(last + 1)):
            for _ in range(config.res_blocks + 1):
                self._residual(width + skips.pop(), widths[level], sides[level])
                self._attention_if(attends[level], widths[level], sides[level])
                width = widths[level]
            if level:
                self._resampling(width, sides[level], 2 * sides[level])
        self._norm(width, sides[0] ** 2)
        self._convolution("first and last convolution", width, config.out_channels, sides[0])

    def _add_embeddings(self) -> None:
        config, size = self.config, self.config.embedding_size
        self._linear("embedders", config.channels, size)
        self._linear("embedders", size, size)
        self.parameters += (config.num_classes + 1) * (size if config.design == "adm" else config.label_size)

    def _residual(self, width: int, out: int, side: int, before: int | None = None) -> None:
        """`before`: the side that it comes from, where the block changes it, between its first norm and convolution."""
        part = "convolutions of residual blocks" if before is None else "halving and doubling the side"
        self._norm(width, (before or side) ** 2)
        self._convolution(part, width, out, side)
        told = 2 * out if self.config.design == "adm" else out
        self._linear("timestep in residual blocks", self.config.embedding_size, told)
        self._norm(out, side**2)
        self._convolution(part, out, out, side)
        if width != out:
            self._convolution("shortcuts of residual blocks", width, out, side, kernel=1)

    def _resampling(self, width: int, before: int, side: int) -> None:
        if self.config.design == "adm":
            self._residual(width, width, side, before)
        else:
            self._convolution("halving and doubling the side", width, width, side)

    def _attention_if(self, attends: bool, width: int, side: int) -> None:
        if attends and self.config.design == "adm":
            self._norm(width, side**2)
            self._attention(width, side**2, bias=True)
        elif attends:
            self._transformer(width, side**2)

    def _transformer(self, width: int, tokens: int) -> None:
        """Group norm, linear map, self-attention, attention to the label's token, gated MLP, linear map."""
        self._norm(width, tokens)
        for _ in range(2):
            self._linear("linear maps around transformers", width, width, tokens)
        for _ in range(3):
            self._norm(width, tokens)
        self._attention(width, tokens, bias=False)
        part, label = "attention to the label", self.config.label_size
        self._linear(part, width, width, tokens, bias=False)
        self._linear(part, label, 2 * width, bias=False)
        self.macs[part] += 2 * tokens * width
        self._linear(part, width, width, tokens)
        self._linear("MLPs of transformers", width, 8 * width, tokens)
        self._linear("MLPs of transformers", 4 * width, width, tokens)

    def _attention(self, width: int, tokens: int, bias: bool) -> None:
        """`bias`: whether the maps to queries, keys and values have one."""
        self._linear("linear maps of self-attention", width, 3 * width, tokens, bias)
        self.macs["products of self-attention"] += 2 * tokens**2 * width
        self._linear("linear maps of self-attention", width, width, tokens)

    def _convolution(self, part: str, width: int, out: int, side: int, kernel: int = 3) -> None:
        self._linear(part, kernel**2 * width, out, side**2)

    def _linear(self, part: str, features: int, out: int, places: int = 1, bias: bool = True) -> None:
        self.macs[part] += features * out * places
        self.parameters += features * out + (out if bias else 0)

    def _norm(self, width: int, places: int) -> None:
        self.macs["norms"] += width * places
        self.parameters += 2 * width
