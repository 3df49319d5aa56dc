"""The guide of autoguidance (Karras et al. 2024, arXiv 2406.02507): another network of ours, by a run or a file.

Importing this module imports no torch; a guide that is no run's is read with it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.data.captions import told
from bench.data.normalization import Normalization, kept_of
from bench.errors import InputError
from bench.files.run_folder import read_config, weights_path
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.recipe.parts import DiffusionConfig
from bench.samplers import network_calls
from models.files.assets import MissingAsset
from models.registry import caption_shape_of

if TYPE_CHECKING:
    from bench.weights import Weights


class Guide(NamedTuple):
    """What is known of a guide; `id` is what a score's key says of it: a run's id and step, or a name and a hash.

    `normalization`: of the latents that it learned.
    """

    id: str
    arch: Any
    diffusion: DiffusionConfig
    gmacs: float
    normalization: Normalization | None


def guide_of(evaluation: EvaluationConfig, arch: Any, diffusion: DiffusionConfig, offline: bool) -> Guide | None:
    """The guide that `evaluation.guide` and `guide_step` name, for a network `arch` that learned by `diffusion`.

    None without guidance, or where the guide is the null label or the run's own.

    Raises:
        ValueError: `guide: what is wrong`, or `guide_step`: there are no such weights, or their predictions are not
            of what the guided network predicts.
        InputError, MissingAsset: a run's recipe or a file that cannot be read or fetched.
    """
    if evaluation.guide is None or evaluation.guidance_scale == 1:
        return None
    found = _find(evaluation.guide, evaluation.guide_step, offline, diffusion)
    for what, (its, ours) in {
        "takes (C, *spatial)": (found.arch.input_shape, arch.input_shape),
        "is told": (_told(found.arch), _told(arch)),
        "predicts channels": (found.arch.out_channels, arch.out_channels),
        "learned": (_said(found.diffusion), _said(diffusion)),
    }.items():
        if its != ours:
            raise ValueError(f"guide: {found.id} {what} {its}, the guided model {ours}; accepted: the same of both")
    return found


def guide_of_recipe(recipe: Recipe, evaluation: EvaluationConfig, offline: bool) -> Guide | None:
    """As `guide_of`, for one of a recipe's evaluations.

    Raises:
        InputError, MissingAsset: as there.
    """
    try:
        return guide_of(evaluation, recipe.model.architecture(), recipe.diffusion, offline)
    except ValueError as error:
        raise InputError(f"evaluation.{error}") from None


def check_latents(guide: Guide | None, normalization: Normalization | None) -> None:
    """Refuse a guide whose latents were normalised otherwise than those of the network that it guides.

    Raises:
        ValueError: `guide: by what either were`.
    """
    if guide is not None and guide.normalization != normalization:
        both = (guide.normalization, normalization)
        its, ours = (f"normalised as {each.id}" if each else "as they are" for each in both)
        raise ValueError(f"guide: {guide.id} sees latents {its}, the guided model {ours}; accepted: the same of both")


def load_guide(
    evaluation: EvaluationConfig, diffusion: DiffusionConfig, offline: bool, ema: str | None = None
) -> Weights:
    """The weights of what `guide_of` found, of a run's average `ema`; errors as there."""
    from bench.weights import load_weights_of

    name, step = evaluation.guide, evaluation.guide_step
    assert name is not None
    if not _is_run(name):
        return _of_file(name, step, offline, diffusion)
    return load_weights_of(name, read_config(Path(name)).train.steps if step is None else step, offline, ema)


def forward_passes(evaluation: EvaluationConfig, diffusion: DiffusionConfig, gmacs: float) -> float:
    """Forward passes of one sample in those of the model, of `gmacs` each: the sampler's, and with guidance a second
    one of the null label or of the guide, by its cost.

    The one place that says so: plans, queues and rows of scores ask here. A guide that is not there (yet) counts as
    much as the model.

    Raises:
        ValueError: as `network_calls`.
    """
    calls = network_calls(evaluation, diffusion)
    if evaluation.guide is None or not calls.guided:
        return calls.sampler + calls.guided
    try:
        share = _gmacs(evaluation.guide, evaluation.guide_step, diffusion.model_dump_json()) / gmacs
    except (InputError, ValueError, OSError):
        share = 1.0
    return calls.sampler + calls.guided * share


def sampling_gmacs(evaluation: EvaluationConfig, diffusion: DiffusionConfig, gmacs: float) -> float:
    """Multiply-accumulates of one sample in 1e9, all guidance included, a decoder not; as `forward_passes`."""
    return gmacs * forward_passes(evaluation, diffusion, gmacs)


@cache
def _gmacs(name: str, step: int | None, diffusion: str) -> float:
    if _is_run(name):
        return forward_gmacs(read_config(Path(name)).model)
    return _of_file(name, step, True, DiffusionConfig.model_validate_json(diffusion)).gmacs


def _find(name: str, step: int | None, offline: bool, diffusion: DiffusionConfig) -> Guide:
    if not _is_run(name):
        weights = _of_file(name, step, offline, diffusion)
        made_by = weights.identity
        said = f"{made_by['run']} step {made_by['step']}" if "run" in made_by else made_by["weights"]
        return Guide(said, weights.arch, weights.diffusion, weights.gmacs, weights.normalization)
    recipe, checkpoints = read_config(Path(name)), Path(name) / "checkpoints"
    there = [str(kept) for kept in recipe.train.kept_steps() if weights_path(checkpoints, kept).exists()]
    chosen = recipe.train.steps if step is None else step
    if str(chosen) not in there:
        key, accepted = "guide" if step is None else "guide_step", ", ".join(there) or "a run that has weights"
        raise ValueError(f"{key}: {name} has no weights of step {chosen}; accepted: {accepted}")
    return Guide(
        f"{recipe.id} step {chosen}",
        recipe.model.architecture(),
        recipe.diffusion,
        forward_gmacs(recipe.model),
        kept_of(recipe.data, Path(name)),
    )


def _is_run(name: str) -> bool:
    return (Path(name) / "config.yaml").exists()


def _is_ours(path: Path) -> bool:
    """Whether a file is of a run, in its folder or copied out of it."""
    from bench.files import checkpoint

    return path.is_file() and (checkpoint.says_its_weights(path) or _is_run(str(path.resolve().parent.parent)))


def _of_file(name: str, step: int | None, offline: bool, diffusion: DiffusionConfig) -> Weights:
    """Weights of a file, which is asked for the guided network's objective where it may leave open which it is of."""
    from bench.weights import load_weights_of

    try:
        weights = load_weights_of(name, None, offline, asked=None if _is_ours(Path(name)) else diffusion)
    except MissingAsset:
        raise
    except (InputError, OSError) as error:
        raise ValueError(f"guide: {error}") from None
    if step not in (None, weights.identity.get("step")):
        raise ValueError(f"guide_step: {step}, but {name} is one file of weights; accepted: none")
    return weights


def _told(arch: Any) -> str:
    captions = caption_shape_of(arch)
    return f"labels of {arch.num_classes} classes" if captions is None else told(captions)


def _said(diffusion: DiffusionConfig) -> str:
    """An objective and its options, for a comparison."""
    return " ".join(f"{key}={value}" for key, value in diffusion.model_dump().items() if value is not None)
