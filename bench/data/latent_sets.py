"""Latents as a recipe names them: ImageNet's, of which all is known, or those of one's own images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.data import DATA, DatasetFacts
from bench.data.captions import Asked
from models.dit import VAE_DOWNSAMPLING

if TYPE_CHECKING:
    import torch

    from bench.data.captions.stored import StoredCaptions
    from bench.data.latents import Latents
    from bench.score.reference import Reference

LATENT_CHANNELS = 4  # of the paper's autoencoder


def latent_facts(length: int, num_classes: int, image_size: int) -> DatasetFacts:
    """Latents of `length` colour images of `image_size` pixels a side."""
    side = image_size // VAE_DOWNSAMPLING
    return DatasetFacts(length, (LATENT_CHANNELS, side, side), (3, image_size, image_size), num_classes, latents=True)


@dataclass(frozen=True)
class LatentOptions:
    """Latents are in the folder `name` of the data root; `vae` is the autoencoder that made them.

    Those of one's own images, or of a part of ImageNet, need all keys; of the data sets with a name, the others are
    known. `normalize`: the model sees (z - mean) / std, per channel, with the data set's mean and standard deviation.
    `text_encoder`, `caption_tokens` and `caption_features`: of the captions beside the latents, which the model is told
    instead of labels.
    """

    vae: str | None = None
    length: int | None = None
    num_classes: int | None = None
    image_size: int | None = None
    normalize: bool = False
    text_encoder: str | None = None
    caption_tokens: int | None = None
    caption_features: int | None = None


@dataclass(frozen=True)
class LatentSet:
    """`known`: of a data set with a name."""

    known: DatasetFacts | None = None
    options: type = LatentOptions

    def facts(self, name: str, options: LatentOptions) -> DatasetFacts:
        self._check(name, options)
        own = (options.length or 0, options.num_classes or 0, options.image_size or 0)
        asked = _asked(options)
        return (self.known or latent_facts(*own))._replace(
            normalized=options.normalize, caption_shape=None if asked is None else asked.shape
        )

    def load(self, name: str, options: LatentOptions, device: torch.device) -> Latents:
        from bench.data.latent_index import data_root
        from bench.data.latents import Latents

        self.check_ready(name, options)
        captions = None if _asked(options) is None else self.caption_bank(name, options)
        return Latents(data_root() / name, device, options.normalize, captions)

    def caption_bank(self, name: str, options: LatentOptions) -> StoredCaptions:
        from bench.data.captions.stored import StoredCaptions
        from bench.data.latent_index import data_root, read_index

        asked = _asked(options)
        assert asked is not None  # by its facts it has captions
        return StoredCaptions(data_root() / name, read_index(data_root() / name), asked)

    def reference(self, name: str, options: LatentOptions) -> Reference:
        raise AssertionError("samples of latents are compared with the reference that the recipe names")

    def check_ready(self, name: str, options: LatentOptions) -> None:
        from bench.data.captions.index import read_caption_index
        from bench.data.latent_index import check, data_root, read_index
        from bench.data.normalization import normalization_of

        facts, index = self.facts(name, options), read_index(data_root() / name)
        check(index, facts.length, facts.num_classes, facts.image_shape[1], str(options.vae))
        if options.normalize:
            normalization_of(index, data_root() / name)
        if (asked := _asked(options)) is not None:
            read_caption_index(data_root() / name, index, asked)

    def _check(self, name: str, options: LatentOptions) -> None:
        sizes: dict[str, Any] = {key: getattr(options, key) for key in ("length", "num_classes", "image_size")}
        given = [key for key, value in sizes.items() if value is not None]
        if self.known is not None and given:
            raise ValueError(f"{given[0]}: {name} is known; latents of other images need another name")
        if self.known is None and len(given) < len(sizes):
            missing = ", ".join(key for key in sizes if key not in given)
            raise ValueError(
                f"name: unknown dataset {name!r}; accepted: {', '.join(DATA.builtin)}, the path of your own such as "
                f"my_module:Name, or latents of your own images with {missing}"
            )
        for key in given:
            if sizes[key] <= 0:
                raise ValueError(f"{key}: {sizes[key]}; accepted: greater than 0")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"name: {name!r} is no folder name of letters, digits, dots, underscores and hyphens")
        if options.vae is None:
            raise ValueError("vae: missing; latents name the autoencoder that made them")
        if (options.image_size or 0) % VAE_DOWNSAMPLING:
            raise ValueError(
                f"image_size: {options.image_size} is not a multiple of {VAE_DOWNSAMPLING} (the autoencoder)"
            )
        _asked(options)


def _asked(options: LatentOptions) -> Asked | None:
    """The captions that a recipe names; None: it names none.

    Raises:
        ValueError: `key: what is wrong`.
    """
    given = {key: getattr(options, key) for key in ("text_encoder", "caption_tokens", "caption_features")}
    if all(value is None for value in given.values()):
        return None
    for key, value in given.items():
        if value is None:
            raise ValueError(f"{key}: missing; captions need {', '.join(given)}")
        if key != "text_encoder" and value <= 0:
            raise ValueError(f"{key}: {value}; accepted: greater than 0")
    return Asked(given["text_encoder"], (given["caption_tokens"], given["caption_features"]))


IMAGENET_256 = LatentSet(latent_facts(1_281_167, num_classes=1000, image_size=256))
IMAGENET_512 = LatentSet(latent_facts(1_281_167, num_classes=1000, image_size=512))
OWN = LatentSet()
