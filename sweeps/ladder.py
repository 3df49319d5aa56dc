"""A ladder's YAML file -> the runs of a sweep, whose steps come from budgets.

name: my-ladder                      the sweep's name
extends: first                       the sweep whose models and base they are: a file beside this one, or a shipped one
models: [S/2, B/2, L/2]              some of its models, by their labels; default: all
base: {train: {batch_size: 64}}      laid over its base
isoflop:                             budgets x models: at equal training compute, in PF-days of true FLOPs, ...
  - {pf_days: 1e-9}
  - {pf_days: 4e-9, models: [B/2, L/2]}      ... or of some of the models
tokens: {multiples: [1, 2, 4]}       or models x multiples of `per_parameter` (default 20) tokens seen, a parameter
seeds: [0, 1, 2]                     each run once for each
max_epochs: 1400                     the most passes over the training data that are accepted
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, ValidationError, field_validator, model_validator

from bench.errors import InputError
from bench.flops import cost_of, training_gmacs
from bench.schema import BOUND, Section, describe, load_yaml
from models.parts import look_in
from sweeps import shipped
from sweeps.expand import Sweep, expanded, load_parent, merged
from sweeps.planning.measured import FLOPS_PER_MAC
from sweeps.rungs import Content, Model, Rung, models_of, sweep_of

FLOPS_PER_PF_DAY = 1e15 * 86_400
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556, for language models
# The longest training of the DiT paper: 7M steps of 256 of 1.28M images.
MOST_EPOCHS = 1400
ROUNDING = 1e-9  # a budget that is short of a step by a smaller share pays for it, as in `ditbench advise`

Seed = Annotated[int, Field(ge=0, lt=BOUND)]


def _once(values: Sequence[Any] | None) -> None:
    twice = [value for index, value in enumerate(values or ()) if value in (values or ())[:index]]
    if twice:
        said = f"{twice[0]:g}" if isinstance(twice[0], float) else twice[0]
        raise ValueError(f"{said} is there twice; accepted: once each")


class IsoFlop(Section):
    """A budget of training compute, which each of its models is trained for; default: all of the ladder's."""

    pf_days: PositiveFloat
    models: tuple[str, ...] | None = Field(default=None, strict=False, min_length=1)

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[str, ...] | None) -> tuple[str, ...] | None:
        _once(models)
        return models


class Tokens(Section):
    """Multiples of the tokens that are seen in training: `per_parameter` x parameters of the network."""

    multiples: tuple[PositiveFloat, ...] = Field(strict=False, min_length=1)
    per_parameter: PositiveFloat = TOKENS_PER_PARAMETER

    @field_validator("multiples")
    @classmethod
    def _each_once(cls, multiples: tuple[float, ...]) -> tuple[float, ...]:
        _once(multiples)
        return multiples


class Ladder(Section):
    """A ladder's file; see the top of `sweeps.ladder`."""

    name: str
    extends: str
    models: tuple[str, ...] | None = Field(default=None, strict=False, min_length=1)
    base: dict[str, Any] = Field(default={})
    isoflop: tuple[IsoFlop, ...] = Field(default=(), strict=False)
    tokens: Tokens | None = None
    seeds: tuple[Seed, ...] = Field(default=(0,), strict=False, min_length=1)
    max_epochs: PositiveFloat = MOST_EPOCHS

    @field_validator("models", "seeds")
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        _once(values)
        return values

    @field_validator("base")
    @classmethod
    def _of_all_rungs(cls, base: dict[str, Any]) -> dict[str, Any]:
        train = base.get("train")
        given = [key for key in ("seed", "label") if key in base]
        given += [f"train.{key}" for key in ("steps", "checkpoint_steps") if isinstance(train, dict) and key in train]
        if given:
            raise ValueError(f"{given[0]}: a ladder's runs have their own; accepted: other keys of a recipe")
        return base

    @field_validator("isoflop")
    @classmethod
    def _budgets_once(cls, budgets: tuple[IsoFlop, ...]) -> tuple[IsoFlop, ...]:
        try:
            _once([budget.pf_days for budget in budgets])
        except ValueError as error:
            raise ValueError(f"pf_days: {error}") from None
        return budgets

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.isoflop) == (self.tokens is not None):
            raise ValueError(f"isoflop, tokens: {'both' if self.isoflop else 'neither'} given; accepted: one of them")
        return self


@dataclass(frozen=True)
class Step:
    """A rung, what its steps come from, as its table says it, and what it costs."""

    rung: Rung
    asked: str
    images: int
    epochs: float
    pf_days: float


@dataclass(frozen=True)
class Built:
    """A ladder: its rungs, model by model, and the sweep that trains them."""

    steps: tuple[Step, ...]
    content: Content
    comment: str


def find_ladder(name: str | Path) -> Path:
    """A ladder's file, by its path or the name of a shipped one.

    Raises:
        InputError: neither; with the names of the shipped ones.
    """
    path = shipped.find(name, shipped.LADDERS, folders=("sweeps", "ladders"))
    if path is None:
        names = ", ".join(shipped.names(shipped.LADDERS))
        raise InputError(f"{name}: no such file; accepted: the path of a ladder's YAML file, or a shipped one: {names}")
    return path


