"""Samples of a trained model as one uint8 array file, sample i the same whatever the batch, the ranks or N.

Every batch is a file as soon as it is made by one of the ranks, so that an interruption loses at most one batch per
rank; the batches are the same whatever the number of ranks. At the end they are joined into one array, without holding
it in memory, and beside it is written how it was made.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.decoders import Decoder
from bench.errors import InputError
from bench.files.atomic import replace, wait_for_file, write_json
from bench.objectives import OBJECTIVES
from bench.parallel import Precision, Ranks, autocast, full_precision
from bench.randomness import Stream, generator
from bench.recipe import DiffusionConfig, EvaluationConfig, Recipe
from bench.samplers import SAMPLERS
from bench.samplers.guidance import guided
from bench.stopping import Stopped, StopRequest

# Noise and labels are drawn for this many consecutive sample indices at a time. Part of every result: never change.
CHUNK = 50


@dataclass(frozen=True)
class Sampling:
    """Which samples: what `evaluation` says of sampler, steps, guidance and labels, for one seed.

    Attributes:
        diffusion: the objective that the model was trained with.
        shape: (C, *spatial) of a sample in the model's range.
        num_classes: of the labels; label `num_classes` is the null label.
    """

    evaluation: EvaluationConfig
    seed: int
    diffusion: DiffusionConfig
    shape: tuple[int, ...]
    num_classes: int

    @classmethod
    def of(cls, recipe: Recipe) -> Sampling:
        """The samples that a recipe asks for."""
        arch = recipe.model.architecture()
        return cls(recipe.evaluation, recipe.seed, recipe.diffusion, arch.input_shape, arch.num_classes)

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
    model: nn.Module,
    sampling: Sampling,
    decoder: Decoder,
    start: int,
    stop: int,
    device: torch.device,
    precision: Precision,
) -> Tensor:
    """Samples start .. stop - 1 of a model in evaluation mode, (N, C, H, W) uint8 on the CPU.

    Labels are `index % num_classes` (balanced) or uniformly random. All indices form one batch. The decoder computes
    in full precision, in batches of its own.
    """
    evaluation = sampling.evaluation
    draw = ChunkedNoise(sampling.seed, start, stop, sampling.shape, device)
    if evaluation.labels == "balanced":
        labels = torch.arange(start, stop, device=device) % sampling.num_classes
    else:
        labels = draw.labels(sampling.num_classes)
    scale, channels = evaluation.guidance_scale, evaluation.guidance_channels
    network = guided(model, labels, sampling.num_classes, sampling.shape[0], scale, channels)
    objective = OBJECTIVES.find(sampling.diffusion.objective)(sampling.diffusion.options, device)
    sampler = SAMPLERS.find(evaluation.sampler)
    options = sampler.options(**evaluation.sampler_options)
    with autocast(device, precision):
        denoiser = objective.denoiser(network, evaluation.clip_denoised)
        x = sampler.sample(denoiser, draw(), evaluation.sampling_steps, draw, options)
    with full_precision():
        return decoder.decode(x)


def make_samples(
    path: Path,
    sampling: Sampling,
    made_from: dict[str, Any],
    load_model: Callable[[], nn.Module],
    decoder: Decoder,
    device: torch.device,
    precision: Precision,
    ranks: Ranks,
    stop: StopRequest,
) -> float | None:
    """Make what is missing of the samples in `path`, uint8 (N, C, H, W).

    Args:
        made_from: all that decides the samples; written beside them, and compared with what is there.
        load_model: the model, called if a sample is missing.

    Returns:
        Images/s of all ranks together; None if all samples were there.

    Raises:
        InputError: the file, or its unfinished batches, are other samples.
        RunError: the disk is full, or the weights cannot be read.
        Stopped: on request; finished batches are kept.
    """
    problem = ranks.from_first(_other_samples(path, made_from) if ranks.is_first else None)
    if problem:
        raise InputError(problem)
    if ranks.from_first(path.exists()):
        wait_for_file(path)
        return None
    parts = _parts_folder(path)
    if ranks.is_first:
        write_json(_made_from_path(path), made_from)
    model = load_model().to(device).eval()
    started, made = time.perf_counter(), 0
    for start, end in list(sampling.batches())[ranks.rank :: ranks.world_size]:
        part = _part_path(parts, start, end)
        if part.exists():
            continue
        if stop:
            break
        _save_array(part, sample(model, sampling, decoder, start, end, device, precision))
        made += end - start
    seconds = time.perf_counter() - started
    (stopped,) = ranks.maximum(float(bool(stop)))
    if stopped:
        raise Stopped(f"stopped on request while sampling {path.name}; whole batches are kept")
    (images,) = ranks.total(made)
    (longest,) = ranks.maximum(seconds)
    if ranks.is_first:
        _join(path, parts, sampling)
    ranks.wait_for_all()
    wait_for_file(path)
    return images / longest if images else None


def read_made_from(path: Path) -> dict[str, Any]:
    """How the samples in `path` were made; empty if that is not known.

    Raises:
        InputError: the file beside them is damaged.
    """
    beside = _made_from_path(path)
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{beside}: cannot be read ({error}); it says how {path.name} was made") from None
    if not isinstance(content, dict):
        raise InputError(f"{beside}: not a JSON object that says how {path.name} was made")
    return content


def features_folder(path: Path, extractor_id: str) -> Path:
    """Where the features of samples are while these are scored."""
    return path.with_name(f".{path.stem}-{extractor_id}")


def forget_samples(path: Path) -> None:
    """Remove samples, batches of them and their features: their weights are to be made again."""
    for folder in path.parent.glob(f".{path.stem}*/"):
        shutil.rmtree(folder, ignore_errors=True)
    path.unlink(missing_ok=True)
    _made_from_path(path).unlink(missing_ok=True)


def _other_samples(path: Path, made_from: dict[str, Any]) -> str | None:
    """What is wrong with the samples that are there, if they are others."""
    there = read_made_from(path)
    if not there:
        return f"{path}: samples of unknown origin are there; give another file" if path.exists() else None
    wanted = json.loads(json.dumps(made_from))
    keys = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key) and key != "commit"]
    differing = "; ".join(f"{key} is {there.get(key)!r} there, {wanted.get(key)!r} here" for key in keys)
    return f"{path}: holds other samples ({differing}); give another file" if keys else None


def _made_from_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _parts_folder(path: Path) -> Path:
    return path.with_name(f".{path.stem}")


def _part_path(parts: Path, start: int, stop: int) -> Path:
    return parts / f"{start:08d}-{stop:08d}.npy"


def _save_array(path: Path, images: Tensor) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, images.numpy(), allow_pickle=False)

    replace(path, write)


def _join(path: Path, parts: Path, sampling: Sampling) -> None:
    ranges = list(sampling.batches())
    for start, end in ranges:
        wait_for_file(_part_path(parts, start, end))

    def write(aside: Path) -> None:
        whole = None
        for start, end in ranges:
            part = np.load(_part_path(parts, start, end), allow_pickle=False)
            if whole is None:
                shape = (sampling.evaluation.num_samples, *part.shape[1:])
                whole = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
            whole[start:end] = part
        assert whole is not None
        whole.flush()

    replace(path, write)
    shutil.rmtree(parts, ignore_errors=True)
