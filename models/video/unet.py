"""A U-Net of clips: a 2-D U-Net with layers in time between its own, as video diffusion began. Imports no torch.

Ho et al. 2022 (arXiv 2204.03458) and its followers; the network, of diffusers' blocks, is in `unet_layers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.registry import Family
from models.video.sizes import check_positive

if TYPE_CHECKING:
    from models.video.unet_layers import UNet3D

# Channels of a level are those of the finest times 1, 2, 4, 4, ...
MOST_CHANNELS = 4


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
        """Places of a clip at the finest level."""
        return self.frames * self.input_size**2

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


def _check(config: UNet3DConfig) -> None:
    for name, value in vars(config).items():
        if name != "learn_sigma":
            check_positive(name, value)
        elif value not in (False, True):
            raise ValueError(f"learn_sigma: {value!r}; accepted: False, True")
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


FAMILY = Family(
    name="UNet3D",
    presets={"UNet3D-L": {"channels": 320}},
    options=UNet3DOptions,
    resolve=resolve,
    build=build,
)
