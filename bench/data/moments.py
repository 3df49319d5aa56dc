"""Shards of stored posteriors, or of captions: mapped to memory and gathered by index."""

from __future__ import annotations

import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.latent_index import AGAIN, Probe
from bench.errors import InputError

EXPONENT = 0x7C00  # of float16; all of its bits are set in NaN and infinity alone
BLOCK = 2**22  # numbers
# What numpy raises for a file that is no .npy, or a damaged one.
NO_NPY = (OSError, ValueError, EOFError, TypeError, LookupError, RecursionError, MemoryError, tokenize.TokenError)


def open_shard(path: Path, count: int, row_shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Map a shard's rows, such as moments (2, 2C, h, w) each; nothing of them is read yet.

    Raises:
        InputError: the file is missing, truncated, longer than it says, or holds something else.
    """
    try:
        moments = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {AGAIN}") from None
    except NO_NPY as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); {AGAIN}") from None
    found = (moments.dtype, moments.shape, moments.flags.c_contiguous)
    if found != (np.float16, (count, *row_shape), True):
        raise InputError(f"{path}: {moments.dtype} {moments.shape}, expected float16 {(count, *row_shape)}; {AGAIN}")
    if path.stat().st_size != moments.offset + moments.nbytes:
        raise InputError(f"{path}: {path.stat().st_size} bytes, expected {moments.offset + moments.nbytes}; {AGAIN}")
    return np.asarray(moments)  # a plain array indexes faster than np.memmap


def all_finite(moments: NDArray[np.float16]) -> bool:
    """Whether no number is NaN or infinite: by its bits, in a fraction of the time of `numpy.isfinite`."""
    bits = moments.reshape(-1).view(np.uint16)
    blocks = (bits[start : start + BLOCK] for start in range(0, len(bits), BLOCK))
    return all(int((block & EXPONENT).max()) < EXPONENT for block in blocks)


class Rows:
    """All shards as one array (N, ...) whose rows are gathered by index."""

    def __init__(self, shards: Sequence[NDArray[np.float16]]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, indices: NDArray[np.int64], out: NDArray[np.float16]) -> NDArray[np.int64]:
        """Copy the rows of `indices` (n,) to `out` (n, ...) in ascending order of index.

        Ascending reads are sequential within a shard. The interpreter is free meanwhile: threads gather side by side.

        Returns:
            (n,): the row of `out` that has that of each index.

        Raises:
            IndexError: an index that is negative or beyond the last.
        """
        order = np.argsort(indices, kind="stable")
        ascending = indices[order]
        if len(indices) and not 0 <= ascending[0] <= ascending[-1] < len(self):
            raise IndexError(f"indices from {ascending[0]} to {ascending[-1]} of {len(self)} latents")
        ends = np.searchsorted(ascending, self._starts)
        for shard, start, first, end in zip(self._shards, self._starts, ends, ends[1:], strict=False):
            if first < end:
                # The range is checked; with "raise" numpy would gather to a buffer of its own first.
                np.take(shard, ascending[first:end] - start, axis=0, out=out[first:end], mode="clip")
        rows = np.empty_like(order)
        rows[order] = np.arange(len(order))
        return rows


class Moments(Rows):
    """Those of latents, (N, 2, 2C, h, w)."""

    def probe(self, indices: Sequence[int]) -> Probe:
        """Mean and standard deviation of the stored means of these images."""
        _, flips, twice_channels, *sides = self._shards[0].shape
        moments = np.empty((len(indices), flips, twice_channels, *sides), np.float16)
        self.gather(np.asarray(indices, np.int64), moments)
        means = moments[:, 0, : twice_channels // 2].astype(np.float64)
        mean, std = means.mean(axis=(0, 2, 3)), means.std(axis=(0, 2, 3))
        return Probe(indices=tuple(indices), mean=tuple(mean.tolist()), std=tuple(std.tolist()))
