"""Captions in a DiT: how a text encoder's features become tokens, and what stands in for a caption that is dropped.

After PixArt-alpha (arXiv 2310.00426 Sec. 2.3 and its code), with two differences that are stated where they are made.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.conditions import Captions
from models.layers.of_timm import GELUTanh, Mlp

# Of masks and means, for `bench.flops`: they cost no multiply-accumulates.
OPERATORS = dict.fromkeys(f"aten::{name}" for name in ("any", "__or__", "sum", "ones_like", "new_ones"))


class CaptionTokens(NamedTuple):
    """Embedded captions: what a design that takes captions as tokens gets in place of the embedded label.

    Attributes:
        tokens: (N, S, D).
        mask: (N, S) bool, which of them are attended to; at least one of each image's.
    """

    tokens: Tensor
    mask: Tensor

    def pooled(self) -> Tensor:
        """Their mean, (N, D), without those that pad a caption."""
        mask = self.mask.unsqueeze(-1)
        return (self.tokens * mask).sum(1) / mask.sum(1)

    def after(self, first: Tensor) -> CaptionTokens:
        """With a token that is always attended to, (N, D), before them."""
        mask = torch.ones_like(self.mask[:, :1])
        return CaptionTokens(torch.cat([first.unsqueeze(1), self.tokens], 1), torch.cat([mask, self.mask], 1))


class CaptionEmbedder(nn.Module):
    """Two linear maps with a tanh GELU between them, of every token; the null caption where one is dropped.

    The null caption is a parameter and trained, as the null label is: so it is in every checkpoint and every average.
    PixArt's code has it as a buffer, which neither sees. There it also keeps the mask of the caption that it stands
    for; here all its S tokens are attended to, so that what is not told of an image does not tell how much was said of
    it. A caption without any token says as little as one that is dropped, and is taken for it.
    """

    def __init__(self, num_tokens: int, channels: int, hidden_size: int) -> None:
        super().__init__()
        self.null_caption = nn.Parameter(torch.empty(num_tokens, channels))
        self.mlp = Mlp(channels, hidden_size, hidden_size, act_layer=GELUTanh)

    def initialize(self, std: float) -> None:
        nn.init.normal_(self.mlp.fc1.weight, std=std)
        nn.init.normal_(self.mlp.fc2.weight, std=std)
        nn.init.normal_(self.null_caption, std=self.null_caption.shape[1] ** -0.5)

    def forward(self, captions: Captions) -> CaptionTokens:
        """Captions of (S, channels) -> tokens of D.

        Raises:
            ValueError: they are of another shape.
        """
        given, needed = captions.embeddings.shape, (len(captions.dropped), *self.null_caption.shape)
        if given != needed or captions.mask.shape != needed[:2]:
            raise ValueError(
                f"captions: {tuple(given)} with a mask of {tuple(captions.mask.shape)}; accepted: {needed} with "
                f"{needed[:2]}: images, caption_tokens, caption_channels"
            )
        dropped = captions.dropped | ~captions.mask.any(1)
        features = captions.embeddings.to(self.null_caption.dtype)
        # What pads a caption may be anything, infinite too, and must not be multiplied by anything, not even by 0.
        features = torch.where(captions.mask.unsqueeze(-1), features, 0.0)
        features = torch.where(dropped[:, None, None], self.null_caption, features)
        return CaptionTokens(self.mlp(features), captions.mask | dropped.unsqueeze(1))
