"""Captions of images: embeddings by a text encoder, and masks that say where there is a token.

In memory (`arrays.py`), or in shards beside latents (`index.py`), written by `encode.py` and read by `stored.py`.
Importing this package imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.conditions import Captions


class CaptionBank(Protocol):
    """The captions of a data set, one an image.

    Attributes:
        id: a name and eight digits of a checksum of their content.

    One may have `order` too, (K,) integers, as `bench.data.captions.arrays.by_turns` has it.
    """

    @property
    def id(self) -> str: ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor, device: torch.device) -> Captions:
        """Those of `indices` (N,) int64 on a device, float32, none of them dropped."""
        ...


class Asked(NamedTuple):
    """Captions beside latents as a recipe names them: a text encoder, and (S, D)."""

    text_encoder: str
    shape: tuple[int, int]


def told(shape: tuple[int, int] | None) -> str:
    """What a network is told, in words: a `caption_shape`."""
    return "labels" if shape is None else f"captions of {shape[0]} tokens with {shape[1]} channels"
