"""Contenders side by side: every one in processes of its own, in turns, beside the machine's own matrix products.

In each round, every setting is measured by every contender, in an order that moves on by one with every round and
setting. Steps are timed one by one, after one that is dropped. Before each setting, and at the end, the rate of a large
`torch.mm` is measured, in the precision of the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.device import Precision
from bench.flops import forward_gmacs, training_gmacs
from bench.parallel import prepare_device
from bench.perf.contenders import CONTENDERS, TARGETS, Work
from bench.perf.document import OURS, Products, as_document, quartiles, rates, setting_of
from bench.perf.entrant import serving
from bench.perf.turns import rotated
from bench.recipe import Recipe
from bench.samplers.guide import sampling_gmacs

Kind = Literal["train", "sample"]


@dataclass(frozen=True)
class Conditions:
    """Of a whole race; `repeats`: timed calls of a contender in a round."""

    kind: Kind
    contenders: tuple[str, ...]
    device: str
    precision: Precision
    rounds: int
    repeats: int


def race(recipes: Sequence[Recipe], conditions: Conditions, told: Callable[[str], object]) -> dict[str, Any]:
    """Measure all contenders at all recipes; `told` hears of every measurement.

    Returns:
        A document (`bench.perf.document`), its rows with `peak_bytes` (one a round), `parameters` and `gmacs_an_image`.

    Raises:
        InputError: no such device.
        RunError: a contender failed.
    """
    device = prepare_device(conditions.device, conditions.precision)
    names = conditions.contenders
    rows = {(k, name): _row(recipe, name, conditions) for k, recipe in enumerate(recipes) for name in names}
    products = Products(device, conditions.precision)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name)) for name in names}
        for turn in range(conditions.rounds):
            for k, recipe in enumerate(recipes):
                products.measure()
                for name in rotated(names, turn + k):
                    work = Work(recipe, conditions.device, conditions.precision)
                    found = servers[name].measure(conditions.kind, work, conditions.repeats)
                    row = rows[k, name]
                    row["parameters"] = found["parameters"]
                    row["seconds"].append(found["seconds"])
                    row["peak_bytes"].append(found["peak_bytes"])
                    setting = f"{row['model']} batch {row['batch_size']}"
                    told(f"round {turn + 1} of {conditions.rounds}: {setting}: {name} {median(found['seconds']):.4g} s")
        products.measure()
    return as_document(conditions.kind, [*rows.values()], products)


def profile(recipes: Sequence[Recipe], conditions: Conditions, folder: Path) -> dict[Path, str]:
    """Chrome traces of `ours`, one a recipe, and tables of the operators that take the most time; errors as `race`."""
    prepare_device(conditions.device, conditions.precision)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    with serving("ours") as server:
        for recipe in recipes:
            called = re.sub(r"[^A-Za-z0-9.]+", "-", _called(recipe))
            name = f"{conditions.kind}-{called}-b{_batch_size(recipe, conditions)}"
            trace = folder.resolve() / f"{name}.trace.json"
            work = Work(recipe, conditions.device, conditions.precision)
            tables[trace] = server.measure(conditions.kind, work, conditions.repeats, trace)["operators"]
    return tables


def table(document: dict[str, Any]) -> list[dict[str, str]]:
    """Column -> value as it is printed.

    images/s and ours/this are of medians: ours/this is our time over theirs, below 1 where we are faster. q1 and q3 are
    quartiles of the seconds. share is 2 x GMACs x images/s over the rate of `torch.mm`, or of oneDNN where that is
    faster; GMACs are those of an image: of training 3 times those of a forward pass (`bench.flops.training_gmacs`), of
    sampling those of all network calls. peak_gb is the largest over the rounds, in 1e9 bytes.
    """
    rate = max(median(found) for found in rates(document).values())
    ours = {setting_of(row): quartiles(row)[1] for row in document["rows"] if row["contender"] == OURS}
    rows = []
    for row in document["rows"]:
        low, middle, high = quartiles(row)
        images = row["batch_size"] / middle
        beside = ours.get(setting_of(row))
        rows.append(
            {
                "setting": setting_of(row),
                "contender": row["contender"],
                "images/s": f"{images:.4g}",
                "median_s": f"{middle:.4g}",
                "q1_s": f"{low:.4g}",
                "q3_s": f"{high:.4g}",
                "ours/this": "" if beside is None else f"{beside / middle:.3f}",
                "share": f"{2 * row['gmacs_an_image'] * images / rate:.1%}",
                "peak_gb": f"{max(row['peak_bytes']) / 1e9:.2f}",
                "parameters": str(row["parameters"]),
            }
        )
    return rows


def _row(recipe: Recipe, name: str, conditions: Conditions) -> dict[str, Any]:
    gmacs, evaluation = forward_gmacs(recipe.model), recipe.evaluation
    row = {"model": _called(recipe), "batch_size": _batch_size(recipe, conditions), "contender": name}
    if conditions.kind == "train":
        row["gmacs_an_image"] = training_gmacs(gmacs, 1, 1)
    else:
        row |= {"sampler": evaluation.sampler, "sampling_steps": evaluation.sampling_steps}
        row["gmacs_an_image"] = sampling_gmacs(evaluation, recipe.diffusion, gmacs)
    if name in CONTENDERS and name != OURS:
        row["target"] = TARGETS[conditions.kind]
    return {**row, "seconds": [], "peak_bytes": []}


def _called(recipe: Recipe) -> str:
    return recipe.label or recipe.model.name


def _batch_size(recipe: Recipe, conditions: Conditions) -> int:
    return recipe.train.batch_size if conditions.kind == "train" else recipe.evaluation.batch_size
