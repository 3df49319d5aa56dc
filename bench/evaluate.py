"""Score one kept step of a run: EMA weights -> samples -> a row with the score's whole key and its metrics.

Ranks share the sampling batch by batch. Every batch is a file as soon as it is made, so that an interruption loses one
batch a rank; the batches are the same whatever the number of ranks, and so is every sample.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import models
from bench import checkpoint
from bench.atomic import replace, write_json
from bench.data import Dataset, reference_id
from bench.device import Precision
from bench.distributed import SINGLE, Ranks
from bench.errors import RunError
from bench.fidelity import Scorer, extractor
from bench.recipe import Recipe
from bench.revision import commit
from bench.run_folder import weights_path
from bench.sample import batches, sample
from bench.stopping import Stopped, StopRequest


def evaluate(
    recipe: Recipe,
    folder: Path,
    study_folder: Path,
    dataset: Dataset,
    step: int,
    device: torch.device,
    precision: Precision,
    ranks: Ranks = SINGLE,
    stop: StopRequest | None = None,
) -> dict[str, Any] | None:
    """Sample with the EMA weights of a kept step, save the samples in the run's folder, and score them.

    Returns:
        On rank 0 a row of evals.jsonl: step, the key (sampler, ..., reference, extractor), the metrics of
        `Scorer.score`, sampling speed (images/s of this session, null if it made none), and the path of the samples
        inside the folder. None on other ranks.

    Raises:
        RunError: the weights cannot be read, or the disk is full.
        Stopped: on request; finished batches are kept.
    """
    stop = StopRequest() if stop is None else stop
    # The reference is made ready first, before hours of sampling.
    scorer, key_of_scorer = _scorer(recipe, dataset, study_folder, device) if ranks.is_first else (None, {})
    speed = _make_samples(recipe, folder, dataset, step, device, precision, ranks, stop)
    if scorer is None:
        _agree_to_stop(ranks, None)
        return None
    evaluation = recipe.evaluation
    key: dict[str, Any] = {
        "step": step,
        "weights": "ema",
        "sampler": evaluation.sampler,
        "sampling_steps": evaluation.sampling_steps,
        "clip_denoised": evaluation.clip_denoised,
        "guidance_scale": evaluation.guidance_scale,
        "guidance_channels": evaluation.guidance_channels if evaluation.guidance_scale != 1 else None,
        "decoder": dataset.decoder,
        "num_samples": evaluation.num_samples,
        "labels": evaluation.labels,
        **key_of_scorer,
    }
    path = samples_path(folder, step)
    _assemble(path, _parts_folder(folder, step), recipe)
    made_from = {"run": recipe.id, "seed": recipe.seed, **key, "commit": commit()}
    write_json(path.with_suffix(".json"), made_from)
    scores, stopped = {}, None
    try:
        with stop.interrupts():
            # "c": torch takes a writable mapping only; nothing is written to it.
            scores = scorer.score(torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False)))
    except Stopped as error:
        stopped = error
    _agree_to_stop(ranks, stopped)
    shutil.rmtree(_parts_folder(folder, step), ignore_errors=True)
    return {**key, **scores, "sampling_images_per_s": speed, "samples": str(path.relative_to(folder))}


def _agree_to_stop(ranks: Ranks, stopped: Stopped | None) -> None:
    """Return once rank 0 has scored; raise on every rank if it was stopped there."""
    (any_stopped,) = ranks.maximum(float(stopped is not None))
    if any_stopped:
        raise stopped or Stopped("stopped on request while rank 0 was scoring")


def samples_path(folder: Path, step: int) -> Path:
    """Where the samples of a kept step are: uint8 (N, C, H, W)."""
    return folder / "samples" / f"step-{step:08d}.npy"


def forget_samples(folder: Path, step: int) -> None:
    """Remove batches that were made with weights which are to be made again."""
    shutil.rmtree(_parts_folder(folder, step), ignore_errors=True)


def _parts_folder(folder: Path, step: int) -> Path:
    return folder / "samples" / f".step-{step:08d}"


def _part_path(parts: Path, start: int, stop: int) -> Path:
    return parts / f"{start:08d}-{stop:08d}.npy"


def _make_samples(
    recipe: Recipe,
    folder: Path,
    dataset: Dataset,
    step: int,
    device: torch.device,
    precision: Precision,
    ranks: Ranks,
    stop: StopRequest,
) -> float | None:
    """Make the batches that are not on disk yet; return images/s of all ranks together."""
    checkpoint.wait_for_file(weights_path(folder / "checkpoints", step))
    weights = checkpoint.load_weights(folder / "checkpoints", step)
    (spoilt,) = ranks.maximum(float(weights is None))
    if spoilt or weights is None:
        if ranks.is_first and weights is None:
            weights_path(folder / "checkpoints", step).unlink(missing_ok=True)  # for training to make it again
        raise RunError(f"{folder}: the EMA weights of step {step} cannot be read back; submit again to make them again")
    model = models.create_model(**recipe.model.arguments())
    model.load_state_dict(weights, strict=True)
    model.to(device).eval()
    parts = _parts_folder(folder, step)
    started, made = time.perf_counter(), 0
    for start, end in list(batches(recipe))[ranks.rank :: ranks.world_size]:
        path = _part_path(parts, start, end)
        if path.exists():
            continue
        if stop:
            break
        _save_array(path, sample(model, recipe, dataset, start, end, device, precision))
        made += end - start
    seconds = time.perf_counter() - started
    (stopped,) = ranks.maximum(float(bool(stop)))
    if stopped:
        raise Stopped(f"stopped on request while sampling step {step}; whole batches are kept")
    (images,) = ranks.total(made)
    (longest,) = ranks.maximum(seconds)
    return images / longest if images else None


def _save_array(path: Path, images: Tensor) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, images.numpy(), allow_pickle=False)

    replace(path, write)


def _assemble(path: Path, parts: Path, recipe: Recipe) -> None:
    """Join the batches into one array without holding it in memory."""
    ranges = list(batches(recipe))
    for start, end in ranges:
        checkpoint.wait_for_file(_part_path(parts, start, end))

    def write(aside: Path) -> None:
        whole = None
        for start, end in ranges:
            part = np.load(_part_path(parts, start, end), allow_pickle=False)
            if whole is None:
                shape = (recipe.evaluation.num_samples, *part.shape[1:])
                whole = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
            whole[start:end] = part
        assert whole is not None
        whole.flush()

    replace(path, write)


# The scorer of the last evaluation: runs of one study share the reference, whose features are the costly part.
_last_scorer: dict[tuple[object, ...], tuple[Scorer, dict[str, Any]]] = {}


def _scorer(
    recipe: Recipe, dataset: Dataset, study_folder: Path, device: torch.device
) -> tuple[Scorer, dict[str, Any]]:
    """The scorer of a recipe, and the part of a score's key that it decides."""
    evaluation = recipe.evaluation
    identity = (recipe.data, evaluation.extractor, evaluation.kid_subset_size, study_folder, device)
    if identity not in _last_scorer:
        network = extractor(evaluation.extractor, study_folder / "features")
        images = dataset.reference_images().cpu()
        key = {
            "reference": reference_id(recipe.data.name, images),
            "extractor": network.id,
            "extractor_accuracy": network.test_accuracy,
            "kid_subset_size": evaluation.kid_subset_size,
        }
        _last_scorer.clear()
        _last_scorer[identity] = Scorer(images, network, evaluation.kid_subset_size, device), key
    return _last_scorer[identity]
