"""Names, sizes and block designs: what `create_model` accepts, checked without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.dit import DiT

# Table 1 of the paper.           depth  hidden_size  num_heads
SIZES: dict[str, tuple[int, int, int]] = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
PATCH_SIZES = (8, 4, 2)
BLOCKS = ("adaln-zero", "adaln", "adaln-single", "cross-attention", "in-context")

# The autoencoder of the paper (sd-vae) maps 8 x 8 pixels to one latent position.
VAE_DOWNSAMPLING = 8


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes a network's shape. Lengths in tokens or channels; `input_size` in latent pixels."""

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
    def num_tokens(self) -> int:
        """Image tokens T = (input_size / patch_size)^2."""
        return (self.input_size // self.patch_size) ** 2


OVERRIDES = (
    "depth",
    "hidden_size",
    "num_heads",
    "patch_size",
    "input_size",
    "mlp_ratio",
    "frequency_embedding_size",
    "label_init_std",
    "timestep_init_std",
)


def list_models() -> list[str]:
    """The paper's 12 configurations, smallest first: `DiT-S/8` to `DiT-XL/2`."""
    return [f"DiT-{size}/{patch}" for size in SIZES for patch in PATCH_SIZES]


def architecture(
    name: str,
    block: str = "adaln-zero",
    image_size: int = 256,
    in_channels: int = 4,
    num_classes: int = 1000,
    learn_sigma: bool = True,
    **overrides: Any,
) -> Architecture:
    """Resolve a model's name and overrides to the numbers that define it; see `create_model`.

    Raises:
        ValueError: unknown name, block or override, or sizes that do not fit together.
    """
    _check_names(name, block, overrides)
    shape: dict[str, Any] = {}
    if name != "DiT":
        size, patch = name.removeprefix("DiT-").split("/")
        depth, hidden_size, num_heads = SIZES[size]
        shape = {"depth": depth, "hidden_size": hidden_size, "num_heads": num_heads, "patch_size": int(patch)}
    if "input_size" not in overrides:
        if image_size % VAE_DOWNSAMPLING:
            raise ValueError(f"image_size: {image_size} is not a multiple of {VAE_DOWNSAMPLING} (the autoencoder)")
        shape["input_size"] = image_size // VAE_DOWNSAMPLING
    shape.update(overrides)
    missing = [key for key in ("depth", "hidden_size", "num_heads", "patch_size") if key not in shape]
    if missing:
        raise ValueError(f"model 'DiT' has no preset sizes: give {', '.join(missing)}")
    arch = Architecture(block=block, in_channels=in_channels, num_classes=num_classes, learn_sigma=learn_sigma, **shape)
    _check_sizes(arch)
    return arch


def create_model(
    name: str,
    block: str = "adaln-zero",
    image_size: int = 256,
    in_channels: int = 4,
    num_classes: int = 1000,
    learn_sigma: bool = True,
    **overrides: Any,
) -> DiT:
    """Build a DiT with freshly initialised weights.

    Args:
        name: one of `list_models()`, or `DiT` for a custom size (then depth, hidden_size, num_heads and
            patch_size are required overrides).
        block: one of `BLOCKS` (paper Sec. 3.2; adaln-single is PixArt's, arXiv 2310.00426 Sec. 2.3).
        image_size: pixels a side; the latent side is image_size / 8 unless `input_size` overrides it.
        in_channels: latent (or image) channels C.
        num_classes: labels 0 .. num_classes - 1; label num_classes is the null label of guidance.
        learn_sigma: predict 2C channels (noise and variance) instead of C.
        **overrides: any of depth, hidden_size, num_heads, patch_size, input_size (latent pixels a side),
            mlp_ratio, frequency_embedding_size, label_init_std, timestep_init_std.

    Raises:
        ValueError: unknown name, block or override, or sizes that do not fit together.
    """
    arch = architecture(name, block, image_size, in_channels, num_classes, learn_sigma, **overrides)
    from models.dit import DiT

    return DiT(arch)


def _check_names(name: str, block: str, overrides: dict[str, Any]) -> None:
    if name != "DiT" and name not in list_models():
        raise ValueError(f"unknown model {name!r}; accepted: {', '.join(list_models())}, or DiT with its sizes given")
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; accepted: {', '.join(BLOCKS)}")
    unknown = sorted(set(overrides) - set(OVERRIDES))
    if unknown:
        raise ValueError(f"unknown override {', '.join(unknown)}; accepted: {', '.join(OVERRIDES)}")


def _check_sizes(arch: Architecture) -> None:
    for field in fields(arch):
        value = getattr(arch, field.name)
        if field.type == "int" and not isinstance(value, int):
            raise ValueError(f"{field.name}: {value!r} is not a whole number")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value <= 0:
            raise ValueError(f"{field.name}: {value} is not positive")
    if arch.input_size % arch.patch_size:
        raise ValueError(f"patch_size: {arch.patch_size} does not divide the input size {arch.input_size}")
    if arch.hidden_size % arch.num_heads:
        raise ValueError(f"num_heads: {arch.num_heads} does not divide hidden_size {arch.hidden_size}")
    if arch.hidden_size % 4:
        raise ValueError(f"hidden_size: {arch.hidden_size} is not a multiple of 4 (two sine-cosine axes)")
    if arch.frequency_embedding_size % 2:
        raise ValueError(f"frequency_embedding_size: {arch.frequency_embedding_size} is odd (sine-cosine pairs)")
