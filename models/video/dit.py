"""Diffusion Transformers of clips: Open-Sora 1.0's DiT, and its STDiT, which factorises attention. Imports no torch.

The network is in `transformer.py`, its blocks in `blocks.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from models.dit import SIZES
from models.parametrization import Parametrization, check_parametrization, parametrized, said_of
from models.registry import Count, Family
from models.video.sizes import check_positive, grid_of

if TYPE_CHECKING:
    from models.video.transformer import VideoDiT

Attention = Literal["full", "sequential", "parallel"]
Block = Literal["adaln-zero", "adaln-single"]
Conditioning = Literal["label", "pooled", "captions"]

# Tokens and features of a caption: pooled as Open-Sora's (CLIP's), or as they are (T5's, of PixArt-alpha).
CAPTIONS: dict[str, tuple[int, int]] = {"pooled": (1, 512), "captions": (120, 4096)}
PATCHES = ((1, 2, 2), (2, 2, 2), (2, 4, 4))


@dataclass(frozen=True)
class VideoDiTOptions:
    """What a recipe may say of a video DiT beside its name; what is None comes from the preset, else `VideoDiTConfig`.

    Attributes:
        attention: over all tokens of a clip ("full"); within a frame, then across frames at a place ("sequential"); or
            the sum of both ("parallel").
        block: adaln-zero, each block with a map of its own from the condition to its six vectors, or adaln-single, one
            map for all blocks, with a table in each (STDiT).
        conditioning: "label"; a caption that is one vector, added to the timestep ("pooled"); or caption tokens that
            every block attends to ("captions").
        frames: T of a clip, in latent frames; a last patch that it does not fill is padded with zeros.
        input_size: latent pixels a side, padded likewise.
        patch_frames, patch_size: frames, and latent pixels a side, of a patch: (t, s, s).
        no_temporal_pos_emb: leave out the table of positions in time.
        caption_tokens, caption_channels: tokens of a caption, and features of each.
        parametrization, base_width: as `models.dit.DiTOptions` has them.
    """

    attention: Attention | None = None
    block: Block | None = None
    conditioning: Conditioning | None = None
    frames: int | None = None
    input_size: int | None = None
    in_channels: int | None = None
    num_classes: int | None = None
    learn_sigma: bool | None = None
    depth: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    patch_frames: int | None = None
    patch_size: int | None = None
    mlp_ratio: float | None = None
    no_temporal_pos_emb: bool | None = None
    caption_tokens: int | None = None
    caption_channels: int | None = None
    parametrization: Parametrization | None = None
    base_width: int | None = None


@dataclass(frozen=True)
class VideoDiTConfig:
    """Everything that fixes a video DiT's shape."""

    depth: int
    hidden_size: int
    num_heads: int
    patch_frames: int
    patch_size: int
    attention: Attention = "full"
    block: Block = "adaln-zero"
    conditioning: Conditioning = "label"
    frames: int = 16
    input_size: int = 32
    in_channels: int = 4
    num_classes: int = 1000
    learn_sigma: bool = True
    mlp_ratio: float = 4.0
    frequency_embedding_size: int = 256
    no_temporal_pos_emb: bool = False
    caption_tokens: int | None = None
    caption_channels: int | None = None
    parametrization: Parametrization = "sp"
    base_width: int | None = None

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of x."""
        return self.in_channels, self.frames, self.input_size, self.input_size

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def patch(self) -> tuple[int, int, int]:
        return self.patch_frames, self.patch_size, self.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches in time, rows and columns."""
        return grid_of(self.input_shape[1:], self.patch)

    @property
    def num_tokens(self) -> int:
        """T' H' W', of a whole clip."""
        time, rows, columns = self.grid
        return time * rows * columns

    @property
    def caption_shape(self) -> tuple[int, int] | None:
        """(tokens, features) of a caption; None for labels."""
        if self.conditioning == "label":
            return None
        tokens, size = CAPTIONS[self.conditioning]
        return self.caption_tokens or tokens, self.caption_channels or size

    @property
    def attends_to_time(self) -> bool:
        """Whether blocks have an attention across frames beside that within them; a single one has no other."""
        return self.attention != "full" and self.grid[0] > 1

    @property
    def block_id(self) -> str:
        """The blocks, and what of them tables have no column for, as one text: "adaln-zero attention=parallel"."""
        said: dict[str, Any] = {"attention": self.attention, "conditioning": self.conditioning}
        changed = [f"{name}={value}" for name, value in said.items() if value != getattr(type(self), name)]
        changed += ["no_temporal_pos_emb"] if self.no_temporal_pos_emb else []
        return " ".join([self.block, *changed, *said_of(self)])

    @property
    def columns(self) -> dict[str, Any]:
        """What tables say of it beside its name and cost."""
        names = ("patch_size", "patch_frames", "hidden_size", "depth", "num_heads", "input_size", "frames")
        return {"block": self.block_id, **{name: getattr(self, name) for name in names}}


