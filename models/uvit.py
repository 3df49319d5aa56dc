"""The U-ViT family (Bao et al. 2022, arXiv 2209.12152): presets, configuration, cost. Imports no torch.

A plain vision transformer: time, label and patches are tokens alike, and long skip connections join each block of the
first half with its counterpart in the second. The network is in `uvit_network.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from models.dit import VAE_DOWNSAMPLING, check_given
from models.parametrization import Parametrization, check_parametrization, parametrized, said_of
from models.registry import Count, Family

if TYPE_CHECKING:
    from models.uvit_network import UViT

# Table 1 of the paper.
# Name:        depth  hidden_size  num_heads
SIZES = {
    "S": (13, 512, 8),
    "S-deep": (17, 512, 8),
    "M": (17, 768, 12),
    "L": (21, 1024, 16),
    "H": (29, 1152, 16),
}
# Pixels a side -> patch size: 16 x 16 patches of latents, and 4 for images of 64 x 64 too (in_channels 3).
PATCH_SIZES = {256: 2, 512: 4}


@dataclass(frozen=True)
class UViTOptions:
    """What a recipe may say of a U-ViT beside its name; what is None comes from the preset.

    Attributes:
        image_size: pixels a side; the latent side is image_size / 8 unless `input_size` overrides it.
        in_channels: latent (or image) channels C.
        num_classes: labels 0 .. num_classes - 1; label num_classes is the null label of guidance.
        learn_sigma: predict 2C channels (noise and variance) instead of C, which the paper does not.
        depth: blocks, an odd number: as many before the middle one as after it.
        input_size: latent (or image) pixels a side.
        init_std: of the weights of linear maps and of the positions, as they start.
        parametrization, base_width: as `models.dit.DiTOptions` has them.
    """

    image_size: int | None = None
    in_channels: int = 4
    num_classes: int = 1000
    learn_sigma: bool = False
    depth: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    patch_size: int | None = None
    input_size: int | None = None
    mlp_ratio: float = 4.0
    init_std: float = 0.02
    parametrization: Parametrization = "sp"
    base_width: int | None = None


@dataclass(frozen=True)
class UViTConfig:
    """Everything that fixes a U-ViT's shape. Lengths in blocks or channels; `input_size` in latent pixels."""

    depth: int
    hidden_size: int
    num_heads: int
    patch_size: int
    input_size: int
    in_channels: int
    num_classes: int
    learn_sigma: bool = False
    mlp_ratio: float = 4.0
    init_std: float = 0.02
    parametrization: Parametrization = "sp"
    base_width: int | None = None

    @property
    def num_tokens(self) -> int:
        """Image tokens, (input_size / patch_size)^2."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def sequence(self) -> int:
        """Tokens that attention sees: time, label, and the image's."""
        return 2 + self.num_tokens

    @property
    def num_skips(self) -> int:
        """Long skip connections, one for each block of the first half."""
        return self.depth // 2

    @property
    def mlp_width(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

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
        block = {"block": " ".join(said)} if (said := said_of(self)) else {}
        return {**block, **{name: getattr(self, name) for name in names}}


def resolve(preset: dict[str, Any], options: UViTOptions) -> UViTConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: missing sizes, or sizes that do not fit together.
    """
    shape = {**preset, **{name: value for name, value in vars(options).items() if value is not None}}
    pixels = shape.pop("image_size", None)
    if "input_size" not in shape and pixels is not None:
        if pixels % VAE_DOWNSAMPLING:
            raise ValueError(f"image_size: {pixels} is not a multiple of {VAE_DOWNSAMPLING} (the autoencoder)")
        shape["input_size"] = pixels // VAE_DOWNSAMPLING
    check_given("U-ViT", shape, also=("input_size",))
    config = UViTConfig(**shape)
    _check_sizes(config)
    return config


def _check_sizes(config: UViTConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None:  # the base width
            continue
        if str(field.type).startswith("int") and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{field.name}: {value!r} is not a whole number")
        if field.type == "bool" and not isinstance(value, bool):
            raise ValueError(f"{field.name}: {value!r}; accepted: False, True")
        if isinstance(value, (int, float)) and field.type != "bool" and value <= 0:
            raise ValueError(f"{field.name}: {value} is not positive; accepted: greater than 0")
    depth, dim, size = config.depth, config.hidden_size, config.input_size
    if depth % 2 == 0:
        raise ValueError(
            f"depth: {depth} is even; accepted: an odd number, such as {depth + 1}: the long skips join each block "
            "before the middle one with one after it"
        )
    if size % config.patch_size:
        raise ValueError(f"patch_size: {config.patch_size} does not divide the input size {size}")
    if dim % config.num_heads:
        raise ValueError(f"num_heads: {config.num_heads} does not divide hidden_size {dim}")
    if dim % 2:
        raise ValueError(f"hidden_size: {dim} is odd (sine-cosine pairs of the time)")
    if not config.mlp_width:
        raise ValueError(f"mlp_ratio: {config.mlp_ratio} of hidden_size {dim} leaves no hidden features")
    check_parametrization(config)


def build(config: UViTConfig) -> UViT:
    """A U-ViT with freshly initialised weights."""
    from models.uvit_network import UViT

    return parametrized(UViT(config), UViT)


def count(config: UViTConfig) -> Count:
    """In closed form what `bench.flops` counts operator by operator."""
    dim, hidden, skips, out = config.hidden_size, config.mlp_width, config.num_skips, config.out_channels
    tokens = config.sequence
    patch_in, patch_out = config.patch_size**2 * config.in_channels, config.patch_size**2 * out
    convolution = 3 * 3 * out**2

    weights = 4 * dim**2 + 2 * dim * hidden  # of a block
    block_macs = tokens * weights + 2 * tokens**2 * dim + 2 * tokens * dim  # the last: its norms
    macs = config.depth * block_macs + skips * 2 * tokens * dim**2
    macs += config.num_tokens * dim * patch_in + tokens * dim * patch_out + config.input_size**2 * convolution

    block = weights + 4 * dim + dim + hidden + dim  # norms; biases of attention's output (it has no others) and MLP
    parameters = config.depth * block + skips * (2 * dim**2 + dim)
    parameters += dim * patch_in + dim + tokens * dim + (config.num_classes + 1) * dim  # patches, positions, labels
    parameters += 2 * dim + dim * patch_out + patch_out + convolution + out
    return Count(macs, parameters)


FAMILY = Family(
    name="U-ViT",
    presets={
        f"U-ViT-{size}/{patch}": {
            **dict(zip(("depth", "hidden_size", "num_heads"), shape, strict=True)),
            "patch_size": patch,
            "image_size": pixels,
        }
        for size, shape in SIZES.items()
        for pixels, patch in PATCH_SIZES.items()
    },
    options=UViTOptions,
    resolve=resolve,
    build=build,
    count=count,
    has_blocks=True,
)
