"""Samples of a trained model as one uint8 array, sample i the same whatever the batch, device count or N."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.decoders import Decoder
from bench.device import Precision, autocast, full_precision
from bench.diffusion import GaussianDiffusion
from bench.randomness import Stream, generator
from bench.recipe import EvaluationConfig, Recipe
from bench.samplers import guided, sample_ddim, sample_ddpm
from models.dit import DiT

# Noise and labels are drawn for this many consecutive sample indices at a time. Part of every result: never change.
CHUNK = 50


@dataclass(frozen=True)
class Sampling:
    """Which samples: what `evaluation` says of sampler, steps, guidance and labels, for one seed and process.

    Attributes:
        timesteps: of the forward process that the model was trained with.
    """

    evaluation: EvaluationConfig
    seed: int
    timesteps: int

    @classmethod
    def of(cls, recipe: Recipe) -> Sampling:
        """The samples that a recipe asks for."""
        return cls(recipe.evaluation, recipe.seed, recipe.diffusion.timesteps)

    def batches(self) -> Iterator[tuple[int, int]]:
        """The (start, stop) of every batch, in order, `batch_size` samples each."""
        evaluation = self.evaluation
        for start in range(0, evaluation.num_samples, evaluation.batch_size):
            yield start, min(start + evaluation.batch_size, evaluation.num_samples)


class ChunkedNoise:
    """Standard normal noise for samples start .. stop - 1, from one generator for each chunk of indices.

    A chunk is always drawn whole, so a sample's noise depends on the seed and its index alone.
    """

    def __init__(self, seed: int, start: int, stop: int, shape: tuple[int, ...], device: torch.device) -> None:
        first, last = start // CHUNK, (stop - 1) // CHUNK
        self._random = [generator(seed, Stream.SAMPLE, chunk, device) for chunk in range(first, last + 1)]
        self._slice = slice(start - first * CHUNK, stop - first * CHUNK)
        self._shape = shape
        self._device = device

    def labels(self, num_classes: int) -> Tensor:
        """Uniformly random labels (N,) int64."""
        drawn = [torch.randint(num_classes, (CHUNK,), generator=r, device=self._device) for r in self._random]
        return torch.cat(drawn)[self._slice]

    def __call__(self) -> Tensor:
        """The next noise, (N, *shape)."""
        drawn = [torch.randn((CHUNK, *self._shape), generator=r, device=self._device) for r in self._random]
        return torch.cat(drawn)[self._slice]


@torch.inference_mode()
def sample(
    model: DiT, sampling: Sampling, decoder: Decoder, start: int, stop: int, device: torch.device, precision: Precision
) -> Tensor:
    """Samples start .. stop - 1 of a model in evaluation mode, (N, C, H, W) uint8 on the CPU.

    Labels are `index % num_classes` (balanced) or uniformly random. All indices form one batch. The decoder computes
    in full precision, in batches of its own.
    """
    evaluation, arch = sampling.evaluation, model.arch
    draw = ChunkedNoise(sampling.seed, start, stop, (arch.in_channels, arch.input_size, arch.input_size), device)
    if evaluation.labels == "balanced":
        y = torch.arange(start, stop, device=device) % arch.num_classes
    else:
        y = draw.labels(arch.num_classes)
    diffusion = GaussianDiffusion.linear(sampling.timesteps, device).respace(evaluation.sampling_steps)
    network = guided(model, y, evaluation.guidance_scale, evaluation.guidance_channels)
    with autocast(device, precision):
        if evaluation.sampler == "ddpm":
            x = sample_ddpm(network, diffusion, draw(), draw, evaluation.clip_denoised)
        else:
            x = sample_ddim(network, diffusion, draw(), evaluation.clip_denoised)
    with full_precision():
        return decoder.decode(x)