def build(path: Path) -> Built:
    """Read a ladder's file and lay out its runs.

    Raises:
        InputError: the file or the sweep that it extends is wrong; a model is unknown or there twice; a budget leaves a
            model less than one step, or more than `max_epochs` passes over its data; two rungs are the same.
    """
    content = load_yaml(path)
    look_in(path.parent)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a ladder is a mapping with the keys {', '.join(Ladder.model_fields)}")
    try:
        ladder = Ladder.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, Ladder)}") from None
    parent = _parent(ladder, path)
    models = models_of(parent, f"{path}: extends: {ladder.extends}")
    chosen = _chosen(ladder.models or tuple(models), models, f"{path}: models")
    steps = tuple(_steps(ladder, chosen, path))
    _check_used(ladder, steps, path)
    seen: dict[str, Step] = {}
    for step in steps:
        if step.rung.name in seen:
            both = f"{seen[step.rung.name].asked} and by {step.asked}"
            raise InputError(
                f"{path}: {step.rung.model.label} is trained for {step.rung.steps:,} steps by {both}; accepted: once"
            )
        seen[step.rung.name] = step
    made = sweep_of(ladder.name, parent.base, [step.rung for step in steps], ladder.seeds, path)
    return Built(
        steps, made, f"{_comment(path)}\n\nMade by `ditbench ladder {path.name}`: change that file, not this one."
    )


def _parent(ladder: Ladder, path: Path) -> Sweep:
    """The sweep that a ladder extends, with the ladder's base laid over its own."""
    where = f"{path}: {'base, laid over' if ladder.base else 'extends:'} {ladder.extends}"
    content, at = load_parent(ladder.extends, path)
    look_in(at.parent)
    try:
        return expanded({**content, "base": merged(content.get("base", {}), ladder.base)}, at)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _chosen(names: Sequence[str], models: dict[str, Model], where: str) -> list[Model]:
    unknown = [name for name in names if name not in models]
    if unknown:
        raise InputError(f"{where}: {unknown[0]}: unknown model; accepted: {', '.join(models)}")
    return [models[name] for name in names]


def _check_used(ladder: Ladder, steps: Sequence[Step], path: Path) -> None:
    """Refuse a model that is named, and is in none of the budgets."""
    used = {step.rung.model.label for step in steps}
    unused = [name for name in ladder.models or () if name not in used]
    if unused:
        raise InputError(f"{path}: models: {unused[0]}: no budget has it; accepted: models of at least one budget")


def _steps(ladder: Ladder, models: Sequence[Model], path: Path) -> Iterator[Step]:
    known = {model.label: model for model in models}
    budgets = [
        (f"{budget.pf_days:g} PF-days", budget.pf_days * FLOPS_PER_PF_DAY, f"{path}: isoflop.{index}",
         _chosen(budget.models or tuple(known), known, f"{path}: isoflop.{index}.models"))
        for index, budget in enumerate(ladder.isoflop)
    ]  # fmt: skip
    for model in models:
        for asked, flops, where, its in budgets:
            if model in its:
                yield _step(model, flops / _flops_a_step(model), asked, where, ladder.max_epochs)
        for index, multiple in enumerate(ladder.tokens.multiples if ladder.tokens else ()):
            assert ladder.tokens
            per_parameter, where = multiple * ladder.tokens.per_parameter, f"{path}: tokens.multiples.{index}"
            asked = f"{per_parameter:g} tokens a parameter"
            arch, batch = model.recipe.model.architecture(), model.recipe.train.batch_size
            if not arch.num_tokens:
                raise InputError(f"{where}: {model.label} has no tokens; accepted: isoflop")
            tokens = per_parameter * cost_of(model.recipe.model.name, arch).parameters
            yield _step(model, tokens / (arch.num_tokens * batch), asked, where, ladder.max_epochs)


def _flops_a_step(model: Model) -> int:
    """True FLOPs of one training step, from whole multiply-accumulates."""
    macs = cost_of(model.recipe.model.name, model.recipe.model.architecture()).macs
    return round(FLOPS_PER_MAC * training_gmacs(macs, model.recipe.train.batch_size, 1))


def _step(model: Model, wanted: float, asked: str, where: str, max_epochs: float) -> Step:
    """The whole steps of `wanted`."""
    train, facts = model.recipe.train, model.recipe.data.facts
    if wanted * (1 + ROUNDING) < 1:
        raise InputError(
            f"{where}: {asked} are {wanted:.2g} of a step of {model.label}, of {train.batch_size} images; needed: one"
        )
    epochs = wanted * train.batch_size / facts.length
    if epochs > max_epochs:
        raise InputError(
            f"{where}: {asked} take {model.label} {epochs:,.4g} times over the {facts.length:,} images of "
            f"{model.recipe.data.name}; accepted: at most {max_epochs:g} (max_epochs)"
        )
    steps = int(wanted * (1 + ROUNDING))
    spent = steps * _flops_a_step(model) / FLOPS_PER_PF_DAY
    return Step(Rung(model, steps), asked, steps * train.batch_size, steps * train.batch_size / facts.length, spent)


def _comment(path: Path) -> str:
    """The lines of comment that the file begins with."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    first = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:first])
