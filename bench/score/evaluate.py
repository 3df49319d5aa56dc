"""One score of a run: weights of a kept step -> samples -> a row with the score's whole key and its metrics."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from bench.averages import EMA, name_of, snapshots_in
from bench.data import DATA, PixelDataset, data_part
from bench.data.decoders import load_decoder, of_normalized
from bench.data.images import open_images
from bench.data.latent_index import data_root, read_index
from bench.data.normalization import KEPT, kept_of, normalization_of, read_kept
from bench.data.pixels import is_clip, layout
from bench.errors import InputError, RunError
from bench.files.atomic import wait_for_file
from bench.files.checkpoint import CorruptCheckpoint
from bench.files.run_folder import average_paths
from bench.files.scored import samples_path
from bench.flops import forward_gmacs
from bench.parallel import Execution, Ranks
from bench.provenance import commit
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig, Score
from bench.recipe.parts import DiffusionConfig
from bench.sample import Sampling, features_folder, make_samples
from bench.samplers import network_calls
from bench.samplers.guide import Guide, check_latents, guide_of_recipe, load_guide, sampling_gmacs
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer, usable_metrics
from bench.score.reference import Reference, find_reference
from bench.weights import load_average
from models.parts import NoOptions

log = logging.getLogger(__name__)


def evaluate(
    recipe: Recipe, folder: Path, study_folder: Path, score: Score, device: torch.device, execution: Execution
) -> dict[str, Any] | None:
    """Sample with the weights of a kept step that `evaluation.ema` names, save the samples, and score them.

    Samples that are there, of this score or another one of the same samples, are not made again.

    Returns:
        On rank 0 a row of evals.jsonl or scores.jsonl: step, the key (sampler, ..., extractor, best_of), the metrics
        of `Scorer.score`, sampling speed (images/s of this session, null if it made none), and the path of the samples
        inside the folder; of scores.jsonl also score, its name; post_hoc, of how many snapshots the weights were made,
        if of any. None on other ranks.

    Raises:
        InputError: the decoder, the reference or the feature network is not there, or is not one.
        RunError: the weights cannot be read, weights, samples or scores are not finite, or the disk is full.
        Stopped: on request; finished batches are kept.
    """
    ranks, stop, step, evaluation = execution.ranks, execution.stop, score.step, score.evaluation
    seed = recipe.seed if score.seed is None else score.seed
    # All that scoring needs is made ready first, before hours of sampling.
    of_clips = is_clip(recipe.data.facts.shape)
    latents = read_index(data_root() / recipe.data.name) if recipe.data.facts.latents and not of_clips else None
    decoder = load_decoder(evaluation, device, execution.offline, latents)
    if decoder.latent_channels not in (None, recipe.data.facts.shape[0]):
        said = f"{decoder.latent_channels} latent channels, {recipe.data.name} has {recipe.data.facts.shape[0]}"
        raise InputError(f"evaluation.decoder: {decoder.id} has {said}")
    decoder, normalized = of_normalized(decoder, kept_of(recipe.data, folder))
    scorer = _scorer(recipe, evaluation, study_folder, device, execution)
    guide = guide_of_recipe(recipe, evaluation, execution.offline)
    _check_guide(guide, recipe, folder)
    sampled = sampling_key(evaluation, recipe.diffusion, decoder.id, guide)
    key = {"step": step, "weights": name_of(evaluation.ema), **sampled}
    gmacs = sampling_gmacs(evaluation, recipe.diffusion, forward_gmacs(recipe.model))
    made_of_snapshots = snapshots_in(evaluation.ema, recipe.train, step)
    facts = {**made_of_snapshots, **normalized, "sampling_gmacs": gmacs, "commit": commit()}
    path = samples_path(folder, step, score.samples)
    sampling = replace(Sampling.of(recipe, evaluation), seed=seed)
    if sampling.captions is not None:
        facts["captions"] = sampling.captions.id
    speed = make_samples(
        path,
        sampling,
        {"run": recipe.id, "seed": seed, **key, **facts},
        lambda: _load_model(recipe, folder, step, evaluation.ema, ranks),
        decoder,
        device,
        execution.precision,
        ranks,
        stop,
        replace_unknown=True,
        load_guide=_guide_loader(recipe, evaluation, folder, execution),
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
    name = {"score": score.name} if score.name else {}
    chosen = {"best_of": score.best_of} if score.best_of else {}
    facts = {**made_of_snapshots, "sampling_gmacs": gmacs, "sampling_images_per_s": speed, "samples": samples}
    return {**name, **key, **scorer.key, **chosen, **scores, **facts}


def sampling_key(
    evaluation: EvaluationConfig, diffusion: DiffusionConfig, decoder: str, guide: Guide | None = None
) -> dict[str, Any]:
    """The part of a score's key that says how samples are made of weights; `guide`: one from elsewhere."""
    guided, interval, step = evaluation.guidance_scale != 1, evaluation.guidance_interval, evaluation.guide_step
    # Of the run itself, by its step alone: seeds of one study are compared.
    own_guide = f"step {step}" if guided and evaluation.guide is None and step else None
    return {
        "sampler": evaluation.sampler_id,
        "sampling_steps": evaluation.sampling_steps,
        "network_calls": network_calls(evaluation, diffusion).sampler,
        "clip_denoised": evaluation.clip_denoised,
        "guidance_scale": evaluation.guidance_scale,
        "guidance_channels": evaluation.guidance_channels if guided else None,
        "guidance_interval": " to ".join(map(_plain, interval)) if guided and interval else None,
        "guide": guide.id if guide else own_guide,
        "decoder": decoder,
        "num_samples": evaluation.num_samples,
        "labels": evaluation.labels,
    }


