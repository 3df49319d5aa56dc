"""How fast runs went that were trained before, as their metric files have it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.device import PLAIN, Device, Modes, Precision
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import phase_file, read_config
from bench.flops import forward_gmacs, training_gmacs
from bench.recipe import Recipe
from bench.samplers.guide import sampling_gmacs
from sweeps.cluster import cluster_name

# True operations of one multiply-accumulate.
FLOPS_PER_MAC = 2
# Of all runs in a folder, the newest are asked: more would keep a plan waiting.
MOST_RUNS = 200


@dataclass(frozen=True)
class Where:
    """On what, and how: speeds of another cluster, device, precision or mode tell nothing."""

    cluster: str
    device: Device
    precision: Precision
    modes: Modes = PLAIN

    def is_of(self, session: dict[str, Any]) -> bool:
        """Whether a row of sessions.jsonl is of such a start. Those of early versions name neither device nor modes."""
        at = cluster_name(str(session.get("cluster"))), session.get("precision")
        is_cpu = str(session.get("device", self.device)).startswith("cpu")
        modes = {name: session.get(name, False) for name in vars(self.modes)}
        is_alike = is_cpu == (self.device == "cpu") and modes == vars(self.modes)
        return is_alike and at == (self.cluster, self.precision)


@dataclass(frozen=True)
class Measured:
    """What a run reached, on each of its devices, in true TFLOP/s; of sampling None where no score tells."""

    recipe: Recipe
    training_tflops: float
    sampling_tflops: float | None
    source: str

    @property
    def step_s(self) -> float:
        """Seconds a step, on one device."""
        return step_tflop(self.recipe) / self.training_tflops


def step_tflop(recipe: Recipe) -> float:
    """True TFLOP of one training step: forward and backward, the whole batch."""
    return FLOPS_PER_MAC * training_gmacs(forward_gmacs(recipe.model), recipe.train.batch_size, 1) / 1e3


def rate_of(row: dict[str, Any], key: str = "images_per_s") -> float | None:
    """Images/s in a row of metrics, if a time can be computed from it."""
    rate = row.get(key)
    return rate if isinstance(rate, (int, float)) and 0 < rate < math.inf else None


def measured_run(recipe: Recipe, folder: Path, where: Where) -> Measured | None:
    """Training in the run's last session that trained there: the median over its rows of train.jsonl."""
    logged = [(row["step"], rate) for row in jsonl.read(folder / "train.jsonl") if (rate := rate_of(row))]
    until = recipe.train.steps
    sessions = jsonl.read(folder / "sessions.jsonl")
    for session in reversed(sessions):
        started, world_size = session.get("resumed_from_step", 0), session.get("world_size", 1)
        rates = [rate for step, rate in logged if started < step <= until]
        if rates and where.is_of(session):
            tflop = FLOPS_PER_MAC * training_gmacs(forward_gmacs(recipe.model), 1, 1) / 1e3
            ranks = f"{world_size} rank{'s' if world_size > 1 else ''}"
            source = f"measured: {recipe.label} on {ranks}, median of {len(rates)} rows of train.jsonl"
            sampling = _sampling_tflops(recipe, folder, where, sessions)
            return Measured(recipe, median(rates) * tflop / world_size, sampling, source)
        until = min(until, started)
    return None


def _sampling_tflops(recipe: Recipe, folder: Path, where: Where, training: list[dict[str, Any]]) -> float | None:
    """The median over the run's scores. They do not say where each was made: all starts must be of there, and alike."""
    sessions = jsonl.read(phase_file(folder, "sessions.jsonl", "scoring")) or training
    ranks = {session.get("world_size", 1) for session in sessions}
    rates = [rate for row in jsonl.read(folder / "evals.jsonl") if (rate := rate_of(row, "sampling_images_per_s"))]
    if not rates or len(ranks) > 1 or not all(map(where.is_of, sessions)):
        return None
    tflop = FLOPS_PER_MAC * sampling_gmacs(recipe.evaluation, recipe.diffusion, forward_gmacs(recipe.model)) / 1e3
    return median(rates) * tflop / ranks.pop()


def like_it(runs: Path, where: Where) -> Iterator[Measured]:
    """What the newest runs of any sweep under a folder reached there."""
    changed = {path: path.stat().st_mtime for path in runs.glob("*/*/train.jsonl")}
    for path in heapq.nlargest(MOST_RUNS, changed, key=lambda path: changed[path]):
        if not any(map(where.is_of, jsonl.read(path.parent / "sessions.jsonl"))):
            continue  # before its recipe is read, which takes longer
        try:
            found = measured_run(read_config(path.parent), path.parent, where)
        except InputError:  # of parts that are not here, or damaged
            continue
        if found:
            yield found
