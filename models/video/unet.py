"""A U-Net of clips: a 2-D U-Net with layers in time between its own, as video diffusion began. Imports no torch.

Ho et al. 2022 (arXiv 2204.03458) and its followers; the network, of diffusers' blocks, is in `unet_layers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from models.registry import Count, Family
from models.video.sizes import check_positive

if TYPE_CHECKING:
    from models.video.unet_layers import UNet3D

# Channels of a level are those of the finest times 1, 2, 4, 4, ...
MOST_CHANNELS = 4


class Step(NamedTuple):
    """Of the way through a network: a layer, the convolution that halves the sides, or the one that doubles them.

    `channels` go in, the skipped ones of a way up among them; `level` is that of what comes out.
    """

    kind: Literal["layer", "halve", "double"]
    channels: int
    level: int


@dataclass(frozen=True)
class UNet3DOptions:
    """What a recipe may say of a U-Net of clips beside its name; what is None: the preset's, else `UNet3DConfig`'s.

    Attributes:
        channels: of the finest level; the next have 2, 4, 4, ... times as many.
        levels: of resolution, each half of that before it.
        layers: residual blocks of a level on the way down; on the way up there is one more.
        attention_size: the levels whose frames have at most this many latent pixels a side have attention, within
            frames and across them.
        head_size: channels of a head of attention.
        groups: of the norms.
        frames: T of a clip, in latent frames; `input_size`: latent pixels a side.
    """

    channels: int | None = None
    levels: int | None = None
    layers: int | None = None
    attention_size: int | None = None
    head_size: int | None = None
    groups: int | None = None
    frames: int | None = None
    input_size: int | None = None
    in_channels: int | None = None
    num_classes: int | None = None
    learn_sigma: bool | None = None


@dataclass(frozen=True)
class UNet3DConfig:
    """Everything that fixes a U-Net's shape."""

    channels: int
    levels: int = 4
    layers: int = 2
    attention_size: int = 32
    head_size: int = 64
    groups: int = 32
    frames: int = 16
    input_size: int = 32
    in_channels: int = 4
    num_classes: int = 1000
    learn_sigma: bool = True

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of x."""
        return self.in_channels, self.frames, self.input_size, self.input_size

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def num_tokens(self) -> int:
        """Places of a clip at the finest level that has attention, else at the coarsest."""
        sides = [self.input_size // 2**level for level in range(self.levels)]
        attending = [side for level, side in enumerate(sides) if self.has_attention(level)]
        return self.frames * max(attending, default=sides[-1]) ** 2

    @property
    def depth(self) -> int:
        """Residual blocks one after the other."""
        return self.levels * (2 * self.layers + 1) + 2

    @property
    def columns(self) -> dict[str, Any]:
        """What tables say of it beside its name and cost."""
        return {
            "hidden_size": self.channels,
            **{name: getattr(self, name) for name in ("depth", "input_size", "frames")},
        }

    @property
    def embedding_size(self) -> int:
        """Features of the embedded timestep and label."""
        return 4 * self.channels

    @property
    def down(self) -> tuple[Step, ...]:
        """From the finest level to the coarsest; what comes out of each is skipped to the way up."""
        steps: list[Step] = []
        for level in range(self.levels):
            before = self.width(level - 1) if level else self.channels
            if level:
                steps.append(Step("halve", before, level))
            steps += [Step("layer", self.width(level) if i else before, level) for i in range(self.layers)]
        return tuple(steps)

    @property
    def middle(self) -> tuple[Step, ...]:
        level = self.levels - 1
        return (Step("layer", self.width(level), level),) * 2

    @property
    def up(self) -> tuple[Step, ...]:
        """From the coarsest level to the finest; a layer takes what was skipped last as well."""
        skipped = [self.channels, *(self.width_after(step) for step in self.down)]
        steps, width = [], self.width(self.levels - 1)
        for level in reversed(range(self.levels)):
            for _ in range(self.layers + 1):
                steps.append(Step("layer", width + skipped.pop(), level))
                width = self.width(level)
            if level:
                steps.append(Step("double", width, level - 1))
        return tuple(steps)

    def width_after(self, step: Step) -> int:
        """Channels that come out of a step."""
        return self.width(step.level) if step.kind == "layer" else step.channels

    def width(self, level: int) -> int:
        """Channels of a level, 0 the finest."""
        return self.channels * min(2**level, MOST_CHANNELS)

    def has_attention(self, level: int) -> bool:
        return self.input_size // 2**level <= self.attention_size


def resolve(preset: Mapping[str, Any], options: UNet3DOptions) -> UNet3DConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: missing channels, or numbers that do not fit together.
    """
    shape = {**preset, **{name: value for name, value in vars(options).items() if value is not None}}
    if "channels" not in shape:
        raise ValueError("model 'UNet3D' has no preset sizes: give channels")
    config = UNet3DConfig(**shape)
    _check(config)
    return config


