"""Latents of images that need not be there, with captions by a text encoder of words."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from bench.data.captions.encode import EncodedCaptions, Tokens, encode_captions
from bench.data.encode import Part
from bench.data.image_folder import ImageFolder
from bench.data.latent_index import Corrupt, LatentIndex, StoredVae
from bench.data.shards import Settings, agree, read_record, save_shard, write_index

TOKENS, FEATURES, SHARD_SIZE = 5, 8, 4
SECTION = {"vae": "tiny-vae", "length": 14, "num_classes": 3, "image_size": 16}
OF_CAPTIONS = {"text_encoder": "words", "caption_tokens": TOKENS, "caption_features": FEATURES}
WORDS = ("cat", "dog", "eel", "small", "old", "in", "the", "snow")


class WordEncoder:
    """A vector of each word, and others where there is none."""

    name, tokens, features = "words", TOKENS, FEATURES

    def __init__(self, sha256: str = "cd" * 32) -> None:
        self.sha256 = sha256
        self.versions: Mapping[str, str] = {"words": "1"}

    def __call__(self, texts: Sequence[str]) -> Tokens:
        embeddings = torch.full((len(texts), TOKENS, FEATURES), 7.0)
        mask = torch.zeros(len(texts), TOKENS, dtype=torch.bool)
        for row, text in enumerate(texts):
            for place, word in enumerate(text.split()[:TOKENS]):
                embeddings[row, place], mask[row, place] = vector(word), True
        return Tokens(embeddings, mask, sum(len(text.split()) > TOKENS for text in texts))


def vector(word: str) -> torch.Tensor:
    """(D,) of which float16 has every bit."""
    random = np.random.default_rng(zlib.crc32(word.encode()))
    return torch.from_numpy(random.integers(-100, 100, FEATURES)).float() / 64


def images() -> ImageFolder:
    """14 images of 3 classes."""
    names = [f"{name}/{number}.png" for name, count in (("cat", 5), ("dog", 4), ("eel", 5)) for number in range(count)]
    labels = [("cat", "dog", "eel").index(name.partition("/")[0]) for name in names]
    return ImageFolder(Path("photos"), ("cat", "dog", "eel"), tuple(names), tuple(labels))


def captions() -> list[str]:
    """One an image, each otherwise, of 2 to 6 words."""
    return [" ".join([WORDS[k % 3], *WORDS[3 : 4 + k % 5], f"number{k}"]) for k in range(14)]


def write_latents(folder: Path, corrupt: Sequence[int] = ()) -> LatentIndex:
    """Random latents of the images, without the `corrupt` ones."""
    listed = images()
    settings = Settings(
        vae=StoredVae(name="tiny-vae", sha256="ab" * 32),
        scale_factor=0.5,
        latent_shape=(4, 2, 2),
        image_size=16,
        precision="fp32",
        images=len(listed.paths),
        images_sha256="ef" * 32,
        shard_size=SHARD_SIZE,
    )
    agree(folder, settings)
    random = np.random.default_rng(0)
    records = []
    for shard in range(settings.shards):
        positions = settings.positions(shard)
        kept = [position for position in positions if position not in corrupt]
        moments = random.standard_normal((len(kept), 2, 8, 2, 2)).astype(np.float16)
        left_out = [
            Corrupt(path=listed.paths[position], reason="none") for position in positions if position in corrupt
        ]
        save_shard(folder, shard, positions.start, moments, [listed.labels[position] for position in kept], left_out)
        record = read_record(folder, shard)
        assert record is not None
        records.append(record)
    return write_index(folder, settings, listed.classes, records)


def write_captions(
    folder: Path,
    index: LatentIndex | None,
    texts: Sequence[str] | None = None,
    part: Part = Part(),  # noqa: B008 - frozen
    encoder: WordEncoder | None = None,
) -> EncodedCaptions:
    return encode_captions(
        images(), texts or captions(), folder, index, encoder or WordEncoder(), SHARD_SIZE, batch_size=3, part=part
    )
