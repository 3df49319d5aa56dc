from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import LabelEmbedder, TimestepEmbedder
from models.registry import Family


@dataclass(frozen=True)
class Options:
    hidden_size: int = 16
    depth: int = 2
    in_channels: int = 1
    input_size: int = 8
    num_classes: int = 10


@dataclass(frozen=True)
class Config(Options):
    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.in_channels, self.input_size, self.input_size

    @property
    def out_channels(self) -> int:
        return self.in_channels

    @property
    def num_tokens(self) -> int:
        return self.input_size**2

    @property
    def columns(self) -> dict[str, Any]:
        return {"hidden_size": self.hidden_size, "depth": self.depth, "input_size": self.input_size}


class ConvNet(nn.Module):
    """Convolutions, and no attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.t_embedder = TimestepEmbedder(width, 64)
        self.y_embedder = LabelEmbedder(config.num_classes, width)
        self.first = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(config.depth)])
        self.last = nn.Conv2d(width, config.in_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        condition = (self.t_embedder(t) + self.y_embedder(labels))[:, :, None, None]
        x = self.first(x)
        for block in self.blocks:
            x = x + block(torch.nn.functional.silu(x + condition))
        return self.last(x)


FAMILY = Family(
    name="conv",
    presets={"small": {"hidden_size": 16}, "medium": {"hidden_size": 32}, "large": {"hidden_size": 64}},
    options=Options,
    resolve=lambda preset, options: Config(**{**vars(options), **preset}),
    build=ConvNet,
)
