"""Captions on disk, as `ditbench encode --captions` writes them in the folder of the latents that they belong to.

<data root>/<name>/captions/
  shard-00000.npy     float16 (n, S, D): the embeddings of n images' captions, 0 where there is no token
  mask-00000.npy      bool (n, S): whether there is one
  shard-00000.json    their record (see `bench.data.captions.encode`)
  settings.json       what all processes that encode must agree on
  index.json          the last file that is written: what is in the others

Row i is of the image whose latents are row i. Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt, ValidationError

from bench.data.captions import Asked, told
from bench.data.latent_index import AGAIN, INDEX, LatentIndex, Sha256, Shard, Stored, StoredEncoder
from bench.errors import InputError
from bench.schema import describe

FOLDER = "captions"


class CaptionIndex(Stored):
    """What index.json says of a folder of captions.

    Attributes:
        count: images.
        tokens, features: S and D.
        images_sha256: of which images they are, as `images_id` has it.
        cut: captions that have more tokens, of which the first S were taken.
        shards, masks: as many, of the same captions each.
    """

    format: Literal[1] = 1
    count: PositiveInt
    tokens: PositiveInt
    features: PositiveInt
    text_encoder: StoredEncoder
    images_sha256: Sha256
    cut: NonNegativeInt
    dtype: Literal["float16"] = "float16"
    shards: tuple[Shard, ...]
    masks: tuple[Shard, ...]
    versions: dict[str, str]

    @property
    def shape(self) -> tuple[int, int]:
        """(S, D)."""
        return self.tokens, self.features

    @property
    def id(self) -> str:
        """The text encoder's name and eight digits of a checksum of all embeddings and masks."""
        content = json.dumps([shard.sha256 for shard in (*self.shards, *self.masks)])
        return f"{self.text_encoder.name}@{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def images_id(latents: LatentIndex) -> str:
    """Which images latents are of: a checksum of classes, labels, and those that were left out."""
    content = [latents.classes, latents.labels.sha256, [image.path for image in latents.corrupt]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def read_caption_index(latents: Path, index: LatentIndex, asked: Asked) -> CaptionIndex:
    """What the folder of captions in that of `latents` holds; none of its other files is opened.

    Raises:
        InputError: no index, not one of this format, masks that are missing or do not fit, or captions of other images
            or by another text encoder than a recipe says.
    """
    path = latents / FOLDER / INDEX
    try:
        found = CaptionIndex.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `ditbench encode --captions` writes it, with masks") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, CaptionIndex)}") from None
    if [shard.count for shard in found.shards] != [mask.count for mask in found.masks]:
        raise InputError(f"{path}: masks: not one for each caption of its shards; {AGAIN}")
    held = sum(shard.count for shard in found.shards)
    if held != found.count:
        raise InputError(f"{path}: count: {found.count}, but its shards hold {held}; {AGAIN}")
    if (found.count, found.images_sha256) != (index.count, images_id(index)):
        raise InputError(
            f"{path}: of other images than the latents beside it ({found.count:,}, {index.count:,}); {AGAIN}"
        )
    if found.text_encoder.name != asked.text_encoder:
        raise InputError(f"data.text_encoder: {asked.text_encoder}, but {path} has {found.text_encoder.name}")
    if found.shape != asked.shape:
        raise InputError(
            f"data.caption_tokens, caption_features: {told(asked.shape)}, but {path} has {told(found.shape)}"
        )
    return found
