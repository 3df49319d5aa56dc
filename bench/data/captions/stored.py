"""Captions that are read from disk: for training with the latents beside them, and to make samples of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.captions import Asked
from bench.data.captions.arrays import by_turns, check_tokens
from bench.data.captions.index import FOLDER, read_caption_index
from bench.data.latent_index import AGAIN, LatentIndex, Shard
from bench.data.latents import check_sha256, read_labels
from bench.data.moments import NO_NPY, Rows, all_finite, open_shard
from bench.device import sent
from bench.errors import InputError
from models.conditions import Captions


class StoredCaptions:
    """A `CaptionBank`: masks in memory, embeddings on disk, in the page cache if they fit."""

    def __init__(self, latents: Path, index: LatentIndex, asked: Asked) -> None:
        """Open the captions in the folder of `latents`. Masks are compared with their checksums; for embeddings see
        `bench.data.latents.check_shards`.

        Raises:
            InputError: a file is missing, damaged, or not what index.json or the recipe says; it is named.
        """
        self.folder = latents / FOLDER
        self.index = read_caption_index(latents, index, asked)
        self.id = self.index.id
        shards = [open_shard(self.folder / s.file, s.count, self.index.shape) for s in self.index.shards]
        self._embeddings = Rows(shards)
        self._mask = torch.from_numpy(np.concatenate(self._masks()))
        self.order = by_turns(read_labels(latents, index))

    def __len__(self) -> int:
        return self.index.count

    def buffer(self, size: int, pinned: bool = False) -> Tensor:
        """Where `size` embeddings go, (size, S, D) float16."""
        return torch.empty((size, *self.index.shape), dtype=torch.float16, pin_memory=pinned)

    def gather(self, indices: Tensor, buffer: Tensor) -> Tensor:
        """Copy the embeddings of `indices` (N,) to a buffer in ascending order; the row of each index, (N,)."""
        return torch.from_numpy(self._embeddings.gather(indices.numpy(), buffer.numpy()))

    def captions(self, indices: Tensor, buffer: Tensor, rows: Tensor, device: torch.device) -> Captions:
        """Of what `gather` has copied, on a device."""
        embeddings = sent(buffer, device)[sent(rows, device)].float()
        dropped = torch.zeros(len(indices), dtype=torch.bool, device=device)
        return Captions(embeddings, sent(self._mask[indices], device), dropped)

    def take(self, indices: Tensor, device: torch.device) -> Captions:
        """As `CaptionBank.take`.

        Raises:
            InputError: an embedding is not finite.
        """
        indices = indices.cpu()
        buffer = self.buffer(len(indices))
        rows = self.gather(indices, buffer)
        if len(indices) and not all_finite(buffer.numpy()):
            raise InputError(f"{self.folder}: has numbers that are not finite; {AGAIN}")
        return self.captions(indices, buffer, rows, device)

    def _masks(self) -> list[NDArray[np.bool_]]:
        masks, first = [], 0
        for stored in self.index.masks:
            masks.append(_read_mask(self.folder / stored.file, stored, self.index.tokens))
            check_tokens(masks[-1], str(self.folder / stored.file), first)
            first += stored.count
        return masks


def _read_mask(path: Path, stored: Shard, tokens: int) -> NDArray[np.bool_]:
    try:
        # Mapped first: what its header says may be more than there is.
        mask = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; captions without masks are of no use; {AGAIN}") from None
    except NO_NPY as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); {AGAIN}") from None
    check_sha256(path, stored.sha256)
    if mask.dtype != np.bool_ or mask.shape != (stored.count, tokens):
        raise InputError(f"{path}: {mask.dtype} {mask.shape}, expected bool {(stored.count, tokens)}; {AGAIN}")
    return mask
