"""The U-Net family: presets of ADM, LDM and of digits, configuration. Imports no torch.

ADM: Dhariwal & Nichol 2021, arXiv 2105.05233, Tables 4 and 11 and its published settings. LDM: Rombach et al. 2021,
arXiv 2112.10752, Table 12 and its published settings. The network is in `network.py`, its cost in `cost.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from models.registry import Family
from models.unet.cost import count

if TYPE_CHECKING:
    from models.unet.network import UNet

Design = Literal["adm", "ldm"]
# Of the levels that attend, as ADM has them.
SIDES = (32, 16, 8)
LARGEST = 1000  # multiplier of the channels


@dataclass(frozen=True)
class UNetOptions:
    """What a recipe may say of a U-Net beside its name; what is None comes from the preset.

    Attributes:
        design: "adm": the label is added to the timestep, which scales and shifts what is normalised; residual blocks
            halve and double the sides. "ldm": the label is a token that spatial transformers attend to, the timestep is
            added; convolutions halve and double the sides.
        image_size: pixels a side; the side of x is image_size / downsampling unless `input_size` says it.
        in_channels: channels C of x.
        num_classes: labels 0 .. num_classes - 1; label num_classes is the null label of guidance. Default: 1000.
        learn_sigma: predict 2C channels (noise and variance) instead of C.
        channels: of the first level, times `multipliers`; the timestep's embedding has four times as many.
        multipliers: of the channels, one a level; each level has half the side of the one before it.
        res_blocks: residual blocks of a level on the way down; one more on the way up.
        attention: sides of the levels that attend; the middle always does.
        head_size, num_heads: of every attention: one of the two.
        groups: of the group norms.
        label_size: features of the label's token (ldm).
        low_resolution_channels: of in_channels, those of a small image, enlarged, that is seen beside x (ADM-U).
        downsampling: pixels of an image a side to one of x, such as 8 of an autoencoder's latents. Default: 1.
    """

    design: Design | None = None
    image_size: int | None = None
    input_size: int | None = None
    in_channels: int | None = None
    num_classes: int | None = None
    learn_sigma: bool | None = None
    channels: int | None = None
    multipliers: list[float] | None = None
    res_blocks: int | None = None
    attention: list[int] | None = None
    head_size: int | None = None
    num_heads: int | None = None
    groups: int | None = None
    label_size: int | None = None
    low_resolution_channels: int | None = None
    downsampling: int | None = None


@dataclass(frozen=True)
class UNetConfig:
    """Everything that fixes a U-Net's shape, as in `UNetOptions`."""

    design: Design
    input_size: int
    in_channels: int
    channels: int
    multipliers: tuple[float, ...]
    res_blocks: int
    attention: tuple[int, ...]
    num_classes: int = 1000
    learn_sigma: bool = False
    head_size: int | None = None
    num_heads: int | None = None
    groups: int = 32
    label_size: int = 512
    low_resolution_channels: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(int(self.channels * multiplier) for multiplier in self.multipliers)

    @property
    def sides(self) -> tuple[int, ...]:
        """Of each level, `input_size` first."""
        return tuple(self.input_size >> level for level in range(len(self.multipliers)))

    @property
    def attends(self) -> tuple[bool, ...]:
        """Whether each level does."""
        return tuple(side in self.attention for side in self.sides)

    @property
    def embedding_size(self) -> int:
        """Features of the embedded timestep."""
        return 4 * self.channels

    def heads(self, width: int) -> int:
        """Of an attention of `width` channels; 1 of a level that does not attend and is narrower than a head."""
        return self.num_heads or max(width // (self.head_size or width), 1)

    @property
    def num_tokens(self) -> int:
        """What attention sees of an image at the largest side that attends."""
        attending = [side for side in self.sides if side in self.attention]
        return max(attending, default=self.sides[-1]) ** 2

    @property
    def depth(self) -> int:
        """Residual blocks one after the other, those that change the side among them."""
        levels = len(self.multipliers)
        resampling = 2 * (levels - 1) if self.design == "adm" else 0
        return levels * (2 * self.res_blocks + 1) + 2 + resampling

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def out_channels(self) -> int:
        return (self.in_channels - self.low_resolution_channels) * (2 if self.learn_sigma else 1)

    @property
    def columns(self) -> dict[str, Any]:
        """What tables say of it beside its name and cost."""
        return {"hidden_size": self.channels, "depth": self.depth, "input_size": self.input_size}


def resolve(preset: dict[str, Any], options: UNetOptions) -> UNetConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: missing sizes, or sizes that do not fit together.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    shape = {**preset, **given}
    if "head_size" in given and "num_heads" in given:
        raise ValueError(
            f"head_size: {given['head_size']}, and num_heads is {given['num_heads']}; accepted: one of them"
        )
    if "head_size" in given or "num_heads" in given:
        shape.pop("num_heads" if "head_size" in given else "head_size", None)
    pixels, factor = shape.pop("image_size", None), shape.pop("downsampling", 1)
    _check_whole({"image_size": pixels or 1, "downsampling": factor})
    if "input_size" not in given and pixels is not None:
        if pixels % factor:
            raise ValueError(f"image_size: {pixels} is not a multiple of {factor} (downsampling)")
        shape["input_size"] = pixels // factor
    needed = ["design", "input_size", "in_channels", "channels", "multipliers", "res_blocks", "attention"]
    missing = [key for key in needed if key not in shape]
    if not {"head_size", "num_heads"} & set(shape):
        missing.append("head_size")
    if missing:
        raise ValueError(f"model 'UNet' has no preset sizes: give {', '.join(missing)}")
    for key in ("multipliers", "attention"):
        if not isinstance(shape[key], Sequence) or isinstance(shape[key], str):
            raise ValueError(f"{key}: {shape[key]!r} is no list")
        shape[key] = tuple(shape[key])
    config = UNetConfig(**shape)
    _check_sizes(config, given)
    return config


# A file of anybody's may say that it has a hundred million; each is looked at by itself.
MOST_RES_BLOCKS = 1000


def _check_whole(numbers: dict[str, Any], least: int = 1) -> None:
    for key, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{key}: {value!r} is not a whole number")
        if value < least:
            raise ValueError(f"{key}: {value}; accepted: {least} or greater")


def _check_sizes(config: UNetConfig, given: dict[str, Any]) -> None:
    """`given`: what was said beside the preset, whose own sides may be too small for another image size."""
    if config.design not in get_args(Design):
        raise ValueError(f"design: {config.design!r}; accepted: {', '.join(get_args(Design))}")
    if not isinstance(config.learn_sigma, bool):
        raise ValueError(f"learn_sigma: {config.learn_sigma!r}; accepted: False, True")
    heads = {"head_size": config.head_size} if config.num_heads is None else {"num_heads": config.num_heads}
    whole = ("input_size", "in_channels", "num_classes", "channels", "res_blocks", "groups", "label_size")
    _check_whole({**{key: getattr(config, key) for key in whole}, **heads})
    _check_whole({"low_resolution_channels": config.low_resolution_channels}, least=0)
    _check_whole({f"attention[{i}]": side for i, side in enumerate(config.attention)})
    if config.res_blocks > MOST_RES_BLOCKS:
        raise ValueError(f"res_blocks: {config.res_blocks}; accepted: 1 to {MOST_RES_BLOCKS}")
    if config.channels % 2:
        raise ValueError(f"channels: {config.channels} is odd (sine-cosine pairs of the timestep)")
    if config.low_resolution_channels >= config.in_channels:
        raise ValueError(
            f"low_resolution_channels: {config.low_resolution_channels} of {config.in_channels} in_channels; accepted: "
            "fewer"
        )
    if "label_size" in given and config.design != "ldm":
        raise ValueError(f"label_size: {config.label_size}, but design {config.design} has no token of the label")
    if not config.multipliers:
        raise ValueError("multipliers: none; accepted: a number for each level")
    halved = 2 ** (len(config.multipliers) - 1)
    if config.input_size % halved:
        raise ValueError(
            f"input_size: {config.input_size} cannot be halved for {len(config.multipliers)} levels; accepted: a "
            f"multiple of {halved}"
        )
    strange = [side for side in config.attention if side not in config.sides]
    if strange and "attention" in given:
        sides = ", ".join(map(str, config.sides))
        raise ValueError(f"attention: {strange[0]} is not the side of a level; accepted: {sides}")
    for multiplier in config.multipliers:
        is_number = isinstance(multiplier, (int, float)) and not isinstance(multiplier, bool)
        if not is_number or not 0 < multiplier <= LARGEST:
            raise ValueError(f"multipliers: {multiplier!r}; accepted: numbers greater than 0, {LARGEST} at most")
    for level, (width, attends) in enumerate(zip(config.widths, config.attends, strict=True)):
        multiplier = config.multipliers[level]
        if width != config.channels * multiplier or width % config.groups:
            raise ValueError(
                f"multipliers: {config.channels} channels x {multiplier:g} are not a multiple of {config.groups} groups"
            )
        parts, key = (config.num_heads, "num_heads") if config.num_heads else (config.head_size or 1, "head_size")
        if (attends or level == len(config.widths) - 1) and width % parts:
            raise ValueError(f"{key}: {parts} does not divide the {width} channels of side {config.sides[level]}")


def build(config: UNetConfig) -> UNet:
    """A U-Net with freshly initialised weights."""
    from models.unet.network import UNet

    return UNet(config)


def _adm(image_size: int, multipliers: tuple[float, ...], **more: Any) -> dict[str, Any]:
    return {
        "design": "adm", "image_size": image_size, "in_channels": 3, "channels": 256, "multipliers": multipliers,
        "res_blocks": 2, "attention": SIDES, "head_size": 64, "learn_sigma": True, **more,
    }  # fmt: skip


def _adm_upsampler(image_size: int, **more: Any) -> dict[str, Any]:
    """From a fourth of the side."""
    seen = {"in_channels": 6, "low_resolution_channels": 3}
    return _adm(image_size, (1, 1, 2, 2, 4, 4), channels=192, **seen, **more)


def _ldm(downsampling: int, multipliers: tuple[float, ...], **more: Any) -> dict[str, Any]:
    return {
        "design": "ldm", "image_size": 256, "downsampling": downsampling, "multipliers": multipliers, "res_blocks": 2,
        "attention": SIDES, **more,
    }  # fmt: skip


def _digits(channels: int, multipliers: tuple[float, ...] = (1, 2, 2)) -> dict[str, Any]:
    """Of 8 x 8 grey pixels, at three sides; a fourth of the compute of the next size."""
    return {
        "design": "adm", "input_size": 8, "in_channels": 1, "num_classes": 10, "channels": channels,
        "multipliers": multipliers, "res_blocks": 1, "attention": (4, 2), "head_size": 8, "groups": 2,
    }  # fmt: skip


FAMILY = Family(
    name="UNet",
    presets={
        "UNet-S": _digits(8, (0.5, 1, 1)),  # half of B, whose timestep has as many frequencies
        "UNet-B": _digits(8),
        "UNet-L": _digits(16),
        "UNet-XL": _digits(32),
        "ADM-64": _adm(64, (1, 2, 3, 4), channels=192, res_blocks=3),
        "ADM-128": _adm(128, (1, 1, 2, 3, 4), head_size=None, num_heads=4),
        "ADM-256": _adm(256, (1, 1, 2, 2, 4, 4)),
        "ADM-512": _adm(512, (0.5, 1, 1, 2, 2, 4, 4)),
        "ADM-U-256": _adm_upsampler(256, head_size=None, num_heads=4),
        "ADM-U-512": _adm_upsampler(512, attention=(32, 16)),
        "LDM-4": _ldm(4, (1, 2, 3, 5), in_channels=3, channels=192, num_heads=1),
        "LDM-8": _ldm(8, (1, 2, 4), in_channels=4, channels=256, head_size=32),
    },
    options=UNetOptions,
    resolve=resolve,
    build=build,
    count=count,
)
