"""Samples of a trained model as one uint8 array file, sample i the same whatever the batch, the ranks or N.

Every batch is a file as soon as it is made by one of the ranks, so that an interruption loses at most one batch per
rank; the batches are the same whatever the number of ranks. At the end they are joined into one array, without holding
it in memory, and beside it is written how it was made (`bench.provenance`).
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import shapes
from bench.data.captions import CaptionBank
from bench.data.decoders import Decoder
from bench.data.images import open_images
from bench.data.pixels import check_finite
from bench.device import is_out_of_memory, release_memory
from bench.errors import InputError, RunError
from bench.files.atomic import replace, wait_for_file, write_json
from bench.objectives import OBJECTIVES
from bench.objectives.denoiser import Network
from bench.parallel import Precision, Ranks, autocast, full_precision, placed
from bench.provenance import FACTS, completed, made_from_path, read_made_from, write_made_from
from bench.randomness import Stream, generator
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.recipe.parts import DiffusionConfig
from bench.samplers import SAMPLERS
from bench.samplers.guidance import guided
from bench.stopping import Stopped, StopRequest
from models.conditions import Condition

log = logging.getLogger(__name__)

# Noise and labels are drawn for this many consecutive sample indices at a time. Part of every result: never change.
CHUNK = 50


@dataclass(frozen=True)
class Sampling:
    """Which samples: what `evaluation` says of sampler, steps, guidance and labels, for one seed.

    Attributes:
        diffusion: the objective that the model was trained with.
        shape: (C, *spatial) of a sample in the model's range.
        num_classes: of the labels; label `num_classes` is the null label.
        captions: what images are made of, of a model that is told captions instead of labels.
    """

    evaluation: EvaluationConfig
    seed: int
    diffusion: DiffusionConfig
    shape: tuple[int, ...]
    num_classes: int
    captions: CaptionBank | None = None

    @classmethod
    def of(cls, recipe: Recipe, evaluation: EvaluationConfig | None = None) -> Sampling:
        """The samples that a recipe asks for, by its `evaluation` or one of its `scores`.

        Raises:
            InputError: the data set's captions are not there, or damaged.
        """
        arch, captions = recipe.model.architecture(), recipe.data.caption_bank()
        asked = evaluation or recipe.evaluation
        return cls(asked, recipe.seed, recipe.diffusion, arch.input_shape, arch.num_classes, captions)

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
        """Uniformly random labels, or numbers of captions, (N,) int64."""
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
    guide: nn.Module | None = None,
) -> Tensor:
    """Samples start .. stop - 1 of a model in evaluation mode, (N, C, H, W) uint8 on the CPU.

    Labels, or the numbers of captions, are the index modulo how many there are (balanced) or uniformly random. All
    indices form one batch. The decoder computes in full precision, in batches of its own.

    Raises:
        ValueError: a prediction of the network, a sample or an image of it is not finite.
    """
    evaluation = sampling.evaluation
    draw = ChunkedNoise(sampling.seed, start, stop, sampling.shape, device)
    condition = _condition(sampling, start, stop, draw, device)
    scale, channels, interval = evaluation.guidance_scale, evaluation.guidance_channels, evaluation.guidance_interval
    network = guided(model, condition, sampling.num_classes, sampling.shape[0], scale, channels, interval, guide)
    watched = _Watched(network, device)
    objective = OBJECTIVES.find(sampling.diffusion.objective)(sampling.diffusion.options, device)
    sampler = SAMPLERS.find(evaluation.sampler)
    options = sampler.options(**evaluation.sampler_options)
    with autocast(device, precision):
        denoiser = objective.denoiser(watched, evaluation.clip_denoised)
        noise = draw()
        x = sampler.sample(denoiser, noise, evaluation.sampling_steps, draw, options)
    shapes.check_samples(sampler, x, noise.shape)
    if not watched.finite:
        raise ValueError("the network's predictions are not finite")
    check_finite(x, "samples")
    with full_precision():
        return decoder.decode(x)


def _condition(sampling: Sampling, start: int, stop: int, draw: ChunkedNoise, device: torch.device) -> Condition:
    """What samples start .. stop - 1 are made of; "balanced" takes captions in their order, or class by class."""
    captions = sampling.captions
    number = sampling.num_classes if captions is None else len(captions)
    if sampling.evaluation.labels == "balanced":
        chosen = torch.arange(start, stop, device=device) % number
        order = getattr(captions, "order", None)
        chosen = chosen if order is None else torch.from_numpy(order).to(device)[chosen]
    else:
        chosen = draw.labels(number)
    return chosen if captions is None else captions.take(chosen, device)


class _Watched:
    """A network of which it is known afterwards whether all predictions were finite; nothing waits for the device.

    A clipped x0 hides an infinite prediction, so the samples do not tell.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network = network
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def __call__(self, x: Tensor, t: Tensor, time: float) -> Tensor:
        output = self._network(x, t, time)
        self._finite = self._finite & output.isfinite().all()
        return output

    @property
    def finite(self) -> bool:
        return bool(self._finite)


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
    replace_unknown: bool = False,
    load_guide: Callable[[], nn.Module] | None = None,
) -> float | None:
    """Make what is missing of the samples in `path`, uint8 (N, C, H, W).

    Args:
        made_from: all that decides the samples; written beside them, and compared with what is there.
        load_model: the model, called if a sample is missing.
        replace_unknown: make samples again that are damaged or of which nothing tells how they were made.
        load_guide: the network of `evaluation.guide` or `guide_step`, where these are used, likewise.

    Returns:
        Images/s of all ranks together; None if all samples were there.

    Raises:
        InputError: the file, or its unfinished batches, are other samples, or nothing tells which.
        RunError: the disk is full, the weights cannot be read, samples are not finite (nothing of them is kept), or one
            alone does not fit into memory.
        Stopped: on request; finished batches are kept.
    """
    problem = ranks.from_first(_other_samples(path, made_from, replace_unknown) if ranks.is_first else None)
    if problem:
        raise InputError(problem)
    if ranks.from_first(path.exists()):
        wait_for_file(path)
        return None
    parts = _parts_folder(path)
    model = placed(load_model(), device).eval()
    guide = placed(load_guide(), device).eval() if load_guide else None
    if ranks.is_first:
        write_json(_unfinished_path(path), made_from)
    started, made = time.perf_counter(), 0
    at_once = sampling.evaluation.batch_size
    for start, end in list(sampling.batches())[ranks.rank :: ranks.world_size]:
        part = _part_path(parts, start, end)
        if part.exists():
            continue
        if stop:
            break
        try:
            images, at_once = _sample_as_memory_allows(
                lambda first, last: sample(model, sampling, decoder, first, last, device, precision, guide),
                (start, end),
                at_once,
            )
        except ValueError as error:
            _forget_unfinished(path)
            evaluation = sampling.evaluation
            raise RunError(
                f"{path}: not made: samples {start} to {end - 1} by {evaluation.sampler_id} in "
                f"{evaluation.sampling_steps} steps with guidance_scale {evaluation.guidance_scale:g}: {error}"
            ) from None
        _save_array(part, images)
        made += end - start
    seconds = time.perf_counter() - started
    (stopped,) = ranks.maximum(float(bool(stop)))
    if stopped:
        raise Stopped(f"stopped on request while sampling {path.name}; whole batches are kept")
    (images,) = ranks.total(made)
    (longest,) = ranks.maximum(seconds)
    if ranks.is_first:
        _join(path, parts, sampling, made_from)
    ranks.wait_for_all()
    wait_for_file(path)
    return images / longest if images else None


