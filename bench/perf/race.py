"""Contenders side by side: every one in processes of its own, in turns, beside the machine's own matrix products.

In each round, every setting is measured by every contender, in an order that moves on by one with every round and
setting. Steps are timed one by one, after one that is dropped. Before each setting, and at the end, the rate of a large
`torch.mm` is measured, in the precision of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

from bench import provenance
from bench.cpu import linear
from bench.device import Precision
from bench.flops import forward_gmacs, training_gmacs
from bench.parallel import prepare_device
from bench.perf.contenders import Work
from bench.perf.entrant import serving
from bench.recipe import Recipe
from bench.samplers.guide import sampling_gmacs

Kind = Literal["train", "sample"]
MATMUL_SIZE = {"cpu": 4096, "cuda": 8192}
MATMUL_REPEATS = 3
LIBRARIES = ("timm", "diffusers")


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
        A JSON document: conditions; `matmul_gflops` and `onednn_gflops`, every measurement of them (of oneDNN only
        where `bench.cpu.linear` has it multiply); and `rows`, one for each recipe and contender, with `seconds` (one
        list a round) and `peak_bytes` (one a round).

    Raises:
        InputError: no such device.
        RunError: a contender failed.
    """
    device = prepare_device(conditions.device, conditions.precision)
    session = provenance.session(device, conditions.precision, world_size=1)
    by_onednn = conditions.device == "cpu" and conditions.precision == "fp32" and linear.pays()
    kept = ("time", "device", "precision", "threads", "torch", "python", "commit")
    names = conditions.contenders
    rows = {(k, name): _row(recipe, name, conditions) for k, recipe in enumerate(recipes) for name in names}
    rates: dict[str, list[float]] = {"matmul_gflops": [], "onednn_gflops": []}

    def measure_rates() -> None:
        rates["matmul_gflops"] += matmul_gflops(conditions)
        if by_onednn:
            with linear.products_by_onednn():
                rates["onednn_gflops"] += matmul_gflops(conditions)

    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name)) for name in names}
        for turn in range(conditions.rounds):
            for k, recipe in enumerate(recipes):
                measure_rates()
                for name in _rotated(names, turn + k):
                    work = Work(recipe, conditions.device, conditions.precision)
                    found = servers[name].measure(conditions.kind, work, conditions.repeats)
                    row = rows[k, name]
                    row["parameters"] = found["parameters"]
                    row["seconds"].append(found["seconds"])
                    row["peak_bytes"].append(found["peak_bytes"])
                    setting = f"{row['model']} batch {row['batch_size']}"
                    told(f"round {turn + 1} of {conditions.rounds}: {setting}: {name} {median(found['seconds']):.4g} s")
        measure_rates()
    return {
        "kind": conditions.kind,
        **{key: session[key] for key in kept},
        **{library: version(library) for library in LIBRARIES},
        "matmul_size": MATMUL_SIZE[conditions.device],
        **rates,
        "rows": list(rows.values()),
    }


def profile(recipes: Sequence[Recipe], conditions: Conditions, folder: Path) -> dict[Path, str]:
    """Chrome traces of `ours`, one a recipe, and tables of the operators that take the most time; errors as `race`."""
    prepare_device(conditions.device, conditions.precision)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {}
    with serving("ours") as server:
        for recipe in recipes:
            name = f"{conditions.kind}-{recipe.model.name.replace('/', '-')}-b{_batch_size(recipe, conditions)}"
            trace = folder.resolve() / f"{name}.trace.json"
            work = Work(recipe, conditions.device, conditions.precision)
            tables[trace] = server.measure(conditions.kind, work, conditions.repeats, trace)["operators"]
    return tables


def matmul_gflops(conditions: Conditions) -> list[float]:
    """Floating-point operations in 1e9 per second, 2 per multiply-accumulate, of `MATMUL_REPEATS` large products."""
    import torch

    size, device = MATMUL_SIZE[conditions.device], torch.device(conditions.device)
    dtype = torch.bfloat16 if conditions.precision == "bf16" else torch.float32
    a, b = torch.randn(2, size, size, dtype=dtype, device=device)
    out = torch.mm(a, b)

    def rate() -> float:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 2 * size**3 / (time.perf_counter() - started) / 1e9

    rate()
    return [rate() for _ in range(MATMUL_REPEATS)]


def table(document: dict[str, Any]) -> list[dict[str, str]]:
    """Column -> value as it is printed.

    images/s and ours/this are of medians: ours/this is our time over theirs, below 1 where we are faster. q1 and q3 are
    quartiles of the seconds. share is 2 x GMACs x images/s over the rate of `torch.mm`, or of oneDNN where that is
    faster; GMACs are those of an image: of training 3 times those of a forward pass (`bench.flops.training_gmacs`), of
    sampling those of all network calls. peak_gb is the largest over the rounds, in 1e9 bytes.
    """
    rate = max(median(rates) for rates in _rates(document).values())
    ours = {setting_of(row): median(_all(row)) for row in document["rows"] if row["contender"] == "ours"}
    rows = []
    for row in document["rows"]:
        seconds = _all(row)
        middle = median(seconds)
        low, _, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [middle] * 3
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


def setting_of(row: dict[str, Any]) -> str:
    """What of a row all contenders have in common, as text."""
    steps = f" {row['sampler']} {row['sampling_steps']} steps" if "sampler" in row else ""
    return f"{row['model']} b{row['batch_size']}{steps}"


def rates_in_words(document: dict[str, Any]) -> str:
    """The rates of products, the larger of which shares are of."""
    size = document["matmul_size"]
    how = f"{size} x {size}, {document['precision']}, {document['threads']} threads"
    rates = [
        f"{name} {median(rates):.0f} GFLOP/s ({min(rates):.0f} to {max(rates):.0f})"
        for name, rates in _rates(document).items()
    ]
    return f"{', '.join(rates)}: products of {how}"


def _rates(document: dict[str, Any]) -> dict[str, list[float]]:
    """By what multiplies; files of earlier versions have torch.mm alone."""
    rates = {"torch.mm": document["matmul_gflops"], "oneDNN": document.get("onednn_gflops")}
    return {name: found for name, found in rates.items() if found}


def _row(recipe: Recipe, name: str, conditions: Conditions) -> dict[str, Any]:
    gmacs, evaluation = forward_gmacs(recipe.model), recipe.evaluation
    row = {"model": recipe.model.name, "batch_size": _batch_size(recipe, conditions), "contender": name}
    if conditions.kind == "train":
        row["gmacs_an_image"] = training_gmacs(gmacs, 1, 1)
    else:
        row |= {"sampler": evaluation.sampler, "sampling_steps": evaluation.sampling_steps}
        row["gmacs_an_image"] = sampling_gmacs(evaluation, recipe.diffusion, gmacs)
    return {**row, "seconds": [], "peak_bytes": []}


def _batch_size(recipe: Recipe, conditions: Conditions) -> int:
    return recipe.train.batch_size if conditions.kind == "train" else recipe.evaluation.batch_size


def _rotated(names: tuple[str, ...], by: int) -> tuple[str, ...]:
    by %= len(names)
    return names[by:] + names[:by]


def _all(row: dict[str, Any]) -> list[float]:
    return [seconds for in_round in row["seconds"] for seconds in in_round]
