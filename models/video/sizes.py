"""Sizes of clips and patches, and what is refused of them. Imports no torch."""

from __future__ import annotations

# (T, H, W), of a clip in pixels or latents, of a patch, or of the grid of its patches.
Sizes = tuple[int, int, int]


def grid_of(sizes: Sizes, patch: Sizes) -> Sizes:
    """How many patches an axis has; the last of it may be padded."""
    t, h, w = (-(-size // side) for size, side in zip(sizes, patch, strict=True))
    return t, h, w


def triple(name: str, value: int | Sizes) -> Sizes:
    """(t, h, w), of three numbers or of one for all.

    Raises:
        ValueError: `name: what is wrong`.
    """
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,) * 3
    if len(sizes) != 3 or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"{name}: {value!r}; accepted: a positive whole number, or three, (t, h, w)")
    return sizes


def check_positive(name: str, value: object, whole: bool = True) -> None:
    """Refuse what is no positive number, or no whole one.

    Raises:
        ValueError: `name: what is wrong`.
    """
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(f"{name}: {value!r} is not a {'whole ' if whole else ''}number")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: {value} is not positive; accepted: greater than 0")
