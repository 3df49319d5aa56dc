"""The JiT family (Li & He 2025, arXiv 2511.13720): a DiT on pixels, with large patches. Imports no torch.

The network is the DiT's, with other layers by default. Its paper trains it to predict x0 with the loss in velocity
(`bench.objectives`), which is a matter of the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.designs import Mlp, Norm
from models.dit import DiTConfig, Positions, TransformerOptions, build, check_given, checked, count
from models.registry import Family

# Its Table 8. A network begins to see the class tokens after a third of its blocks, but G does after ten.
# Name:      depth  hidden_size  num_heads  class_tokens_start
SIZES = {
    "B": (12, 768, 12, 4),
    "L": (24, 1024, 16, 8),
    "H": (32, 1280, 16, 10),
    "G": (40, 1664, 16, 10),
}
# Pixels a side -> patch size: always 16 x 16 patches.
PATCH_SIZES = {256: 16, 512: 32}
WIDE = 1024  # the largest hidden size whose patches pass through 128 features; those of wider networks through 256


@dataclass(frozen=True)
class JiTOptions(TransformerOptions):
    """What a recipe may say of a JiT beside its name.

    Attributes:
        image_size: pixels a side, of which `input_size` is another name.
        patch_bottleneck: default: 128 features, 256 of networks wider than 1024.
        class_tokens_start: default: a third of the depth, rounded down.
    """

    in_channels: int = 3
    learn_sigma: bool = False


@dataclass(frozen=True)
class JiTConfig(DiTConfig):
    """A DiT's, with the layers of JiT where nobody says otherwise."""

    qk_norm: bool = True
    norm: Norm = "rms"
    mlp: Mlp = "swiglu"
    positions: Positions = "both"
    class_tokens: int = 32

    def usual(self, option: str) -> Any:
        by_size = {
            "patch_bottleneck": 128 if self.hidden_size <= WIDE else 256,
            "class_tokens_start": self.depth // 3 if self.class_tokens else 0,
        }
        return by_size[option] if option in by_size else super().usual(option)


def resolve(preset: dict[str, Any], options: JiTOptions) -> JiTConfig:
    """The numbers that define a network, from a preset's and what overrides it.

    Raises:
        ValueError: an unknown block, missing sizes, or sizes that do not fit together.
    """
    shape = {**preset, **{name: value for name, value in vars(options).items() if value is not None}}
    pixels = shape.pop("image_size", None)
    if options.image_size is not None and options.input_size not in (None, options.image_size):
        raise ValueError(f"input_size: {options.input_size}, but image_size is {options.image_size}; they are the same")
    shape.setdefault("input_size", pixels)
    check_given("JiT", shape, also=("input_size",))
    plain = checked(JiTConfig(**{"class_tokens_start": 0, **shape}))
    by_size = {name: plain.usual(name) for name in ("patch_bottleneck", "class_tokens_start")}
    return checked(JiTConfig(**{**by_size, **shape}))


FAMILY = Family(
    name="JiT",
    presets={
        f"JiT-{size}/{patch}": {
            **dict(zip(("depth", "hidden_size", "num_heads", "class_tokens_start"), shape, strict=True)),
            "patch_size": patch,
            "image_size": pixels,
        }
        for size, shape in SIZES.items()
        for pixels, patch in PATCH_SIZES.items()
    },
    options=JiTOptions,
    resolve=resolve,
    build=build,
    count=count,
    has_blocks=True,
)
