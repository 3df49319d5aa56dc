"""Features of images, extracted by all ranks in fixed chunks, each a file as soon as it is made.

The chunks are the same whatever the number of ranks, so features and statistics are too, and an interruption loses one
chunk a rank. Statistics stream through the chunks; only what needs all features at once holds them in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.data.images import Images
from bench.errors import RunError
from bench.files import checkpoint
from bench.files.atomic import wait_for_file
from bench.parallel import Ranks, full_precision
from bench.score.frechet import Gaussian, RunningGaussian
from bench.stopping import Stopped, StopRequest
from models.files.tensor_files import check_finite

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

# Images a file, and images a call of the network. Both decide the last bits of a feature: part of every result.
CHUNK = 512
BATCH = 64


@dataclass(frozen=True)
class Features:
    """Features on disk: for each layer of a network, (N, D) float32; beside them a hash of the pixels of each chunk."""

    folder: Path
    num_images: int

    def chunks(self, layer: str) -> Iterator[Tensor]:
        """A layer's features in order, (n, D) a chunk.

        Raises:
            RunError: a chunk is damaged; it is removed, and the same call of `extract` makes it again.
        """
        for tensors, _ in self._files():
            yield tensors[layer]

    def all(self, layer: str) -> Tensor:
        """A layer's features, (N, D)."""
        return torch.cat(list(self.chunks(layer)))

    def content_hash(self) -> str:
        """SHA-256, in hex, over the pixels that the features are of: known without decoding the images again."""
        digest = hashlib.sha256()
        for _, metadata in self._files():
            digest.update(metadata["pixels"].encode())
        return digest.hexdigest()

    def _files(self) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
        for start in range(0, self.num_images, CHUNK):
            path = _chunk_path(self.folder, start)
            wait_for_file(path)
            try:
                yield checkpoint.load_tensors(path)
            except checkpoint.CorruptCheckpoint as error:
                path.unlink(missing_ok=True)
                raise RunError(f"damaged features, removed; the same command makes them again: {error}") from None

    def gaussian(self, layer: str, parts: int = 1) -> Gaussian:
        """Mean and covariance of a layer, in float64; of all parts, where a row is so many features side by side."""
        chunks = (chunk.reshape(len(chunk) * parts, -1) for chunk in self.chunks(layer))
        first = next(chunks)
        running = RunningGaussian(first.shape[1])
        for chunk in chain([first], chunks):
            running.update(chunk)
        return running.result()


def extract(
    images: Images,
    network: FeatureExtractorBase,
    folder: Path,
    device: torch.device,
    ranks: Ranks,
    stop: StopRequest,
) -> Features:
    """Make what is missing of the features of `images` in `folder`; all ranks must call it.

    Grey images, and grey clips, are repeated to three channels.

    Raises:
        Stopped: on request; finished chunks are kept.
        RunError: features are not finite, which are not kept, or the disk is full.
    """
    place(network, device)
    num_images = images.shape[0]
    for start in range(0, num_images, CHUNK)[ranks.rank :: ranks.world_size]:
        path = _chunk_path(folder, start)
        if path.exists():
            continue
        if stop:
            break
        chunk, pixels = _features_of(images, network, start, min(start + CHUNK, num_images), device)
        try:
            check_finite(chunk)
        except ValueError as error:
            last = min(start + CHUNK, num_images) - 1
            raise RunError(f"{path}: not written, features of images {start} to {last}: layer {error}") from None
        checkpoint.save_tensors(path, chunk, {"pixels": pixels})
    (stopped,) = ranks.maximum(float(bool(stop)))
    if stopped:
        raise Stopped("stopped on request while extracting features; finished chunks are kept")
    return Features(folder, num_images)


def place(network: FeatureExtractorBase, device: torch.device) -> None:
    """Move a network, and lay its weights as the device has them: channels last is for CPUs."""
    network.to(device)
    if device.type != "cpu":  # nobody measured that channels last pays elsewhere in full precision
        network.to(memory_format=torch.contiguous_format)


@torch.inference_mode()
def _features_of(
    images: Images, network: FeatureExtractorBase, start: int, stop: int, device: torch.device
) -> tuple[dict[str, Tensor], str]:
    """Layer -> features (n, D) of images start .. stop - 1; and a hash of their shape and pixels."""
    batches = []
    sides = images.shape[2:]
    pixels = hashlib.sha256(f"uint8 {images.shape[1:]}".encode())
    for first in range(start, stop, BATCH):
        batch = images.batch(first, min(first + BATCH, stop))
        pixels.update(batch.numpy().data)
        with full_precision():
            batches.append([layer.cpu() for layer in network(batch.expand(-1, 3, *sides).to(device))])
    layers = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    return dict(zip(network.features_list, layers, strict=True)), pixels.hexdigest()


def _chunk_path(folder: Path, start: int) -> Path:
    return folder / f"features-{start:08d}.safetensors"
