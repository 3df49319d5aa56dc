"""A sweep's YAML file -> recipes.

extends: other.yaml                  start from another sweep, a file beside this one, else a shipped one, as `digits`:
                                     base is merged key by key, an axis replaced whole
name: digits                         the folder its runs go to
label: "{size}/{patch}"              how tables and figures name a run, from the axes' choices
base: {train: {steps: 400}, ...}     a recipe, complete or not
product:                             every combination of these axes; null drops an inherited one
  size:                              an axis of named choices, each a set of dotted keys
    S: {model.depth: 3, model.hidden_size: 24}
  seed: [0, 1, 2]                    an axis that is one dotted key and its values
paired: {model.depth: [3, 6], ...}   lists walked together, as one more axis
runs: [{model.depth: 9}, ...]        or: each run spelled out, as dotted keys laid over base
"""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import InputError
from bench.recipe import Recipe, parse_recipe
from bench.schema import load_yaml
from models.parts import look_in
from sweeps import shipped

# File systems end names at 255 bytes, and names of jobs and records are made of the sweep's.
LONGEST_NAME = 100
KEYS = ("extends", "name", "label", "base", "product", "paired", "runs")


@dataclass(frozen=True)
class Sweep:
    """A named list of recipes, all different.

    axes: recipe id -> the sweep's choices for it, by the axes' names.
    base, settings: as they are written, what all recipes share, and recipe id -> the dotted keys laid over it.
    """

    name: str
    recipes: list[Recipe]
    axes: dict[str, dict[str, str]] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_folders(sweep: Sweep, runs: Path) -> dict[str, Path]:
    """Recipe id -> run folder, under `runs`/<sweep name>/; an existing folder of that id keeps its name."""
    folder = runs / sweep.name
    existing = {path.name.rpartition("-")[2]: path for path in folder.glob("*-*") if path.is_dir()}
    return {recipe.id: existing.get(recipe.id, folder / recipe.folder_name) for recipe in sweep.recipes}


@dataclass(frozen=True)
class _Choice:
    """One point of an axis: what the label calls it, by axis name, and the dotted keys it sets."""

    names: dict[str, str]
    settings: dict[str, Any]


def find_study(name: str | Path, beside: Path = Path()) -> Path:
    """A sweep's file: its path, from the folder `beside`, or the name of a shipped sweep (`digits`, `digits.yaml`).

    Raises:
        InputError: neither; with the names of the shipped sweeps.
    """
    # Until 0.1.0 the shipped sweeps lay in sweeps/ itself: scripts and files that extend them say sweeps/digits.yaml.
    path = shipped.find(name, shipped.STUDIES, beside, folders=("sweeps", "studies"))
    if path is None:
        names = ", ".join(shipped.names(shipped.STUDIES))
        raise InputError(
            f"{beside / name}: no such file; accepted: the path of a sweep's YAML file, or a shipped sweep: {names}"
        )
    return path


def load_sweep(sweep: str | Path) -> Sweep:
    """Read and expand a sweep, given as `find_study` takes it.

    Raises:
        InputError: the file, an axis or a recipe is wrong: with the file, the run and the key.
    """
    path = find_study(sweep)
    look_in(path.parent)
    return expanded(_load(path, seen=()), path)


def expanded(content: dict[str, Any], path: Path) -> Sweep:
    """A sweep from its file's content, which extends no other; `path`: for messages.

    Raises:
        InputError: as `load_sweep`.
    """
    for key in ("name", "base"):
        if key not in content:
            raise InputError(f"{path}: {key}: missing")
    name = content["name"]
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"{path}: name: {name!r}: accepted: a folder's name of letters, digits, dots, - and _")
    if len(name) > LONGEST_NAME:
        raise InputError(f"{path}: name: {len(name)} characters; accepted: at most {LONGEST_NAME}")
    choices = _choices(content, path)
    recipes = [_recipe(content, choice, path) for choice in choices]
    by_id: dict[str, Recipe] = {}
    for recipe in recipes:
        if recipe.id in by_id:
            raise InputError(f"{path}: {recipe.label} and {by_id[recipe.id].label} are the same recipe ({recipe.id})")
        by_id[recipe.id] = recipe
    chosen = {recipe.id: choice for recipe, choice in zip(recipes, choices, strict=True)}
    names = {run: choice.names for run, choice in chosen.items()}
    settings = {run: choice.settings for run, choice in chosen.items()}
    return Sweep(name, recipes, names, content["base"], settings)


