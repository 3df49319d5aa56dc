"""How training reads latents: every batch is a new draw from the posteriors that `ditbench encode` has written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.latent_index import AGAIN, INDEX, LOG_VARIANCE_RANGE, LatentIndex, Shard, file_sha256, read_index
from bench.data.moments import NO_NPY, Moments, all_finite, open_shard
from bench.data.normalization import normalization_of
from bench.device import sent
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.data.captions.stored import StoredCaptions

# Float sums of the same numbers may differ in their last digits between versions of numpy.
PROBE_TOLERANCE = 1e-6

# More batches are not read ahead: the oldest is forgotten.
MAX_PENDING = 4


class Latents:
    """Training data (a `bench.data.Dataset`): every batch is a new draw from the posteriors of its images."""

    def __init__(
        self, folder: Path, device: torch.device, normalize: bool = False, captions: StoredCaptions | None = None
    ) -> None:
        """Open a folder for training on `device`; moments stay on disk, in the page cache if they fit.

        Every file is read once, for its checksum: 42 GB of ImageNet at 256 pixels, by as many threads as there are
        cores. `normalize`: less the data set's mean, divided by its standard deviation, per channel. `captions`: what
        batches have instead of labels.

        Raises:
            InputError: a file is missing, damaged, not finite, or not what index.json says; it is named. Or a channel
                that is to be normalised does not vary.
        """
        self.index = read_index(folder)
        self.num_classes = self.index.num_classes
        shape = self.index.moments_shape
        self._moments = Moments([open_shard(folder / s.file, s.count, shape) for s in self.index.shards])
        self._check_probe(folder)
        check_shards(folder, self.index.shards, shape)
        self._captions = captions
        if captions is not None:
            check_shards(captions.folder, captions.index.shards, captions.index.shape)
        self._labels = torch.from_numpy(read_labels(folder, self.index)).long()
        self._device = device
        self._normalization: tuple[Tensor, Tensor] | None = None
        if normalize:
            from bench.data.shards import check_statistics  # imports diffusers, which nothing else here needs

            self._normalization = normalization_of(self.index, folder).tensors(device)
            check_statistics(folder, self.index)
        self._pending: dict[bytes, _Reading] = {}

    def __len__(self) -> int:
        return self.index.count

    def batch(self, indices: Tensor, share: slice, random: torch.Generator) -> tuple[Tensor, Any]:
        """Draws from the posteriors of `indices[share]`, each flipped or not: x (N, C, h, w) float32, scaled,
        and normalised if asked for; labels (N,), or captions.

        Args:
            indices: of the whole batch, (B,) int64 on the CPU.
            share: the rows to return.
            random: on the device; noise and flips are drawn for the whole batch, so that any number of ranks gets
                the same examples.

        Raises:
            IndexError: an index beyond the last.
        """
        own = indices[share]
        read = self._take(own)
        moments, rows = (sent(tensor, self._device) for tensor in read.moments)
        size = len(indices)
        noise = torch.randn((size, *self.index.latent_shape), generator=random, device=self._device)[share]
        flipped = (torch.rand(size, generator=random, device=self._device) < 0.5)[share]
        chosen = moments.flatten(0, 1).index_select(0, 2 * rows + flipped)
        mean, log_variance = chosen.float().chunk(2, dim=1)
        std = log_variance.clamp_(*LOG_VARIANCE_RANGE).mul_(0.5).exp_()
        x = noise.mul_(std).add_(mean).mul_(self.index.scale_factor)
        if self._normalization is not None:
            mean, std = self._normalization
            x.sub_(mean).div_(std)
        if self._captions is not None and read.captions is not None:
            return x, self._captions.captions(own, *read.captions, self._device)
        return x, sent(self._labels[own], self._device)

    def read_ahead(self, indices: Tensor) -> None:
        """Begin reading what `batch` will be asked for, `indices[share]` (N,), in a thread of its own.

        Raises:
            IndexError: an index beyond the last.
        """
        key = indices.numpy().tobytes()
        if key in self._pending:
            return
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"indices from {int(indices.min())} to {int(indices.max())} of {len(self)} latents")
        while len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[key] = _Reading(self._reader(indices))

    def _take(self, indices: Tensor) -> _Read:
        reading = self._pending.pop(indices.numpy().tobytes(), None)
        found = reading.result() if reading else None
        return found or self._reader(indices)()

    def _reader(self, indices: Tensor) -> Callable[[], _Read]:
        """What reads the rows of `indices` (N,)."""
        size, pinned, captions = len(indices), self._device.type == "cuda", self._captions
        # Made in the caller's thread, whose current device is the right one to pin for.
        moments = torch.empty((size, *self.index.moments_shape), dtype=torch.float16, pin_memory=pinned)
        embeddings = None if captions is None else captions.buffer(size, pinned)

        def read() -> _Read:
            rows = torch.from_numpy(self._moments.gather(indices.numpy(), moments.numpy()))
            if captions is None or embeddings is None:
                return _Read((moments, rows), None)
            return _Read((moments, rows), (embeddings, captions.gather(indices, embeddings)))

        return read

    def _check_probe(self, folder: Path) -> None:
        stored = self.index.probe
        try:
            found = self._moments.probe(stored.indices)
        except ValueError:  # not finite: `check_shards` names the file
            return
        for what in ("mean", "std"):
            ours, theirs = getattr(found, what), getattr(stored, what)
            if len(ours) != len(theirs) or not np.allclose(ours, theirs, PROBE_TOLERANCE, PROBE_TOLERANCE):
                raise InputError(
                    f"{folder / INDEX}: probe.{what}: {theirs}, but the shards give {ours}: they were altered, and "
                    f"`ditbench encode` with the same arguments finds which and makes them again"
                )


def check_shards(folder: Path, shards: Sequence[Shard], row_shape: tuple[int, ...]) -> None:
    """Compare every shard's bytes with the checksum in index.json, and look for numbers that are not finite.

    Raises:
        InputError: the first shard that is altered or has such numbers, by name.
    """

    # numpy reads a header with Python's parser, which 3.11 cannot use in two threads at once: SystemError.
    opening = threading.Lock()

    def check(shard: Shard) -> None:
        path = folder / shard.file
        check_sha256(path, shard.sha256)
        with opening:
            rows = open_shard(path, shard.count, row_shape)
        if not all_finite(rows):
            raise InputError(f"{path}: has numbers that are not finite; {AGAIN}")

    with ThreadPoolExecutor() as threads:  # hashing and numpy work without Python's lock
        for _ in threads.map(check, shards):
            pass


def check_sha256(path: Path, sha256: str) -> None:
    """Compare a file with its checksum in index.json.

    Raises:
        InputError: it is missing, cannot be read, or is another file.
    """
    try:
        digest = file_sha256(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {AGAIN}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    if digest != sha256:
        raise InputError(f"{path}: its SHA-256 begins with {digest[:8]}, in {INDEX} {sha256[:8]}; {AGAIN}")


class _Read(NamedTuple):
    """Rows of a batch: moments (N, 2, 2C, h, w) float16 in some order and the row of each index (N,), and embeddings of
    captions (N, S, D) likewise."""

    moments: tuple[Tensor, Tensor]
    captions: tuple[Tensor, Tensor] | None


class _Reading:
    """A batch that a thread reads. The thread is a daemon: a process that ends does not wait for it."""

    def __init__(self, read: Callable[[], _Read]) -> None:
        self._read = read
        self._result: _Read | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._result = self._read()

    def result(self) -> _Read | None:
        """What was read; None in a process that was forked while it was being read, where the thread is not."""
        self._thread.join()
        return self._result


def read_labels(folder: Path, index: LatentIndex) -> NDArray[np.int32]:
    """All labels, (N,), checked by their checksum."""
    path = folder / index.labels.file
    try:
        # Mapped first: what its header says may be more than there is.
        labels = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {AGAIN}") from None
    except NO_NPY as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); {AGAIN}") from None
    check_sha256(path, index.labels.sha256)
    if labels.dtype != np.int32 or labels.shape != (index.count,):
        raise InputError(f"{path}: {labels.dtype} {labels.shape}, expected int32 {(index.count,)}; {AGAIN}")
    return labels
