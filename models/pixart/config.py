"""The PixArt family (Chen et al. 2023, arXiv 2310.00426): a DiT with another block design, and captions. No torch here.

A network of this family by its sizes is told labels, unless `caption_tokens` and `caption_channels` are given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from models import dit
from models.dit import SIZES, DiTOptions, resolve


@dataclass(frozen=True)
class PixArtOptions(DiTOptions):
    """As `DiTOptions`, with the block that makes a DiT a PixArt."""

    block: str = "pixart"


_XL = dict(zip(("depth", "hidden_size", "num_heads", "patch_size"), (*SIZES["XL"], 2), strict=True))

FAMILY = replace(
    dit.FAMILY,
    name="PixArt",
    presets={
        "PixArt-XL/2": {**_XL, "caption_tokens": 120, "caption_channels": 4096},  # of T5-XXL
        "PixArt-class-XL/2": _XL,  # of labels, as others compare with it
    },
    options=PixArtOptions,
    resolve=partial(resolve, family="PixArt"),
)
