"""A part of one's own beside the built-in one, as a sweep in a file: three sizes, some seeds, the digits.

The file lies beside the copy of the part, so that every command for sweeps takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import InputError
from bench.files.atomic import write_bytes
from bench.flops import forward_gmacs
from bench.objectives import OBJECTIVES
from bench.recipe import Recipe
from bench.recipe.parts import ModelConfig
from bench.samplers import SAMPLERS
from bench.schema import check_options, describe, dump_yaml, load_yaml
from sweeps.expand import Sweep, load_sweep
from sweeps.own.part import KINDS, OwnPart
from sweeps.shipped import STUDIES

TEMPLATE = STUDIES / "try.yaml"
BUILT_IN = {kind: seam.default for kind, seam in KINDS.items()}
SIZES = 3  # fewer have no law
# Of a model, what the data fix.
OF_DATA = ("input_size", "in_channels", "num_classes")


@dataclass(frozen=True)
class OwnStudy:
    """The sweep, its file, and which of its runs are whose: built-in's and the own part's, by size, then by seed."""

    sweep: Sweep
    path: Path
    built_in: Sequence[Recipe]
    own: Sequence[Recipe]

    @property
    def sizes(self) -> list[tuple[Recipe, Recipe]]:
        """Of each size, the recipe of the built-in and of the own part, of the first seed."""
        built_in, own = ([recipe for recipe in recipes if recipe.seed == 0] for recipes in (self.built_in, self.own))
        return list(zip(built_in, own, strict=True))


def own_study(part: OwnPart, seeds: int) -> OwnStudy:
    """Write the sweep of a part beside its copy, and expand it.

    Raises:
        InputError: a family without three sizes for digits, an objective that suits no network of the study, or a
            recipe that is refused.
    """
    content: dict[str, Any] = load_yaml(TEMPLATE)
    content["product"]["seed"] = list(range(seeds))
    if part.kind == "family":
        _add_family(content, part)
    elif part.kind == "block":
        content["product"]["design"][part.shown] = {"model.block": part.path}
    else:
        content["base"]["model"]["learn_sigma"] = _predicts_variance(part)
        content["base"]["evaluation"]["sampler"] = _sampler(part)
        content["product"]["design"] = {
            BUILT_IN["objective"]: {"diffusion.objective": BUILT_IN["objective"]},
            part.shown: {"diffusion.objective": part.path},
        }
    path = part.folder / "sweep.yaml"
    header = f"# {part.shown} beside the built-in, as `ditbench try` trains it.\n"
    write_bytes(path, (header + dump_yaml(content)).encode())
    sweep = load_sweep(path)
    built_in, own = ([recipe for recipe in sweep.recipes if _is_own(recipe, part) is own] for own in (False, True))
    return OwnStudy(sweep, path, built_in, own)


def check_compute(study: OwnStudy, part: OwnPart) -> None:
    """Refuse designs that no compute is common to: nothing could be said of them.

    Raises:
        InputError: their ranges of GMACs do not overlap.
    """
    ranges = []
    for recipes in (study.built_in, study.own):
        gmacs = [forward_gmacs(recipe.model) for recipe in recipes]
        ranges.append((min(gmacs), max(gmacs)))
    (low, high), (own_low, own_high) = ranges
    if own_low > high or low > own_high:
        raise InputError(
            f"{part.shown}: its sizes take {own_low:.3g} to {own_high:.3g} GMACs, the built-in's {low:.3g} to "
            f"{high:.3g}; needed: ranges that overlap, to compare at equal compute"
        )


def _is_own(recipe: Recipe, part: OwnPart) -> bool:
    named = recipe.model.name.partition("/")[0], recipe.model.model_dump().get("block"), recipe.diffusion.objective
    return part.path in named


def _predicts_variance(part: OwnPart) -> bool:
    """Whether an objective takes the network of the study as it is; else one without channels for the variance."""
    problem: ValueError | None = None
    for learned in (True, False):
        try:
            options = check_options(OBJECTIVES.find(part.path).options, {})
            OBJECTIVES.find(part.path).check(options, 1, 2 if learned else 1)
        except ValueError as error:
            problem = problem or error
        else:
            return learned
    raise InputError(part.in_words(f"{part.shown}: {problem}"))


def _sampler(part: OwnPart) -> str:
    """The first built-in sampler of both processes: scores by different samplers are not compared."""
    kinds = set()
    for objective in (OBJECTIVES.find(BUILT_IN["objective"]), OBJECTIVES.find(part.path)):
        kinds.add(objective.process(check_options(objective.options, {})).kind)
    serving = [name for name in SAMPLERS.builtin if kinds <= set(SAMPLERS.find(name).serves)]
    return serving[0] if serving else SAMPLERS.default  # then the recipe is refused, and says why


def _add_family(content: dict[str, Any], part: OwnPart) -> None:
    """Instead of sizes and designs: the built-in's sizes as whole models, and as many presets of the family."""
    model = content["base"].pop("model")
    sizes: dict[str, dict[str, Any]] = {
        size: {"model": {**model, **{key.removeprefix("model."): value for key, value in settings.items()}}}
        for size, settings in content["product"]["size"].items()
    }
    for name, settings in sizes.items():
        settings["label"] = f"{name}/{model['patch_size']} {BUILT_IN['family']}"
    own = _presets(part, {key: model[key] for key in OF_DATA}, [settings["model"] for settings in sizes.values()])
    for preset, settings in own.items():
        sizes[f"{part.shown}/{preset}"] = {"model": settings, "label": f"{part.shown}/{preset}"}
    content["label"] = "{size}"
    content["product"] = {"size": sizes, "seed": content["product"]["seed"]}


def _presets(part: OwnPart, of_data: dict[str, Any], built_in: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Three presets as models for digits: of more, those whose compute is nearest to the built-in's sizes."""
    family = part.part
    if len(family.presets) < SIZES:
        there = ", ".join(family.presets) or "none"
        raise InputError(f"{part.shown}: presets: {there}; needed: at least {SIZES}, as sizes")
    accepted = {field.name for field in fields(family.options)}
    models = {
        preset: {"name": f"{part.path}/{preset}", **{k: v for k, v in of_data.items() if k in accepted}}
        for preset in family.presets
    }
    if len(models) == SIZES:
        return models
    cost = {preset: _log_gmacs(model) for preset, model in models.items()}
    chosen: list[str] = []
    for wanted in map(_log_gmacs, built_in):
        left = [preset for preset in models if preset not in chosen]
        chosen.append(min(left, key=lambda preset: abs(cost[preset] - wanted)))
    return {preset: models[preset] for preset in models if preset in chosen}


def _log_gmacs(model: dict[str, Any]) -> float:
    try:
        return math.log(forward_gmacs(ModelConfig(**model)))
    except ValidationError as error:
        raise InputError(f"{model['name']}: {describe(error, ModelConfig)}") from None
