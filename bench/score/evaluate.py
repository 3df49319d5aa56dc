"""Score one kept step of a run: EMA weights -> samples -> a row with the score's whole key and its metrics."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from bench.data import DATA, PixelDataset, data_part
from bench.data.decoders import load_decoder, of_normalized
from bench.data.images import open_images
from bench.data.latent_index import data_root, read_index
from bench.data.normalization import kept_of
from bench.errors import InputError, RunError
from bench.files import checkpoint
from bench.files.atomic import wait_for_file
from bench.files.run_folder import weights_path
from bench.parallel import Execution, Ranks
from bench.provenance import commit
from bench.recipe import EvaluationConfig, Recipe
from bench.sample import Sampling, features_folder, make_samples
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer, usable_metrics
from bench.score.reference import Reference, find_reference
from models.parts import NoOptions
from models.tensor_files import check_finite


def evaluate(
    recipe: Recipe, folder: Path, study_folder: Path, step: int, device: torch.device, execution: Execution
) -> dict[str, Any] | None:
    """Sample with the EMA weights of a kept step, save the samples in the run's folder, and score them.

    Returns:
        On rank 0 a row of evals.jsonl: step, the key (sampler, ..., reference, extractor), the metrics of
        `Scorer.score`, sampling speed (images/s of this session, null if it made none), and the path of the samples
        inside the folder. None on other ranks.

    Raises:
        InputError: the decoder, the reference or the feature network is not there, or is not one.
        RunError: the weights cannot be read, weights, samples or scores are not finite, or the disk is full.
        Stopped: on request; finished batches are kept.
    """
    ranks, stop, evaluation = execution.ranks, execution.stop, recipe.evaluation
    # All that scoring needs is made ready first, before hours of sampling.
    latents = read_index(data_root() / recipe.data.name) if recipe.data.facts.latents else None
    decoder = load_decoder(evaluation, device, execution.offline, latents)
    decoder, normalized = of_normalized(decoder, kept_of(recipe.data, folder))
    scorer = _scorer(recipe, study_folder, device, execution)
    key = {"step": step, "weights": "ema", **sampling_key(evaluation, decoder.id)}
    path = samples_path(folder, step)
    speed = make_samples(
        path,
        Sampling.of(recipe),
        {"run": recipe.id, "seed": recipe.seed, **key, **normalized, "commit": commit()},
        lambda: _load_model(recipe, folder, step, ranks),
        decoder,
        device,
        execution.precision,
        ranks,
        stop,
        replace_unknown=True,
    )
    features = features_folder(path, scorer.key["extractor"])
    try:
        scores = scorer.score(open_images(path), features, stop)
    except ValueError as error:
        raise RunError(f"{path}: cannot be scored ({error})") from None
    if not ranks.is_first:
        return None
    shutil.rmtree(features, ignore_errors=True)
    samples = str(path.relative_to(folder))
    return {**key, **scorer.key, **scores, "sampling_images_per_s": speed, "samples": samples}


def sampling_key(evaluation: EvaluationConfig, decoder: str) -> dict[str, Any]:
    """The part of a score's key that says how samples are made of weights."""
    return {
        "sampler": evaluation.sampler_id,
        "sampling_steps": evaluation.sampling_steps,
        "clip_denoised": evaluation.clip_denoised,
        "guidance_scale": evaluation.guidance_scale,
        "guidance_channels": evaluation.guidance_channels if evaluation.guidance_scale != 1 else None,
        "decoder": decoder,
        "num_samples": evaluation.num_samples,
        "labels": evaluation.labels,
    }


def samples_path(folder: Path, step: int) -> Path:
    """Where the samples of a kept step are: uint8 (N, C, H, W)."""
    return folder / "samples" / f"step-{step:08d}.npy"


def named_reference(name: str, offline: bool) -> Reference:
    """The images of a built-in data set of images by its name, or what `find_reference` finds.

    Raises:
        InputError, MissingAsset: see `find_reference`.
    """
    if name in DATA.builtin and not Path(name).exists():
        part = data_part(name)
        if isinstance(part, PixelDataset) and part.options is NoOptions:
            return part.reference(name, part.options())
    return find_reference(name, offline)


def reference_of(recipe: Recipe, offline: bool) -> Reference:
    """What a recipe's samples are compared with: the data set's own images, or what the recipe names for latents.

    Raises:
        InputError, MissingAsset: it is not there, is none, or has images of another size than the samples.
    """
    data, name = recipe.data, recipe.evaluation.reference
    if name is None:
        reference = data_part(data.name).reference(data.name, data.options)
    else:
        reference = named_reference(name, offline)
    if reference.images is not None and tuple(reference.images.shape[1:]) != data.facts.image_shape:
        raise InputError(
            f"{reference.name}: its images are {tuple(reference.images.shape[1:])}, samples of {data.name} are "
            f"{data.facts.image_shape} (C, H, W)"
        )
    return reference


def check_scoring(recipe: Recipe, study_folder: Path, offline: bool) -> None:
    """Refuse, before anything is trained, a reference or a metric that `evaluate` would refuse.

    Raises:
        InputError, MissingAsset: as `evaluate`.
    """
    evaluation = recipe.evaluation
    if evaluation.metrics is None and recipe.data.facts.latents:
        return  # the suite's own metrics and references of a name always fit; reading these takes a while
    reference = reference_of(recipe, offline)
    if evaluation.metrics is not None:
        extractor = load_extractor(evaluation.extractor, study_folder / "features", offline)
        usable_metrics(evaluation.metrics, extractor, reference)


def _load_model(recipe: Recipe, folder: Path, step: int, ranks: Ranks) -> nn.Module:
    wait_for_file(weights_path(folder / "checkpoints", step))
    weights = checkpoint.load_weights(folder / "checkpoints", step)
    (damaged,) = ranks.maximum(float(weights is None))
    if damaged or weights is None:
        if ranks.is_first and weights is None:
            weights_path(folder / "checkpoints", step).unlink(missing_ok=True)  # for training to make it again
        raise RunError(f"{folder}: the EMA weights of step {step} cannot be read back; submit again to make them again")
    try:
        check_finite(weights)
    except ValueError as error:
        raise RunError(f"{weights_path(folder / 'checkpoints', step)}: {error}") from None
    model = models.create_model(**recipe.model.arguments())
    model.load_state_dict(weights, strict=True)
    return model


# The scorer of the last evaluation: runs of one study share the reference, whose features are the costly part.
_last_scorer: dict[tuple[object, ...], Scorer] = {}


def _scorer(recipe: Recipe, study_folder: Path, device: torch.device, execution: Execution) -> Scorer:
    evaluation, reference = recipe.evaluation, reference_of(recipe, execution.offline)
    # Its id, not its name: another file may be under that by now.
    names = (reference.id, evaluation.extractor, evaluation.metrics, evaluation.kid_subset_size)
    identity = (*names, recipe.data, study_folder, device, execution.ranks)
    if identity not in _last_scorer:
        folder = study_folder / "features"
        network = load_extractor(evaluation.extractor, folder, execution.offline)
        _last_scorer.clear()
        _last_scorer[identity] = Scorer(
            reference,
            network,
            evaluation.kid_subset_size,
            folder,
            device,
            execution.ranks,
            execution.stop,
            evaluation.metrics,
        )
    return _last_scorer[identity]
