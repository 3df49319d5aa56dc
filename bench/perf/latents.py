"""What reading latents costs on a CPU, against copying the same bytes in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.latent_index import StoredVae
from bench.data.latents import Latents
from bench.data.moments import Moments, open_shard
from bench.data.shards import Settings, read_record, save_shard, write_index
from bench.perf.document import OURS
from bench.perf.turns import Measure, timed

LATENT_SHAPE = (4, 32, 32)  # of a 256 px image
SHARD_SIZE = 4096


def latents_read(folder: Path, latents: int = 16_384, batch_size: int = 256) -> Measure:
    """Shuffled batches of a set of random posteriors of 32x32x4, 32 KiB each, which is made in `folder`.

    Contenders: ours gathers a batch and draws from it, which is what training gets without reading ahead; a plain copy
    takes both flips' moments from the mapped files in order, a batch at a time, which is what memory allows; a
    shuffled copy is the gathering alone. `latents` are whole batches.
    """
    shards = _make_set(folder, latents)
    dataset, moments = Latents(folder, torch.device("cpu")), Moments(shards)
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(latents, generator=random).split(batch_size)
    buffer = np.empty((batch_size, *shards[0].shape[1:]), np.float16)
    everything = slice(None)

    def draw() -> None:
        for indices in order:
            dataset.batch(indices, everything, random)

    def copy() -> None:
        for shard in shards:
            for start in range(0, len(shard), batch_size):
                block = shard[start : start + batch_size]
                np.copyto(buffer[: len(block)], block)

    def gather() -> None:
        for indices in order:
            moments.gather(indices.numpy(), buffer)

    ways = {OURS: draw, "plain copy": copy, "shuffled copy": gather}
    return Measure(f"{latents:,} latents of 32x32x4", timed(ways), items=latents, unit="latents")


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
