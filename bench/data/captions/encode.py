"""Encode the captions of a folder of images once, beside its latents: shard by shard, of the same images each.

A shard's record is written last: a shard without one, or that does not fit its record or the captions as they are now,
is made again. So any number of processes share the work, and an interrupted one loses the shard that it was at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from bench.data.captions.index import FOLDER, CaptionIndex, images_id
from bench.data.encode import Part
from bench.data.image_folder import ImageFolder
from bench.data.latent_index import INDEX, LatentIndex, Sha256, Shard, Stored, StoredEncoder, file_sha256
from bench.data.shards import (
    ShardRecord,
    agree,
    joined_versions,
    parse,
    read_record,
    record_path,
    save_array,
    shard_path,
)
from bench.errors import RunError
from bench.files.atomic import write_json
from bench.files.names import shown

WHOLE = Part()


class Tokens(NamedTuple):
    """Of N captions: embeddings (N, S, D), whether there is a token (N, S), and how many have more than S tokens."""

    embeddings: Tensor
    mask: Tensor
    cut: int


class TextEncoder(Protocol):
    """What makes embeddings of texts: S tokens with D features each; `sha256` of all that decides them."""

    name: str
    sha256: str
    tokens: int
    features: int
    versions: Mapping[str, str]

    def __call__(self, texts: Sequence[str]) -> Tokens: ...


class CaptionSettings(Stored):
    """What all processes that encode captions to one folder must agree on."""

    text_encoder: StoredEncoder
    tokens: PositiveInt
    features: PositiveInt
    images: PositiveInt
    shard_size: PositiveInt


class CaptionRecord(Stored):
    """What is in a shard: embeddings, masks, and of which texts; `cut`: how many have more tokens."""

    count: PositiveInt
    texts_sha256: Sha256
    sha256: Sha256
    mask_sha256: Sha256
    cut: NonNegativeInt
    versions: dict[str, str]


@dataclass(frozen=True)
class EncodedCaptions:
    """What a call did: as `bench.data.encode.Encoded`."""

    index: CaptionIndex | None
    made: int
    kept: int
    missing: int


def encode_captions(
    images: ImageFolder,
    captions: Sequence[str],
    out: Path,
    latents: LatentIndex | None,
    encoder: TextEncoder,
    shard_size: int,
    batch_size: int,
    part: Part = WHOLE,
    on_captions: Callable[[int, int], object] = lambda done, total: None,
) -> EncodedCaptions:
    """Make a part's shards of captions that are not whole, of images whose latents are in `out`; and the index, once
    all are there.

    Args:
        captions: of each image of the list, those left out among them.
        latents: None, while shards of other parts are missing.

    Raises:
        InputError: other settings than the folder's.
        RunError: the disk is full, memory runs out, or an embedding is not finite.
    """
    folder = out / FOLDER
    encoded_by = StoredEncoder(name=shown(encoder.name), sha256=encoder.sha256)
    count = len(images.paths)
    agree(
        folder,
        CaptionSettings(
            text_encoder=encoded_by,
            tokens=encoder.tokens,
            features=encoder.features,
            images=count,
            shard_size=shard_size,
        ),
    )
    shards = range(-(-count // shard_size))
    texts = {
        shard: [captions[position] for position in _positions(images, record)]
        for shard in shards
        if (record := read_record(out, shard)) is not None and record.count
    }
    own = [shard for shard in shards[part.index :: part.count] if shard in texts]
    todo = [shard for shard in own if not _is_whole(folder, shard, texts[shard])]
    if todo:
        (folder / INDEX).unlink(missing_ok=True)  # an index says that all shards are whole
    done, total = 0, sum(len(texts[shard]) for shard in todo)
    for shard in todo:
        made = []
        for start in range(0, len(texts[shard]), batch_size):
            made.append(_encoded(encoder, texts[shard][start : start + batch_size], batch_size))
            done += len(made[-1].mask)
            on_captions(done, total)
        _save(folder, shard, texts[shard], made, encoder)
    records = {shard: parse(CaptionRecord, record_path(folder, shard)) for shard in texts}
    there = {shard: record for shard, record in records.items() if record is not None}
    missing = len(texts) - len(there)
    index = None
    if latents is not None and not missing:
        index = _write_index(folder, latents, encoder, encoded_by, there)
    return EncodedCaptions(index, len(todo), len(own) - len(todo), missing)


def _positions(images: ImageFolder, record: ShardRecord) -> list[int]:
    """In the list, of the images whose latents are in a shard."""
    corrupt = {image.path for image in record.corrupt}
    listed = range(record.start, record.start + record.count + len(record.corrupt))
    return [position for position in listed if shown(images.paths[position]) not in corrupt]


def _encoded(encoder: TextEncoder, texts: Sequence[str], batch_size: int) -> Tokens:
    try:
        return encoder(texts)
    except torch.OutOfMemoryError:
        raise RunError(
            f"out of memory with --batch-size {batch_size}; finished shards are kept, and a smaller batch continues"
        ) from None


def mask_path(folder: Path, shard: int) -> Path:
    """Where a shard's masks are."""
    return folder / f"mask-{shard:05d}.npy"