def _sample_as_memory_allows(
    make: Callable[[int, int], Tensor], indices: tuple[int, int], at_once: int
) -> tuple[Tensor, int]:
    """Samples of a range of indices, so many at once, or half as many where memory runs out; and how many it was.

    They are the same up to rounding, so that a batch can be made at all without another one being asked for.

    Raises:
        RunError: there is no memory for a single one.
    """
    start, stop = indices
    while True:
        try:
            parts = [make(first, min(first + at_once, stop)) for first in range(start, stop, at_once)]
            return torch.cat(parts), at_once
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        tried = min(at_once, stop - start)
        if tried == 1:
            raise RunError(f"out of memory with a single sample ({reason})")
        at_once = tried // 2
        log.warning("out of memory with %d samples at once; going on with %d (%s)", tried, at_once, reason)
        release_memory()


def features_folder(path: Path, extractor_id: str) -> Path:
    """Where the features of samples are while these are scored."""
    return path.with_name(f".{path.name}-{extractor_id}")


def forget_samples(path: Path) -> None:
    """Remove samples, batches of them and their features: their weights are to be made again."""
    _forget_unfinished(path)
    for folder in path.parent.glob(f".{glob.escape(path.name)}-*/"):
        shutil.rmtree(folder, ignore_errors=True)
    path.unlink(missing_ok=True)
    made_from_path(path).unlink(missing_ok=True)


