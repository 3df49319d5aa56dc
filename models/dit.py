"""The DiT family (Peebles & Xie 2022, arXiv 2212.09748): presets and configuration. Imports no torch.

The network is in `transformer.py`, its block designs in `designs.py` and `blocks.py`, its cost in `dit_cost.py`.
PixArt (arXiv 2310.00426) is the same network with another design, and captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from models.designs import DESIGNS, BlockDesign, Layers, Mlp, Norm, Windows
from models.dit_cost import count, mlp_width
from models.parametrization import Parametrization, check_parametrization, parametrized
from models.registry import Family

if TYPE_CHECKING:
    from models.transformer import DiT

# Table 1 of the paper.           depth  hidden_size  num_heads
SIZES: dict[str, tuple[int, int, int]] = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
PATCH_SIZES = (8, 4, 2)

# The autoencoder of the paper (sd-vae) maps 8 x 8 pixels to one latent position.
VAE_DOWNSAMPLING = 8

Positions = Literal["sincos", "rotary", "both"]
# Options that make another network of the same sizes and block design.
LAYER_OPTIONS = (
    *("qk_norm", "norm", "mlp", "positions"),
    *("patch_bottleneck", "class_tokens", "class_tokens_start"),
    *("caption_tokens", "caption_channels", "window_size", "global_every", "use_rel_pos", "drop_path", "position_base"),
    *("parametrization", "base_width"),
)


@dataclass(frozen=True)
class TransformerOptions:
    """What a recipe may say of a DiT or a JiT alike; what is None comes from the preset, or is the paper's.

    Attributes:
        block: a design of `models.designs.DESIGNS`, or the dotted path of one's own.
        image_size: pixels a side.
        in_channels: latent (or image) channels C.
        num_classes: labels 0 .. num_classes - 1; label num_classes is the null label of guidance.
        learn_sigma: predict 2C channels (noise and variance) instead of C.
        input_size: latent (or image) pixels a side.
        qk_norm: queries and keys of every attention are normalised, head by head, by a `norm` with a scale.
        norm: RMSNorm instead of LayerNorm, with a scale of its own (LightningDiT, JiT).
        mlp: SwiGLU instead of GELU; its hidden width is two thirds, rounded down, and has as many parameters.
        positions: a table of sines and cosines that is added to the patches, rotations of queries and keys by row and
            column (2-D axial rotary), or both, as in JiT; tokens that are no patches have none.
        patch_bottleneck: features between the two linear maps that embed a patch (JiT); None: one map.
        class_tokens: copies of the class embedding, each plus a learned position, that join the patches as tokens
            before block `class_tokens_start`, counted from 0 (JiT: 32).
        label_init_std, timestep_init_std: of the table of labels, and of the MLPs of timesteps and captions.
        parametrization: how start and learning rate of the weights follow the width: "sp", as in the paper, or "mup"
            (`models.parametrization`).
        base_width: of mup, the hidden size at which all weights learn at the recipe's rate.
    """

    block: str = DESIGNS.default
    image_size: int | None = None
    in_channels: int = 4
    num_classes: int = 1000
    learn_sigma: bool = True
    depth: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    patch_size: int | None = None
    input_size: int | None = None
    mlp_ratio: float | None = None
    frequency_embedding_size: int | None = None
    label_init_std: float | None = None
    timestep_init_std: float | None = None
    qk_norm: bool | None = None
    norm: Norm | None = None
    mlp: Mlp | None = None
    positions: Positions | None = None
    patch_bottleneck: int | None = None
    class_tokens: int | None = None
    class_tokens_start: int | None = None
    parametrization: Parametrization | None = None
    base_width: int | None = None


@dataclass(frozen=True)
class DiTOptions(TransformerOptions):
    """What a recipe may say of a DiT beside its name.

    Attributes:
        image_size: pixels a side; the latent side is image_size / 8 unless `input_size` overrides it.
        caption_tokens, caption_channels: tokens of a caption, and a text encoder's features of each, of a network that
            is told captions instead of labels (PixArt: 120 of 4096); 0: labels.
        window_size: patches a side of the windows within which the patches of a block attend to each other.
        global_every: blocks of which one, the last, attends globally all the same; None: windows in every block.
        use_rel_pos: relative positions of ViTDet in blocks with windows.
        drop_path: the share of images for which training leaves out a branch of the last block; it rises linearly
            from 0 in the first.
        position_base: patches a side at which the positions of neighbours are 1 apart; at other resolutions they are as
            far apart as to fill the same square (PixArt). None: 1 at all.
    """

    image_size: int = 256
    caption_tokens: int | None = None
    caption_channels: int | None = None
    window_size: int | None = None
    global_every: int | None = None
    use_rel_pos: bool | None = None
    drop_path: float | None = None
    position_base: int | None = None


@dataclass(frozen=True)
class DiTConfig:
    """Everything that fixes a DiT's shape. Lengths in tokens or channels; `input_size` in latent pixels."""

    block: str
    depth: int
    hidden_size: int
    num_heads: int
    patch_size: int
    input_size: int
    in_channels: int
    num_classes: int
    learn_sigma: bool
    mlp_ratio: float = 4.0
    frequency_embedding_size: int = 256
    label_init_std: float = 0.02
    timestep_init_std: float = 0.02
    qk_norm: bool = False
    norm: Norm = "layer"
    mlp: Mlp = "gelu"
    positions: Positions = "sincos"
    patch_bottleneck: int | None = None
    class_tokens: int = 0
    class_tokens_start: int = 0
    caption_tokens: int = 0
    caption_channels: int = 0
    window_size: int | None = None
    global_every: int | None = None
    use_rel_pos: bool = False
    drop_path: float = 0.0
    position_base: int | None = None
    parametrization: Parametrization = "sp"
    base_width: int | None = None

    @property
    def design(self) -> BlockDesign:
        return DESIGNS.find(self.block)

    @property
    def caption_shape(self) -> tuple[int, int] | None:
        """(S, D) of the captions that it is told; None: labels."""
        return (self.caption_tokens, self.caption_channels) if self.caption_tokens else None

    @property
    def layers(self) -> Layers:
        """Of the final layer, and of blocks but for what is not the same in all of them."""
        return Layers(self.norm, self.mlp, self.qk_norm, captions=self.has_caption_tokens)

    def layers_of(self, index: int) -> Layers:
        """Of block `index`, counted from 0."""
        size = self.window_of(index)
        windows = None if size is None else Windows(self.input_size // self.patch_size, size, self.use_rel_pos)
        rate = self.drop_path * index / max(1, self.depth - 1)
        return replace(self.layers, windows=windows, drop_path=rate)

    def window_of(self, index: int) -> int | None:
        """Patches a side of the windows of block `index`, counted from 0; None: it attends globally."""
        return None if self.global_every and (index + 1) % self.global_every == 0 else self.window_size

    @property
    def windowed_blocks(self) -> int:
        """How many blocks have windows."""
        if self.window_size is None:
            return 0
        return self.depth - (self.depth // self.global_every if self.global_every else 0)

    @property
    def has_caption_tokens(self) -> bool:
        """Whether the design is given a caption's tokens."""
        return self.caption_shape is not None and self.design.captions == "tokens"

    @property
    def has_table(self) -> bool:
        """Whether a table of positions is added to the patches."""
        return self.positions != "rotary"

    @property
    def has_rotation(self) -> bool:
        """Whether queries and keys are rotated by their positions."""
        return self.positions != "sincos"

    @property
    def num_tokens(self) -> int:
        """Image tokens T = (input_size / patch_size)^2."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def columns(self) -> dict[str, Any]:
        """What tables say of it beside its name and cost."""
        names = ("patch_size", "hidden_size", "depth", "num_heads", "input_size")
        return {"block": self.block_id, **{name: getattr(self, name) for name in names}}

    @property
    def block_id(self) -> str:
        """The block design and what of the layers is not default, as one text: "adaln-zero qk_norm norm=rms"."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name in LAYER_OPTIONS}
        changed = {name: value for name, value in options.items() if value != self.usual(name)}
        said = (name if value is True else f"{name}={value}" for name, value in changed.items())
        return " ".join([self.block, *said])

    def usual(self, option: str) -> Any:
        """What one of `LAYER_OPTIONS` is in a network of these sizes where nobody says otherwise."""
        return getattr(type(self), option)


Config = TypeVar("Config", bound=DiTConfig)


def resolve(preset: dict[str, Any], options: DiTOptions, family: str = "DiT") -> DiTConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: an unknown block, missing sizes, or sizes that do not fit together.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    image_size = given.pop("image_size")
    shape = dict(preset)
    if options.input_size is None:
        if image_size % VAE_DOWNSAMPLING:
            raise ValueError(f"image_size: {image_size} is not a multiple of {VAE_DOWNSAMPLING} (the autoencoder)")
        shape["input_size"] = image_size // VAE_DOWNSAMPLING
    shape.update(given)
    check_given(family, shape)
    return checked(DiTConfig(**shape))


def check_given(family: str, shape: Mapping[str, Any], also: tuple[str, ...] = ()) -> None:
    """Refuse a network of a family whose sizes nobody says, neither a preset nor options."""
    needed = ("depth", "hidden_size", "num_heads", "patch_size", *also)
    missing = [key for key in needed if shape.get(key) is None]
    if missing:
        raise ValueError(f"model {family!r} has no preset sizes: give {', '.join(missing)}")


def checked(config: Config) -> Config:
    """A configuration as it is, if its block design exists and its sizes fit together; errors as `resolve`."""
    _check_block(config)
    _check_sizes(config)
    return config


def build(config: DiTConfig) -> DiT:
    """A DiT with freshly initialised weights."""
    from models.transformer import DiT

    return parametrized(DiT(config), DiT)


def _check_block(config: DiTConfig) -> None:
    try:
        design = DESIGNS.find(config.block)
    except ValueError as error:
        raise ValueError(f"block: {error}") from None
    for key in ("norm", "mlp", "qk_norm", "positions", "window_size", "drop_path"):
        given, default = getattr(config, key), DiTConfig.__dataclass_fields__[key].default
        if given != default and key not in design.takes:
            raise ValueError(f"{key}: {given}, but block {config.block} does not take it; accepted: {default}")
    if config.caption_shape and design.captions not in ("pooled", "tokens"):
        raise ValueError(
            f"caption_tokens: {config.caption_tokens}, but block {config.block} has captions={design.captions!r}; "
            "accepted: 0, or a design with pooled or tokens"
        )


# Fields of a few values.
_CHOICES = {
    **{"norm": get_args(Norm), "mlp": get_args(Mlp), "positions": get_args(Positions)},
    "parametrization": get_args(Parametrization),
    **dict.fromkeys(("learn_sigma", "qk_norm", "use_rel_pos"), (False, True)),
}
# Numbers that may be 0.
_COUNTS = ("class_tokens", "class_tokens_start", "caption_tokens", "caption_channels", "drop_path")


def _check_sizes(config: DiTConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in _CHOICES and value not in _CHOICES[field.name]:
            raise ValueError(f"{field.name}: {value!r}; accepted: {', '.join(map(str, _CHOICES[field.name]))}")
        if str(field.type).startswith("int") and not isinstance(value, int) and value is not field.default:
            raise ValueError(f"{field.name}: {value!r} is not a whole number")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        if field.name in _COUNTS and value < 0:
            raise ValueError(f"{field.name}: {value} is negative; accepted: 0 or greater")
        if field.name not in _COUNTS and value <= 0:
            raise ValueError(f"{field.name}: {value} is not positive; accepted: greater than 0")
    if config.input_size % config.patch_size:
        raise ValueError(f"patch_size: {config.patch_size} does not divide the input size {config.input_size}")
    if config.hidden_size % config.num_heads:
        raise ValueError(f"num_heads: {config.num_heads} does not divide hidden_size {config.hidden_size}")
    if config.hidden_size % 4:
        raise ValueError(f"hidden_size: {config.hidden_size} is not a multiple of 4 (two sine-cosine axes)")
    if config.frequency_embedding_size % 2:
        raise ValueError(f"frequency_embedding_size: {config.frequency_embedding_size} is odd (sine-cosine pairs)")
    if not mlp_width(config):
        raise ValueError(f"mlp_ratio: {config.mlp_ratio} of hidden_size {config.hidden_size} leaves no hidden features")
    if config.has_rotation and config.hidden_size // config.num_heads % 4:
        size = config.hidden_size // config.num_heads
        raise ValueError(f"positions: {config.positions} needs heads of 4, 8, 12 ... channels; num_heads gives {size}")
    start = config.class_tokens_start
    if start >= config.depth:
        raise ValueError(f"class_tokens_start: {start} is none of the {config.depth} blocks, counted from 0")
    if start and not config.class_tokens:
        raise ValueError(f"class_tokens_start: {start}, but class_tokens is 0; accepted: 0, or give class_tokens")
    if not config.drop_path < 1:  # NaN is not either
        raise ValueError(f"drop_path: {config.drop_path}; accepted: 0 or greater, less than 1")
    _check_captions(config)
    _check_windows(config)
    check_parametrization(config)


def _check_captions(config: DiTConfig) -> None:
    tokens, channels = config.caption_tokens, config.caption_channels
    if bool(tokens) != bool(channels):
        given, other = ("caption_tokens", "caption_channels") if tokens else ("caption_channels", "caption_tokens")
        raise ValueError(f"{given}: {tokens or channels}, but {other} is 0; accepted: both, or both 0 for labels")
    if tokens and config.label_init_std != DiTConfig.label_init_std:
        raise ValueError(
            f"label_init_std: {config.label_init_std}, but the network is told captions and has no table of labels; "
            "accepted: null"
        )
    if tokens and config.class_tokens:
        raise ValueError(f"class_tokens: {config.class_tokens}, but the network is told captions; accepted: 0")


def _check_windows(config: DiTConfig) -> None:
    size, every, grid = config.window_size, config.global_every, config.input_size // config.patch_size
    if size is None:
        for key, value in (("global_every", every), ("use_rel_pos", config.use_rel_pos)):
            if value:
                raise ValueError(f"{key}: {value}, but there are no windows; accepted with window_size")
        return
    if grid % size:
        raise ValueError(f"window_size: {size} does not divide the {grid} patches a side")
    if every is not None and not 2 <= every <= config.depth:
        raise ValueError(f"global_every: {every}; accepted: 2 to {config.depth}, the number of blocks")
    if config.positions != "sincos":
        raise ValueError(f"positions: {config.positions}, but windows have no rotations; accepted: sincos")
    if config.class_tokens:
        raise ValueError(f"class_tokens: {config.class_tokens}, but window_size divides patches only; accepted: 0")


FAMILY = Family(
    name="DiT",
    presets={
        f"DiT-{size}/{patch}": dict(
            zip(("depth", "hidden_size", "num_heads", "patch_size"), (*shape, patch), strict=True)
        )
        for size, shape in SIZES.items()
        for patch in PATCH_SIZES
    },
    options=DiTOptions,
    resolve=resolve,
    build=build,
    count=count,
    has_blocks=True,
)
