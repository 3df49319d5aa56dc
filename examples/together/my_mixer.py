from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.layers import LabelEmbedder, TimestepEmbedder
from models.registry import Family


@dataclass(frozen=True)
class Options:
    hidden_size: int = 32
    depth: int = 3
    patch_size: int = 2
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
        return (self.input_size // self.patch_size) ** 2

    @property
    def columns(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("hidden_size", "depth", "patch_size", "input_size")}


def resolve(preset: dict[str, Any], options: Options) -> Config:
    config = Config(**{**vars(options), **preset})
    if config.input_size % config.patch_size:
        raise ValueError(f"patch_size: {config.patch_size} does not divide the input size, {config.input_size}")
    return config


class MixerBlock(nn.Module):
    """An MLP over the tokens, then one over the channels (MLP-Mixer, arXiv 2105.01601 Sec. 2): no attention."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(
            nn.Linear(num_tokens, 2 * num_tokens), nn.GELU(), nn.Linear(2 * num_tokens, num_tokens)
        )
        self.channels = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x + c).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """x (N, C, S, S), t (N,), labels (N,) -> (N, C, S, S)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, patch = config.hidden_size, config.patch_size
        self.t_embedder = TimestepEmbedder(dim, 64)
        self.y_embedder = LabelEmbedder(config.num_classes, dim)
        self.cut = nn.PixelUnshuffle(patch)
        self.first = nn.Linear(config.in_channels * patch**2, dim)
        self.blocks = nn.ModuleList([MixerBlock(config.num_tokens, dim) for _ in range(config.depth)])
        self.last = nn.Linear(dim, config.in_channels * patch**2)
        self.join = nn.PixelShuffle(patch)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        c = (self.t_embedder(t) + self.y_embedder(labels)).unsqueeze(1)
        patches = self.cut(x)
        tokens = self.first(patches.flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, c)
        return self.join(self.last(tokens).transpose(1, 2).unflatten(2, patches.shape[2:]))


FAMILY = Family(
    name="mixer",
    presets={"small": {"hidden_size": 24}, "medium": {"hidden_size": 48}, "large": {"hidden_size": 64, "depth": 6}},
    options=Options,
    resolve=resolve,
    build=Mixer,
)