def _forget_unfinished(path: Path) -> None:
    shutil.rmtree(_parts_folder(path), ignore_errors=True)
    _unfinished_path(path).unlink(missing_ok=True)


def _other_samples(path: Path, made_from: dict[str, Any], replace_unknown: bool) -> str | None:
    """What is wrong with the samples, or the batches of them, that are there, if they are others."""
    there = _known(path, replace_unknown) if path.exists() else {}
    if path.exists() and not there:
        if not replace_unknown:
            return f"{path}: samples of unknown origin are there; give another file"
        log.warning("%s: damaged, or nothing tells how these samples were made: they are made again", path)
        forget_samples(path)
    if not path.exists():
        try:
            there = json.loads(_unfinished_path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            return f"{_unfinished_path(path)}: cannot be read ({error}); it says what the batches beside it are"
    there, wanted = completed(there), json.loads(json.dumps(made_from))
    keys = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key) and key not in FACTS]
    differing = "; ".join(f"{key} is {there.get(key)!r} there, {wanted.get(key)!r} here" for key in keys)
    return f"{path}: holds other samples ({differing}); give another file" if keys else None


def _known(path: Path, replace_unknown: bool) -> dict[str, Any]:
    try:
        return read_made_from(path, open_images(path).content_hash())
    except InputError:
        if replace_unknown:
            return {}
        raise


def _unfinished_path(path: Path) -> Path:
    """How the batches are made that are not joined yet."""
    return path.with_name(f".{path.name}.json")


def _parts_folder(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _part_path(parts: Path, start: int, stop: int) -> Path:
    return parts / f"{start:08d}-{stop:08d}.npy"


def _save_array(path: Path, images: Tensor) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, images.numpy(), allow_pickle=False)

    replace(path, write)


def _join(path: Path, parts: Path, sampling: Sampling, made_from: dict[str, Any]) -> None:
    ranges = list(sampling.batches())
    for start, end in ranges:
        wait_for_file(_part_path(parts, start, end))

    def write(aside: Path) -> None:
        whole, digest = None, hashlib.sha256()
        for start, end in ranges:
            part = np.load(_part_path(parts, start, end), allow_pickle=False)
            if whole is None:
                shape = (sampling.evaluation.num_samples, *part.shape[1:])
                whole = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
                digest.update(f"uint8 {shape}".encode())  # as `Images.content_hash`
            whole[start:end] = part
            digest.update(part.data)
        assert whole is not None
        whole.flush()
        # Before the samples: whoever finds these finds how they were made.
        write_made_from(path, made_from, digest.hexdigest())

    replace(path, write)
    _forget_unfinished(path)
