"""From what a model samples to images: pixels rounded, latents decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.data.latent_index import LatentIndex, check_decoder
from bench.data.normalization import Normalization
from bench.data.pixels import check_finite, to_uint8
from bench.recipe.evaluation import EvaluationConfig


class Decoder(Protocol):
    """Model range (N, C, H, W) -> images (N, C', H', W') uint8 on the CPU; of clips, with T before the two sides.

    `id` is part of every score's key; `latent_channels` is C, or None where any will do. `decode` raises ValueError
    where what would become bytes is not finite.
    """

    @property
    def id(self) -> str: ...

    @property
    def latent_channels(self) -> int | None: ...

    def decode(self, x: Tensor) -> Tensor: ...


class Pixels:
    """For models of pixels."""

    id = "pixels"
    latent_channels = None

    def decode(self, x: Tensor) -> Tensor:
        check_finite(x, "images")
        return to_uint8(x).cpu()


@dataclass(frozen=True)
class OfNormalized:
    """The same for a model of normalised latents.

    Its `id` is the decoder's own: how a run's latents are normalised is a matter of its recipe, as the model is.
    """

    decoder: Decoder
    normalization: Normalization

    @property
    def id(self) -> str:
        return self.decoder.id

    @property
    def latent_channels(self) -> int | None:
        return self.decoder.latent_channels

    def decode(self, x: Tensor) -> Tensor:
        mean, std = self.normalization.tensors(x.device)
        return self.decoder.decode(x.float() * std + mean)


def of_normalized(decoder: Decoder, normalization: Normalization | None) -> tuple[Decoder, dict[str, str]]:
    """The decoder of latents that a model saw so normalised, if they were, and what samples say of that."""
    if normalization is None:
        return decoder, {}
    return OfNormalized(decoder, normalization), {"normalization": normalization.id}


def load_decoder(
    evaluation: EvaluationConfig, device: torch.device, offline: bool, latents: LatentIndex | None = None
) -> Decoder:
    """The decoder that an evaluation names, or none for pixels.

    Args:
        latents: what the model was trained on, where that is known.

    Raises:
        InputError: it is no autoencoder, or has another scale factor or shape than the latents.
        MissingAsset: it is not in the cache and cannot be fetched.
    """
    if evaluation.decoder is None:
        return Pixels()
    from bench.data.vae import load_vae

    vae = load_vae(evaluation.decoder, device, offline, evaluation.decode_batch_size)
    if latents is not None:
        check_decoder(latents, vae)
    return vae