def _save(folder: Path, shard: int, texts: Sequence[str], made: Sequence[Tokens], encoder: TextEncoder) -> None:
    """Write embeddings and masks and, once both are whole on disk, their record."""
    record_path(folder, shard).unlink(missing_ok=True)
    mask: NDArray[np.bool_] = torch.cat([each.mask for each in made]).cpu().numpy().astype(np.bool_)
    embeddings: NDArray[Any] = np.concatenate([each.embeddings.to(torch.float16).cpu().numpy() for each in made])
    # What a text encoder makes of padding says nothing.
    embeddings[~mask] = 0
    for problem, fine in (
        ("no token", mask.any(axis=1)),
        ("embeddings that are not finite in float16", np.isfinite(embeddings).all(axis=(1, 2))),
    ):
        if not fine.all():
            raise RunError(f"{folder}: by {encoder.name}, {texts[int(np.argmin(fine))]!r} has {problem}")
    save_array(shard_path(folder, shard), embeddings)
    save_array(mask_path(folder, shard), mask)
    record = CaptionRecord(
        count=len(texts),
        texts_sha256=_texts_sha256(texts),
        sha256=file_sha256(shard_path(folder, shard)),
        mask_sha256=file_sha256(mask_path(folder, shard)),
        cut=sum(each.cut for each in made),
        versions=dict(encoder.versions),
    )
    write_json(record_path(folder, shard), record.model_dump(mode="json"))


def _is_whole(folder: Path, shard: int, texts: Sequence[str]) -> bool:
    """Whether a shard is there, as its record says, and of these texts."""
    record = parse(CaptionRecord, record_path(folder, shard))
    if record is None or (record.count, record.texts_sha256) != (len(texts), _texts_sha256(texts)):
        return False
    files = {shard_path(folder, shard): record.sha256, mask_path(folder, shard): record.mask_sha256}
    return all(path.exists() and file_sha256(path) == sha256 for path, sha256 in files.items())


def _texts_sha256(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def _write_index(
    folder: Path,
    latents: LatentIndex,
    encoder: TextEncoder,
    encoded_by: StoredEncoder,
    records: Mapping[int, CaptionRecord],
) -> CaptionIndex:
    index = CaptionIndex(
        count=sum(record.count for record in records.values()),
        tokens=encoder.tokens,
        features=encoder.features,
        text_encoder=encoded_by,
        images_sha256=images_id(latents),
        cut=sum(record.cut for record in records.values()),
        shards=tuple(
            Shard(file=shard_path(folder, number).name, count=record.count, sha256=record.sha256)
            for number, record in records.items()
        ),
        masks=tuple(
            Shard(file=mask_path(folder, number).name, count=record.count, sha256=record.mask_sha256)
            for number, record in records.items()
        ),
        versions=joined_versions([record.versions for record in records.values()]),
    )
    write_json(folder / INDEX, index.model_dump(mode="json"))
    return index
