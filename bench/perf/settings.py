"""What `perf train` and `perf sample` measure unless told otherwise: DiTs of the paper on latents of 256 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.errors import InputError
from bench.recipe import Recipe, parse_recipe
from models.dit import FAMILY, DiTConfig

# Model and batch size.
TRAIN = (("DiT-S/8", 32), ("DiT-S/2", 8), ("DiT-B/4", 16), ("DiT-L/4", 8))
SAMPLE = (("DiT-S/2", 8), ("DiT-B/4", 8))
GUIDANCE_SCALE = 1.5
EVALUATION = {"decoder": "stabilityai/sd-vae-ft-mse", "reference": "adm-imagenet-256"}  # neither is read
FREQUENCIES = 256  # of the embedding of timesteps, in the paper's models
DATA = {"name": "imagenet-256-latents", "vae": "stabilityai/sd-vae-ft-ema"}  # known by its facts, and not read


def given_settings(models: Sequence[str], batch_sizes: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Pairs of --model and --batch-size as they were given; none: empty.

    Raises:
        InputError: not as many of one as of the other.
    """
    if len(models) != len(batch_sizes):
        raise InputError(f"--model {len(models)} times, --batch-size {len(batch_sizes)} times; accepted: one for each")
    return tuple(zip(models, batch_sizes, strict=True))


def training_recipes(settings: Sequence[tuple[str, int]]) -> list[Recipe]:
    """The paper's training of these models at these batch sizes.

    Raises:
        InputError: a model that is no DiT of the paper.
    """
    return [_recipe(model, {"train": {"batch_size": size}}) for model, size in settings]


def check_entered(recipes: Sequence[Recipe], contenders: Sequence[str]) -> None:
    """Refuse models that a contender lacks: `plain` and `diffusers` are a DiT with adaLN-Zero and no further options.

    Raises:
        InputError: which model, and what it has.
    """
    from models.diffusers_weights import check_held_by_diffusers

    for name in ("plain", "diffusers"):
        for recipe in recipes if name in contenders else ():
            arch, called = recipe.model.architecture(), recipe.label or recipe.model.name
            try:
                if not isinstance(arch, DiTConfig):
                    raise ValueError(f"model.name: {recipe.model.name}; it is a DiT")
                # The one option that plain takes.
                asked = replace(arch, frequency_embedding_size=FREQUENCIES) if name == "plain" else arch
                check_held_by_diffusers(asked)
            except ValueError as error:
                able = "ours" if name == "plain" else "ours,plain"
                raise InputError(f"--contenders {name}: {called}: {error}; accepted: {able}") from None


def sampling_recipes(settings: Sequence[tuple[str, int]], sampler: str, steps: int) -> list[Recipe]:
    """So many samples of these models at once, guided on all channels; errors as `training_recipes`, and of steps that
    there are not.
    """
    guided = {**EVALUATION, "sampler": sampler, "sampling_steps": steps, "guidance_scale": GUIDANCE_SCALE}
    guided |= {"guidance_channels": None}
    return [_recipe(model, {"evaluation": {**guided, "batch_size": size}}) for model, size in settings]


def _recipe(model: str, sections: dict[str, Any]) -> Recipe:
    if model.casefold() not in map(str.casefold, FAMILY.presets):
        raise InputError(f"--model {model}: accepted: {', '.join(FAMILY.presets)}")
    content = {"model": {"name": model}, "data": DATA, "evaluation": EVALUATION, **sections}
    return parse_recipe(content, f"--model {model}")
