"""What a network is told of the images beside the time: their labels, or captions. Either can be dropped.

A label that is dropped is the null label, `num_classes`; a caption that is dropped is the network's null caption, which
is a parameter of its own (PixArt-alpha, arXiv 2310.00426 Sec. 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Captions(NamedTuple):
    """The captions of N images, S tokens each.

    Attributes:
        embeddings: (N, S, D), of a text encoder.
        mask: (N, S) bool, whether there is a token.
        dropped: (N,) bool, whether the null caption stands in for it.
    """

    embeddings: Tensor
    mask: Tensor
    dropped: Tensor


# Labels (N,) int64, or captions.
Condition = Tensor | Captions


class OfTensors(nn.Module):
    """A network of captions that is called with their tensors: a tracer makes a plain tuple of every other."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, embeddings: Tensor, mask: Tensor, dropped: Tensor) -> Tensor:
        return self.network(x, t, Captions(embeddings, mask, dropped))


def _each(condition: Condition, change: Callable[[Tensor], Tensor]) -> Condition:
    return Captions(*map(change, condition)) if isinstance(condition, Captions) else change(condition)


def rows(condition: Condition, chosen: Tensor | slice) -> Condition:
    """Those of some images."""
    return _each(condition, lambda values: values[chosen])


def moved(condition: Condition, device: torch.device) -> Condition:
    """The same on a device."""
    return _each(condition, lambda values: values.to(device, non_blocking=True))


def split(condition: Condition, pieces: int) -> list[Condition]:
    """As `Tensor.chunk`."""
    if isinstance(condition, Captions):
        return [Captions(*piece) for piece in zip(*(values.chunk(pieces) for values in condition), strict=True)]
    return list(condition.chunk(pieces))


def joined(conditions: Sequence[Condition]) -> Condition:
    """Of one kind, one after the other."""
    first = conditions[0]
    if isinstance(first, Captions):
        return Captions(*(torch.cat(list(values)) for values in zip(*conditions, strict=True)))
    return torch.cat([each for each in conditions if isinstance(each, Tensor)])


def without(condition: Condition, num_classes: int) -> Condition:
    """As `drop`, of all images."""
    said = condition.dropped if isinstance(condition, Captions) else condition
    return drop(condition, torch.ones_like(said, dtype=torch.bool), num_classes)


def drop(condition: Condition, dropped: Tensor, num_classes: int) -> Condition:
    """Without what is said of the images where `dropped`, (N,) bool; labels become `num_classes`, the null label."""
    if isinstance(condition, Captions):
        return condition._replace(dropped=condition.dropped | dropped)
    return torch.where(dropped, num_classes, condition)