def _load(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The file's content with what it extends laid under it."""
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a sweep is a mapping with the keys {', '.join(KEYS)}")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise InputError(f"{path}: {', '.join(unknown)}: unknown key; accepted: {', '.join(KEYS)}")
    for key in ("base", "product", "paired"):
        if not isinstance(content.get(key, {}), dict):
            raise InputError(f"{path}: {key}: expected a mapping, got {content[key]!r}")
    if "extends" not in content:
        return content
    under, _ = load_parent(str(content.pop("extends")), path, seen)
    joined = {**under, **content, "base": merged(under.get("base", {}), content.get("base", {}))}
    for axes in ("product", "paired"):
        if axes in under or axes in content:
            together = {**under.get(axes, {}), **content.get(axes, {})}
            joined[axes] = {name: values for name, values in together.items() if values is not None}
    return joined


def load_parent(extends: str, path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Path]:
    """The content of the sweep that the file `path` extends, with what that extends laid under it, and its file.

    Raises:
        InputError: there is none, it extends `path` or one of `seen` in turn, or it is no sweep.
    """
    try:
        parent = find_study(extends, path.parent).resolve()
    except InputError as error:
        raise InputError(f"{path}: extends: {error}") from None
    if parent in (*seen, path.resolve()):
        raise InputError(f"{path}: extends: {parent.name} extends this file in turn")
    return _load(parent, (*seen, path.resolve())), parent


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key at every depth; other values of `over` replace those of `under`."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def _choices(content: dict[str, Any], path: Path) -> list[_Choice]:
    """One choice per run: the product of the axes, or the explicit runs."""
    if "runs" in content:
        if "product" in content or "paired" in content:
            raise InputError(f"{path}: runs: give either runs, or product and paired")
        if not isinstance(content["runs"], list) or not content["runs"]:
            raise InputError(f"{path}: runs: expected a list of mappings of dotted keys, got {content['runs']!r}")
        return [_explicit(settings, path) for settings in content["runs"]]
    axes = [_axis(name, values, path) for name, values in content.get("product", {}).items()]
    if "paired" in content:
        axes.append(_paired(content["paired"], path))
    return [
        _Choice(
            {k: v for choice in combination for k, v in choice.names.items()},
            {k: v for choice in combination for k, v in choice.settings.items()},
        )
        for combination in itertools.product(*axes)
    ]


def _axis(name: str, values: Any, path: Path) -> list[_Choice]:
    short = str(name).rpartition(".")[2]
    if isinstance(values, list) and values:
        return [_Choice({short: str(value)}, {str(name): value}) for value in values]
    if isinstance(values, dict) and values and all(isinstance(v, dict) for v in values.values()):
        return [_Choice({short: str(label)}, settings) for label, settings in values.items()]
    raise InputError(f"{path}: product.{name}: expected a list of values, or named choices that are mappings")


def _paired(lists: dict[str, Any], path: Path) -> list[_Choice]:
    lengths = {key: len(values) for key, values in lists.items() if isinstance(values, list)}
    if len(lengths) < len(lists) or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise InputError(f"{path}: paired: expected lists of one length, got {lengths or lists}")
    rows = zip(*lists.values(), strict=True)
    return [
        _Choice(
            {str(key).rpartition(".")[2]: str(value) for key, value in zip(lists, row, strict=True)},
            dict(zip(lists, row, strict=True)),
        )
        for row in rows
    ]


def _explicit(settings: Any, path: Path) -> _Choice:
    if not isinstance(settings, dict):
        raise InputError(f"{path}: runs: expected mappings of dotted keys, got {settings!r}")
    return _Choice({str(key).rpartition(".")[2]: str(value) for key, value in settings.items()}, settings)


def _recipe(content: dict[str, Any], choice: _Choice, path: Path) -> Recipe:
    recipe = copy.deepcopy(content["base"])
    for key, value in choice.settings.items():
        _set(recipe, str(key), value, path)
    label = _label(content, choice, path)
    if label:
        recipe.setdefault("label", label)
    return parse_recipe(recipe, f"{path} (run {label})" if label else str(path))


def _set(recipe: dict[str, Any], key: str, value: Any, path: Path) -> None:
    *parents, last = key.split(".")
    for part in parents:
        recipe = recipe.setdefault(part, {})
        if not isinstance(recipe, dict):
            raise InputError(f"{path}: {key}: {part} is a value, not a section")
    recipe[last] = value


def _label(content: dict[str, Any], choice: _Choice, path: Path) -> str:
    template = content.get("label")
    if template is None:
        return " ".join(choice.names.values())
    try:
        return str(template).format(**choice.names)
    except (LookupError, ValueError, AttributeError, TypeError):
        accepted = ", ".join(f"{{{name}}}" for name in choice.names)
        raise InputError(f"{path}: label: {template!r}: accepted: {accepted}") from None