def _plain(number: float) -> str:
    """In the shortest form that reads back as the same number."""
    return repr(number).removesuffix(".0")


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


def reference_of(recipe: Recipe, offline: bool, evaluation: EvaluationConfig | None = None) -> Reference:
    """What a recipe's samples are compared with: the data set's own images, or what the recipe names for latents.

    `evaluation`: one of the recipe's; default: the first.

    Raises:
        InputError, MissingAsset: it is not there, is none, or has images of another size than the samples.
    """
    data, name = recipe.data, (evaluation or recipe.evaluation).reference
    if name is None:
        reference = data_part(data.name).reference(data.name, data.options)
    else:
        reference = named_reference(name, offline)
    if reference.images is not None and tuple(reference.images.shape[1:]) != data.facts.image_shape:
        raise InputError(
            f"{reference.name}: its images are {tuple(reference.images.shape[1:])}, samples of {data.name} are "
            f"{data.facts.image_shape} {layout(data.facts.image_shape)}"
        )
    return reference


def check_scoring(recipe: Recipe, folder: Path, offline: bool) -> None:
    """Refuse, before anything is trained in `folder`, a guide, a reference or a metric that `evaluate` would refuse.

    Raises:
        InputError, MissingAsset: as `evaluate`.
    """
    for evaluation in recipe.evaluations:
        _check_guide(guide_of_recipe(recipe, evaluation, offline), recipe, folder)
        if evaluation.metrics is None and recipe.data.facts.latents:
            continue  # the suite's own metrics and references of a name always fit; reading these takes a while
        reference = reference_of(recipe, offline, evaluation)
        if evaluation.metrics is not None:
            extractor = load_extractor(evaluation.extractor, folder.parent / "features", offline)
            usable_metrics(evaluation.metrics, extractor, reference)


def _check_guide(guide: Guide | None, recipe: Recipe, folder: Path) -> None:
    """`check_latents`, by what a run in `folder` has kept or, before it begins, will keep."""
    if guide is None:
        return
    normalization = None
    if recipe.data.facts.normalized:
        latents = data_root() / recipe.data.name
        kept = (folder / KEPT).exists()
        normalization = read_kept(folder) if kept else normalization_of(read_index(latents), latents)
    try:
        check_latents(guide, normalization)
    except ValueError as error:
        raise InputError(f"evaluation.{error}") from None


def _load_model(recipe: Recipe, folder: Path, step: int, ema: str | None, ranks: Ranks) -> nn.Module:
    for path in average_paths(folder, recipe.train, step, ema):
        wait_for_file(path)
    model, damaged = models.create_model(**recipe.model.arguments()), None
    try:
        load_average(model, recipe, folder, step, ema)
    except CorruptCheckpoint as error:
        log.warning("not whole weights: %s", error)
        damaged = error.path
    except ValueError as error:
        raise RunError(str(error)) from None
    if any(ranks.maximum(float(damaged is not None))):
        if ranks.is_first and damaged:
            damaged.unlink(missing_ok=True)  # for training to make it again
        name = name_of(ema).replace(EMA, "EMA")
        raise RunError(
            f"{folder}: the {name} weights of step {step} cannot be read back; submit again to make them again"
        )
    return model


def _guide_loader(
    recipe: Recipe, evaluation: EvaluationConfig, folder: Path, execution: Execution
) -> Callable[[], nn.Module] | None:
    """Loads the network that guides, where it is not the null label."""
    step = evaluation.guide_step
    if evaluation.guidance_scale == 1 or (evaluation.guide is None and step is None):
        return None
    if evaluation.guide is not None:
        return lambda: load_guide(evaluation, recipe.diffusion, execution.offline).model
    assert step is not None
    return lambda: _load_model(recipe, folder, step, evaluation.ema, execution.ranks)


# The scorer of the last evaluation: runs of one study share the reference, whose features are the costly part.
_last_scorer: dict[tuple[object, ...], Scorer] = {}


def _scorer(
    recipe: Recipe, evaluation: EvaluationConfig, study_folder: Path, device: torch.device, execution: Execution
) -> Scorer:
    reference = reference_of(recipe, execution.offline, evaluation)
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
