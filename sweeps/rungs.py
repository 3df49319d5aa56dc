"""Models of a sweep, trained for other numbers of steps: what a ladder has many of, and an advice one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.recipe import Recipe
from bench.recipe.training import TrainConfig
from bench.schema import dump_yaml
from sweeps.expand import Sweep, expanded


@dataclass(frozen=True)
class Model:
    """One of a sweep's: its label, its recipe with some seed, and the dotted keys that make it of the sweep's base."""

    label: str
    recipe: Recipe
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Rung:
    """A model and the steps that it is trained for."""

    model: Model
    steps: int

    @property
    def name(self) -> str:
        """No other of a ladder has it."""
        return f"{self.model.label} {self.steps}"

    def settings(self) -> dict[str, Any]:
        """The dotted keys that make this run of the sweep's base."""
        train = parts_of_training(self.model.recipe.train, self.steps)
        return {"label": self.model.label, **self.model.settings, "train.steps": self.steps, **train}


def parts_of_training(train: TrainConfig, steps: int) -> dict[str, Any]:
    """Dotted keys of a training of `steps` with the schedule of `train`: a warm-up and a cool-down keep their shares.

    A learning rate that has not fallen yet scores worse than one that has, so that a step inside a longer training is
    no rung of a ladder (Hoffmann et al. 2022, arXiv:2203.15556, appendix B, of the cosine).
    """
    share = steps / train.steps
    cooldown = max(1, round(train.cooldown_steps * share)) if train.cooldown_steps else 0
    warmup = min(round(train.warmup_steps * share), steps - cooldown)
    parts = {
        "train.warmup_steps": (train.warmup_steps, warmup),
        "train.cooldown_steps": (train.cooldown_steps, cooldown),
    }
    return {key: now for key, (before, now) in parts.items() if before}


def models_of(sweep: Sweep, where: str) -> dict[str, Model]:
    """Label -> model, of all that a sweep trains; its seeds aside.

    Raises:
        InputError: two runs of one label that differ in more than their seed.
    """
    found: dict[str, Model] = {}
    ids: dict[str, str] = {}
    for recipe in sweep.recipes:
        of_any_seed = recipe.model_copy(update={"seed": 0}).id
        if ids.setdefault(recipe.label, of_any_seed) != of_any_seed:
            raise InputError(
                f"{where}: runs labelled {recipe.label} differ in more than their seed; needed: a label each"
            )
        found.setdefault(recipe.label, model_of(sweep, recipe))
    return found


def model_of(sweep: Sweep, recipe: Recipe) -> Model:
    """The model of one of its runs."""
    others = ("seed", "label", "train.checkpoint_steps")
    settings = {key: value for key, value in sweep.settings[recipe.id].items() if key not in others}
    return Model(recipe.label, recipe, settings)


def sweep_of(name: str, base: Mapping[str, Any], rungs: Iterable[Rung], seeds: Sequence[int], where: Path) -> Content:
    """The sweep that trains every rung on every seed, and scores it where it ends.

    Raises:
        InputError: as `sweeps.expand.load_sweep`, with `where`.
    """
    shared = {key: value for key, value in base.items() if key not in ("seed", "label")}
    train = {key: value for key, value in (shared.get("train") or {}).items() if key != "checkpoint_steps"}
    content = {
        "name": name,
        "base": {**shared, "train": train},
        "product": {"rung": {rung.name: rung.settings() for rung in rungs}, "seed": list(seeds)},
    }
    return Content(content, expanded(content, where))


@dataclass(frozen=True)
class Content:
    """A sweep, and what its file says."""

    content: dict[str, Any]
    sweep: Sweep

    def text(self, comment: str) -> str:
        """The file, below lines of `comment`."""
        lines = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
        return lines + dump_yaml(self.content, leaves_in_line=True)


def check_new(path: Path, text: str) -> None:
    """Refuse to write over a file, unless it says the same.

    Raises:
        InputError: there is one.
    """
    if path.exists() and (not path.is_file() or path.read_bytes() != text.encode()):
        raise InputError(f"{path}: is there already, and is not written over; accepted: a new file's name")
