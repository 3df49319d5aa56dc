"""The DiT family (Peebles & Xie 2022, arXiv 2212.09748): presets, configuration, cost. Imports no torch.

The network is in `transformer.py`, its block designs in `designs.py` and `blocks.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from models.designs import DESIGNS, BlockDesign, DesignCost
from models.registry import Count, Family

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


@dataclass(frozen=True)
class DiTOptions:
    """What a recipe may say of a DiT beside its name; what is None comes from the preset.

    Attributes:
        block: a design of `models.designs.DESIGNS`, or the dotted path of one's own.
        image_size: pixels a side; the latent side is image_size / 8 unless `input_size` overrides it.
        in_channels: latent (or image) channels C.
        num_classes: labels 0 .. num_classes - 1; label num_classes is the null label of guidance.
        learn_sigma: predict 2C channels (noise and variance) instead of C.
        input_size: latent pixels a side.
    """

    block: str = "adaln-zero"
    image_size: int = 256
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

    @property
    def design(self) -> BlockDesign:
        return DESIGNS.find(self.block)

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
        names = ("block", "patch_size", "hidden_size", "depth", "num_heads", "input_size")
        return {name: getattr(self, name) for name in names}


def resolve(preset: dict[str, Any], options: DiTOptions) -> DiTConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: an unknown block, missing sizes, or sizes that do not fit together.
    """
    given = {name: value for name, value in asdict(options).items() if value is not None}
    image_size = given.pop("image_size")
    shape = dict(preset)
    if options.input_size is None:
        if image_size % VAE_DOWNSAMPLING:
            raise ValueError(f"image_size: {image_size} is not a multiple of {VAE_DOWNSAMPLING} (the autoencoder)")
        shape["input_size"] = image_size // VAE_DOWNSAMPLING
    shape.update(given)
    missing = [key for key in ("depth", "hidden_size", "num_heads", "patch_size") if key not in shape]
    if missing:
        raise ValueError(f"model 'DiT' has no preset sizes: give {', '.join(missing)}")
    config = DiTConfig(**shape)
    _check_block(config)
    _check_sizes(config)
    return config


def build(config: DiTConfig) -> DiT:
    """A DiT with freshly initialised weights."""
    from models.transformer import DiT

    return DiT(config)


def count(config: DiTConfig) -> Count | None:
    """In closed form what `bench.flops` counts operator by operator; None where the block design does not say."""
    cost = config.design.cost
    return None if cost is None else Count(_macs(config, cost), _parameters(config, cost), _position_table(config))


def _macs(config: DiTConfig, cost: DesignCost) -> int:
    """Multiply-accumulates of one forward pass of one image, by the convention of `bench.flops`."""
    dim, image_tokens = config.hidden_size, config.num_tokens
    tokens = image_tokens + (cost.condition_tokens if config.design.condition_as_tokens else 0)
    attention = 4 * tokens * dim**2 + 2 * tokens**2 * dim
    mlp = 2 * tokens * dim * int(dim * config.mlp_ratio)
    norms = 2 * tokens * dim
    cross = 0
    if cost.cross_attention:
        attended = cost.condition_tokens
        cross = 2 * tokens * dim**2 + 2 * attended * dim**2 + 2 * tokens * attended * dim
    block = attention + mlp + norms + cross + cost.in_block * dim**2
    patch = config.patch_size**2 * dim * image_tokens
    embed = patch * config.in_channels + config.frequency_embedding_size * dim + dim**2
    final = patch * config.out_channels + cost.in_final * dim**2
    return config.depth * block + cost.shared * dim**2 + embed + final


def _parameters(config: DiTConfig, cost: DesignCost) -> int:
    """Trainable parameters and the fixed position table."""
    dim, hidden = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
    linear = dim**2 + dim  # D -> D
    affine = 2 * dim if cost.affine_norms else 0
    mlp = 2 * dim * hidden + hidden + dim
    cross = 4 * linear if cost.cross_attention else 0
    block = 4 * linear + mlp + cross + 2 * affine + cost.in_block * linear + cost.block_table * dim
    patch_in = config.patch_size**2 * config.in_channels * dim + dim
    timestep = config.frequency_embedding_size * dim + dim + linear
    labels = (config.num_classes + 1) * dim
    out_features = config.patch_size**2 * config.out_channels
    final = dim * out_features + out_features + affine + cost.in_final * linear + cost.final_table * dim
    embed = patch_in + timestep + labels + _position_table(config)
    return config.depth * block + cost.shared * linear + embed + final


def _position_table(config: DiTConfig) -> int:
    return config.num_tokens * config.hidden_size


def _check_block(config: DiTConfig) -> None:
    try:
        DESIGNS.find(config.block)
    except ValueError as error:
        raise ValueError(f"block: {error}") from None


def _check_sizes(config: DiTConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type == "int" and not isinstance(value, int):
            raise ValueError(f"{field.name}: {value!r} is not a whole number")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
            raise ValueError(f"{field.name}: {value} is not positive; accepted: greater than 0")
    if config.input_size % config.patch_size:
        raise ValueError(f"patch_size: {config.patch_size} does not divide the input size {config.input_size}")
    if config.hidden_size % config.num_heads:
        raise ValueError(f"num_heads: {config.num_heads} does not divide hidden_size {config.hidden_size}")
    if config.hidden_size % 4:
        raise ValueError(f"hidden_size: {config.hidden_size} is not a multiple of 4 (two sine-cosine axes)")
    if config.frequency_embedding_size % 2:
        raise ValueError(f"frequency_embedding_size: {config.frequency_embedding_size} is odd (sine-cosine pairs)")


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
)