def resolve(preset: Mapping[str, Any], options: VideoDiTOptions) -> VideoDiTConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: missing sizes, sizes that do not fit together, or a word that is none of the accepted.
    """
    shape = {**preset, **{name: value for name, value in vars(options).items() if value is not None}}
    required = ("depth", "hidden_size", "num_heads", "patch_frames", "patch_size")
    missing = [key for key in required if key not in shape]
    if missing:
        raise ValueError(f"model 'VideoDiT' has no preset sizes: give {', '.join(missing)}")
    config = VideoDiTConfig(**shape)
    _check(config)
    return config


_CHOICES = {
    **{"attention": get_args(Attention), "block": get_args(Block), "conditioning": get_args(Conditioning)},
    "parametrization": get_args(Parametrization),
    **dict.fromkeys(("learn_sigma", "no_temporal_pos_emb"), (False, True)),
}


def _check(config: VideoDiTConfig) -> None:
    for name, value in vars(config).items():
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise ValueError(f"{name}: {value!r}; accepted: {', '.join(map(str, _CHOICES[name]))}")
        elif value is not None:
            check_positive(name, value, whole=name != "mlp_ratio")
    for clip, patch in (("frames", "patch_frames"), ("input_size", "patch_size")):
        length, side = getattr(config, clip), getattr(config, patch)
        if length < side:
            raise ValueError(f"{clip}: {length} is shorter than {patch}, {side}; accepted: {side} or more")
    if config.hidden_size % config.num_heads:
        raise ValueError(f"num_heads: {config.num_heads} does not divide hidden_size {config.hidden_size}")
    if config.hidden_size % 4:
        raise ValueError(f"hidden_size: {config.hidden_size} is not a multiple of 4 (two sine-cosine axes)")
    if not int(config.hidden_size * config.mlp_ratio):
        raise ValueError(f"mlp_ratio: {config.mlp_ratio} of hidden_size {config.hidden_size} leaves no hidden features")
    for name in ("caption_tokens", "caption_channels"):
        if config.conditioning == "label" and getattr(config, name) is not None:
            raise ValueError(f"{name}: {getattr(config, name)}, but conditioning is label; accepted: pooled, captions")
    if config.conditioning == "pooled" and config.caption_tokens not in (None, 1):
        raise ValueError(f"caption_tokens: {config.caption_tokens}, but a pooled caption is one; accepted: 1")
    check_parametrization(config)


def build(config: VideoDiTConfig) -> VideoDiT:
    """A video DiT with freshly initialised weights."""
    from models.video.transformer import VideoDiT

    return parametrized(VideoDiT(config), VideoDiT)


def count(config: VideoDiTConfig) -> Count:
    """In closed form what `bench.flops` counts operator by operator."""
    return Count(_macs(config), *_parameters(config))


def _macs(config: VideoDiTConfig) -> int:
    """Multiply-accumulates of one forward pass of one clip."""
    dim, tokens, time = config.hidden_size, config.num_tokens, config.grid[0]
    maps = 4 * tokens * dim**2  # queries, keys, values, projection
    attended = tokens if config.attention == "full" else tokens // time
    block = maps + 2 * tokens * attended * dim
    norms = 2 * tokens * dim
    if config.attends_to_time:
        block += maps + 2 * tokens * time * dim
        norms += tokens * dim if config.attention == "sequential" else 0
    captions = 0
    if config.caption_shape is not None:
        length, size = config.caption_shape
        captions = length * (size + dim) * dim
        if config.conditioning == "captions":
            block += 2 * tokens * dim**2 + 2 * length * dim**2 + 2 * tokens * length * dim
    is_zero = config.block == "adaln-zero"
    block += norms + 2 * tokens * dim * int(dim * config.mlp_ratio) + (6 * dim**2 if is_zero else 0)
    condition = (config.frequency_embedding_size + dim) * dim + captions + (2 if is_zero else 6) * dim**2
    ends = tokens * _patch_pixels(config) * dim * (config.in_channels + config.out_channels)
    return config.depth * block + condition + ends


def _parameters(config: VideoDiTConfig) -> tuple[int, int]:
    """All parameters, and how many of them are fixed tables of positions."""
    dim, time = config.hidden_size, config.grid[0]
    linear = dim**2 + dim  # D -> D
    hidden = int(dim * config.mlp_ratio)
    is_zero = config.block == "adaln-zero"
    attentions = 1 + config.attends_to_time + (config.conditioning == "captions")
    block = attentions * 4 * linear + 2 * dim * hidden + hidden + dim + 6 * (linear if is_zero else dim)
    if config.caption_shape is None:
        condition = (config.num_classes + 1) * dim
    else:
        length, size = config.caption_shape
        condition = length * size + size * dim + dim + linear
    timestep = config.frequency_embedding_size * dim + dim + linear
    patch, out = _patch_pixels(config) * config.in_channels, _patch_pixels(config) * config.out_channels
    ends = patch * dim + dim + dim * out + out + (2 * linear if is_zero else 6 * linear + 2 * dim)
    fixed = dim * (config.num_tokens // time + (0 if config.no_temporal_pos_emb else time))
    return config.depth * block + condition + timestep + ends + fixed, fixed


def _patch_pixels(config: VideoDiTConfig) -> int:
    return config.patch_frames * config.patch_size**2


def _patched(name: str, sizes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A network of each patch."""
    return {f"{name}/{t}x{h}x{w}": {**sizes, "patch_frames": t, "patch_size": h} for t, h, w in PATCHES}


# What the code of Open-Sora 1.0 calls STDiT.
STDIT = {"attention": "sequential", "block": "adaln-single", "conditioning": "captions"}
# For clips of digits: some hundred steps of 32 clips take minutes on one core.
DIGITS = {
    **{"depth": 2, "hidden_size": 32, "num_heads": 2},
    **{"frames": 8, "input_size": 12, "in_channels": 1, "num_classes": 10},
}

_SIZES = {size: {"depth": d, "hidden_size": dim, "num_heads": heads} for size, (d, dim, heads) in SIZES.items()}

FAMILY = Family(
    name="VideoDiT",
    presets={
        **{name: preset for size in SIZES for name, preset in _patched(f"VideoDiT-{size}", _SIZES[size]).items()},
        **_patched("STDiT-XL", {**_SIZES["XL"], **STDIT}),
        **_patched("VideoDiT-digits", DIGITS),
    },
    options=VideoDiTOptions,
    resolve=resolve,
    build=build,
    count=count,
    has_blocks=True,
)