# A file of anybody's may say that it has a hundred million; each is looked at by itself.
MOST = {"levels": 30, "layers": 1000}


def _check(config: UNet3DConfig) -> None:
    for name, value in vars(config).items():
        if name != "learn_sigma":
            check_positive(name, value)
        elif value not in (False, True):
            raise ValueError(f"learn_sigma: {value!r}; accepted: False, True")
    for name, most in MOST.items():
        if getattr(config, name) > most:
            raise ValueError(f"{name}: {getattr(config, name)}; accepted: 1 to {most}")
    if config.input_size % 2 ** (config.levels - 1):
        accepted = 2 ** (config.levels - 1)
        raise ValueError(
            f"input_size: {config.input_size} with levels {config.levels}; accepted: multiples of {accepted}"
        )
    if config.channels % config.groups:
        raise ValueError(f"groups: {config.groups} does not divide channels {config.channels}")
    for level in range(config.levels):
        if config.has_attention(level) and config.width(level) % config.head_size:
            raise ValueError(
                f"head_size: {config.head_size} does not divide the {config.width(level)} channels of a level"
            )


def build(config: UNet3DConfig) -> UNet3D:
    """A U-Net with freshly initialised weights."""
    from models.video.unet_layers import UNet3D

    return UNet3D(config)


def count(config: UNet3DConfig) -> Count:
    """In closed form what `bench.flops` counts operator by operator."""
    embedded, frames = config.embedding_size, config.frames
    width, out, pixels = config.channels, config.out_channels, frames * config.input_size**2
    macs = (width + embedded) * embedded + (9 * (config.in_channels + out) + 1) * width * pixels
    parameters = (width + embedded + 2) * embedded + (config.num_classes + 1) * embedded
    parameters += (9 * config.in_channels + 1) * width + 2 * width + (9 * width + 1) * out
    for step in (*config.down, *config.middle, *config.up):
        side = config.input_size // 2**step.level
        cost = _layer(config, step, side) if step.kind == "layer" else _resampling(step.channels, frames * side**2)
        macs, parameters = macs + cost.macs, parameters + cost.parameters
    return Count(macs, parameters)


def _layer(config: UNet3DConfig, step: Step, side: int) -> Count:
    before, width, frames = step.channels, config.width(step.level), config.frames
    places, square = frames * side**2, width**2
    # The residual block: two norms, two convolutions, the shortcut; scale and shift of every frame.
    shortcut = before * width if before != width else 0
    convolutions = 9 * before * width + 9 * square + shortcut
    macs = (before + width + convolutions) * places + 2 * config.embedding_size * width * frames
    parameters = 2 * (before + width) + convolutions + 2 * width + (width if shortcut else 0)
    parameters += 2 * (config.embedding_size + 1) * width
    # Four convolutions in time, each with a norm.
    macs += 4 * (width + 3 * square) * places
    parameters += 4 * (3 * width + 3 * square)
    if config.has_attention(step.level):
        # Within frames: a norm, four maps.
        macs += (width + 4 * square + 2 * side**2 * width) * places
        parameters += 2 * width + 4 * (square + width)
        # Across them: a norm, a map before and after, and between these three norms, two attentions and a gated MLP.
        macs += (4 * width + 2 * square + 2 * (4 * square + 2 * frames * width) + 12 * square) * places
        parameters += 8 * width + 2 * (square + width) + 2 * (4 * square + width) + 12 * square + 9 * width
    return Count(macs, parameters)


def _resampling(width: int, places: int) -> Count:
    """A convolution of what is halved, or has been doubled."""
    return Count(9 * width**2 * places, 9 * width**2 + width)


# For clips of digits, with about as many multiply-accumulates as the video DiTs for them.
DIGITS = {
    **{"channels": 4, "levels": 3, "layers": 1, "attention_size": 4, "head_size": 8, "groups": 4},
    **{"frames": 8, "input_size": 12, "in_channels": 1, "num_classes": 10},
}

FAMILY = Family(
    name="UNet3D",
    presets={"UNet3D-L": {"channels": 320}, "UNet3D-digits": DIGITS},
    options=UNet3DOptions,
    resolve=resolve,
    build=build,
    count=count,
)
