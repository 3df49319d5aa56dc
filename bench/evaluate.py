"""Score one kept step of a run: EMA weights -> samples -> a row with the score's whole key and its metrics."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import models
from bench import checkpoint, provenance
from bench.data import Dataset, reference_id
from bench.device import Precision
from bench.errors import RunError
from bench.fidelity import Scorer, extractor
from bench.recipe import Recipe
from bench.sample import sample_batches


def evaluate(
    recipe: Recipe,
    folder: Path,
    study_folder: Path,
    dataset: Dataset,
    step: int,
    device: torch.device,
    precision: Precision,
) -> dict[str, Any]:
    """Sample with the EMA weights of a kept step, save the samples in the run's folder, and score them.

    Returns:
        A row of evals.jsonl: step, the key (sampler, ..., reference, extractor), the metrics of `Scorer.score`,
        sampling speed (images/s), and the path of the samples inside the folder.

    Raises:
        RunError: the weights cannot be read, or the disk is full.
    """
    weights = checkpoint.load_weights(folder / "checkpoints", step)
    if weights is None:
        raise RunError(f"{folder}: the EMA weights of step {step} cannot be read back")
    model = models.create_model(**recipe.model.arguments())
    model.load_state_dict(weights, strict=True)
    model.to(device).eval()
    started = time.perf_counter()
    samples = torch.cat(list(sample_batches(model, recipe, dataset, device, precision)))
    seconds = time.perf_counter() - started
    scorer, key_of_scorer = _scorer(recipe, dataset, study_folder, device)
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
    path = folder / "samples" / f"step-{step:08d}.npy"
    _save_samples(path, samples, {"run": recipe.id, "seed": recipe.seed, **key, "commit": provenance.commit()})
    return {
        **key,
        **scorer.score(samples),
        "sampling_images_per_s": evaluation.num_samples / seconds,
        "samples": str(path.relative_to(folder)),
    }


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


def _save_samples(path: Path, samples: Tensor, made_from: dict[str, Any]) -> None:
    """`.npy` uint8 (N, C, H, W), and a `.json` beside it that says how it was made."""
    buffer = io.BytesIO()
    np.save(buffer, samples.numpy(), allow_pickle=False)
    checkpoint.write_atomically(path, buffer.getvalue())
    checkpoint.write_json(path.with_suffix(".json"), made_from)
