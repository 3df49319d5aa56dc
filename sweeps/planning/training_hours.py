"""GPU-hours that training takes of what need not be in a sweep: the plan's arithmetic, of recipes made up for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.commands.variants import Variant
from bench.data import DATA
from bench.errors import InputError
from bench.flops import training_gmacs
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.recipe.parts import DataConfig, DiffusionConfig
from bench.recipe.training import TrainConfig
from models.registry import configure, list_models
from sweeps.cluster import ClusterProfile
from sweeps.expand import Sweep
from sweeps.planning.plan import plan
from sweeps.planning.speeds import Speed


class TrainingHours(NamedTuple):
    """Of one run's whole training, and the speed that was assumed."""

    gpu_hours: float
    speed: Speed


def training_hours(
    variants: Sequence[Variant], profile: ClusterProfile, cluster: str, mfu: float | None
) -> list[TrainingHours]:
    """What training each of `variants`, all with batch size and steps, takes on `cluster`.

    Speeds are `mfu` or the profile's; on this machine, those of runs under `runs`, measured or estimated from these.

    Raises:
        InputError: the profile lacks what turns compute into time, or has nothing for a run.
    """
    recipes = [_recipe(variant) for variant in variants]
    with TemporaryDirectory() as empty:  # runs that do not exist are planned whole
        folders = {recipe.id: Path(empty) / recipe.id for recipe in recipes}
        planned = plan(
            Sweep("flops", list({recipe.id: recipe for recipe in recipes}.values())), profile, cluster, folders, mfu
        )
    if planned.unknown_time:
        raise InputError(planned.unknown_time)
    by_id = {run.recipe.id: run for run in planned.runs}
    return [_hours(variant, by_id[recipe.id]) for variant, recipe in zip(variants, recipes, strict=True)]


def _hours(variant: Variant, run: Any) -> TrainingHours:
    if variant.arch is not None:
        return TrainingHours(run.training_gpu_hours, run.training)
    # Of a network without a family, only its compute is known: `run` tells the speed.
    assert variant.batch_size is not None and variant.steps is not None
    tflop = 2 * training_gmacs(variant.gmacs, variant.batch_size, variant.steps) / 1e3
    return TrainingHours(tflop / run.training.tflops / 3600, run.training)


@dataclass(frozen=True)
class _Model:
    """A recipe's model that is a configuration, however that was come by."""

    name: str
    arch: Any

    def architecture(self) -> Any:
        return self.arch

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self.arch)}


def _recipe(variant: Variant) -> Recipe:
    """Unchecked: it may fit no data set, of which the time of training is independent."""
    assert variant.batch_size is not None and variant.steps is not None
    base = variant.recipe or Recipe.model_construct(
        label="", data=DataConfig(name=DATA.default), diffusion=DiffusionConfig(), evaluation=EvaluationConfig(), seed=0
    )
    name = variant.name if variant.arch is not None else list_models()[0]
    model = _Model(name, configure(name) if variant.arch is None else variant.arch)
    train = TrainConfig(batch_size=variant.batch_size, steps=variant.steps)
    return base.model_copy(update={"model": model, "train": train, "label": variant.label or variant.name})
