"""What reading latents costs on a CPU, against copying the same bytes in order: medians of interleaved rounds."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.latent_index import StoredVae
from bench.data.latents import Latents
from bench.data.moments import Moments, open_shard
from bench.data.shards import Settings, read_record, save_shard, write_index

LATENT_SHAPE = (4, 32, 32)  # of a 256 px image
SHARD_SIZE = 4096


@dataclass(frozen=True)
class LatentsCost:
    """Latents per second from the page cache, in shuffled batches.

    Attributes:
        threads: of torch; copying and gathering take one.
        copy_per_s: both flips' moments copied from the mapped files in order, a batch at a time: what memory allows.
        gather_per_s: the same bytes, shuffled.
        batch_per_s: gathered, then drawn from: what training gets without reading ahead.
        gather_ratio, batch_ratio: of them to `copy_per_s`.
    """

    latents: int
    batch_size: int
    threads: int
    copy_per_s: float
    gather_per_s: float
    batch_per_s: float
    gather_ratio: float
    batch_ratio: float


def latents_cost(latents: int, batch_size: int, rounds: int) -> LatentsCost:
    """Make a temporary set of `latents` random posteriors of 32x32x4 (32 KiB each) and read it `rounds` times."""
    with tempfile.TemporaryDirectory() as folder:
        shards = _make_set(Path(folder), latents)
        dataset, moments = Latents(Path(folder), torch.device("cpu")), Moments(shards)
        random = torch.Generator().manual_seed(0)
        order = torch.randperm(latents, generator=random)
        order = order[: max(1, latents // batch_size) * batch_size].split(batch_size)
        buffer = np.empty((batch_size, *shards[0].shape[1:]), np.float16)
        everything = slice(None)

        def copy() -> None:
            for shard in shards:
                for start in range(0, len(shard), batch_size):
                    block = shard[start : start + batch_size]
                    np.copyto(buffer[: len(block)], block)

        def gather() -> None:
            for indices in order:
                moments.gather(indices.numpy(), buffer[: len(indices)])

        def draw() -> None:
            for indices in order:
                dataset.batch(indices, everything, random)

        read = sum(map(len, order))
        copied, gathered, drawn = _medians(rounds, copy, gather, draw)
        return LatentsCost(
            latents=latents,
            batch_size=batch_size,
            threads=torch.get_num_threads(),
            copy_per_s=latents / copied,
            gather_per_s=read / gathered,
            batch_per_s=read / drawn,
            gather_ratio=(read / gathered) / (latents / copied),
            batch_ratio=(read / drawn) / (latents / copied),
        )


def _medians(rounds: int, *work: Callable[[], None]) -> list[float]:
    """Median seconds of each, done in turns; the first round warms up."""
    seconds: list[list[float]] = [[] for _ in work]
    for _ in range(rounds + 1):
        for times, do in zip(seconds, work, strict=True):
            started = time.perf_counter()
            do()
            times.append(time.perf_counter() - started)
    return [statistics.median(times[1:]) for times in seconds]


def _make_set(folder: Path, latents: int) -> list[NDArray[np.float16]]:
    """Write random posteriors as `ditbench encode` writes them; return the shards, mapped."""
    channels, height, width = LATENT_SHAPE
    settings = Settings(
        vae=StoredVae(name="random", sha256="0" * 64),
        scale_factor=0.18215,
        latent_shape=LATENT_SHAPE,
        image_size=8 * height,
        precision="fp32",
        images=latents,
        images_sha256="0" * 64,
        shard_size=SHARD_SIZE,
    )
    random = np.random.default_rng(0)
    records = []
    for shard in range(settings.shards):
        positions = settings.positions(shard)
        shape = (len(positions), 2, 2 * channels, height, width)
        moments = random.standard_normal(shape, np.float32).astype(np.float16)
        save_shard(folder, shard, positions.start, moments, [0] * len(positions), [])
        record = read_record(folder, shard)
        assert record is not None
        records.append(record)
    index = write_index(folder, settings, ("all",), records)
    return [open_shard(folder / shard.file, shard.count, index.moments_shape) for shard in index.shards]
