"""A tiny family that is told captions: the masked mean of their tokens beside the timestep. And a recipe of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recipes import content
from torch import Tensor, nn

from bench.recipe import Recipe, parse_recipe
from models.conditions import Captions
from models.registry import Family


@dataclass(frozen=True)
class Options:
    tokens: int = 6
    features: int = 32
    width: int = 32
    side: int = 8
    channels: int = 1
    learn_sigma: bool = True


@dataclass(frozen=True)
class Config:
    tokens: int
    features: int
    width: int
    side: int
    channels: int
    learn_sigma: bool
    num_classes: int = 1
    depth: int = 1
    num_tokens: int = 1

    @property
    def caption_shape(self) -> tuple[int, int]:
        return self.tokens, self.features

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.channels, self.side, self.side

    @property
    def out_channels(self) -> int:
        return self.channels * (1 + self.learn_sigma)

    @property
    def columns(self) -> dict[str, Any]:
        return {"hidden_size": self.width, "depth": 1, "input_size": self.side}


class Network(nn.Module):
    operators: ClassVar = {"aten::sum": None, "aten::__or__": None}

    def __init__(self, config: Config) -> None:
        super().__init__()
        pixels, width = config.channels * config.side**2, config.width
        self.arch = config
        self.null = nn.Parameter(torch.randn(config.tokens, config.features))
        self.said = nn.Linear(config.features, width)
        self.time = nn.Linear(2, width)
        self.first = nn.Linear(pixels, width)
        self.last = nn.Linear(width, pixels // config.channels * config.out_channels)

    def forward(self, x: Tensor, t: Tensor, condition: Captions) -> Tensor:
        dropped = condition.dropped[:, None]
        tokens = torch.where(dropped.unsqueeze(2), self.null, condition.embeddings)
        mask = (condition.mask | dropped).unsqueeze(2)
        mean = torch.where(mask, self.said(tokens), 0).sum(1) / mask.sum(1)
        angle = t.float()[:, None] / 1000
        time = self.time(torch.cat([angle.cos(), angle.sin()], dim=1))
        hidden = torch.nn.functional.silu(self.first(x.flatten(1)) + time) * (1 + mean)
        return self.last(hidden).unflatten(1, (self.arch.out_channels, *x.shape[2:]))


def resolve(preset: dict[str, Any], options: Options) -> Config:
    return Config(**vars(options))


FAMILY = Family("captions", {"small": {}}, Options, resolve, Network)


MODEL = "captions_family:FAMILY"


def captioned(changes: dict[str, Any] | None = None) -> Recipe:
    """The tiny recipe on digits with captions, with dotted keys set."""
    base = content({"model": {"name": MODEL}, "data": {"name": "digits-captions"}})
    for key, value in (changes or {}).items():
        section, _, name = key.rpartition(".")
        if not section:
            base[name] = value
        else:
            base.setdefault(section, {})[name] = value
    return parse_recipe(base, "recipe.yaml")
