"""How fast training and sampling will go: the device's peak times the share of it that is expected, or was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.errors import InputError
from bench.files import jsonl
from bench.flops import forward_gmacs, training_gmacs
from bench.recipe import Recipe
from sweeps.cluster import LEAST_SHARE, ClusterProfile, Precision
from sweeps.expand import Sweep

# True operations of one multiply-accumulate.
FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class Speed:
    """What is expected of one device: `peak_tflops` in true TFLOP/s, the share `mfu` of it, and who says so."""

    peak_tflops: float
    mfu: float
    source: str

    @property
    def tflops(self) -> float:
        return self.peak_tflops * self.mfu


def expected_speeds(
    sweep: Sweep,
    profile: ClusterProfile,
    cluster: str,
    folders: dict[str, Path],
    mfu: float | None,
    precision: Precision,
) -> tuple[dict[str, tuple[Speed, Speed]], str | None]:
    """Recipe id -> speed of training and of sampling; empty, with the reason, where the profile does not say enough.

    Training: `mfu` if it is given; else as measured on this cluster at this precision, by the run or another of the
    same model; else the profile's. Sampling: `mfu`, the profile's, or as in training.

    Raises:
        InputError: `mfu` is no share.
    """
    if mfu is not None and not LEAST_SHARE <= mfu <= 1:
        raise InputError(f"--mfu {mfu:g}: accepted: a share of the peak, {LEAST_SHARE:g} to 1 (12 % is 0.12)")
    peak = profile.peak_tflops(precision)
    if peak is None and profile.gpu:
        given = ", ".join(profile.gpu.peak_tflops) or "none"
        return {}, (
            f"{profile.where}: gpu.peak_tflops.{precision}: missing: the dense peak in TFLOP/s (2 a "
            f"multiply-accumulate); given: {given}"
        )
    if peak is None:
        return {}, f"{profile.where}: gpu: missing: name and peak_tflops.{precision}, dense, in TFLOP/s"
    measured = {r.id: _measured(r, folders[r.id], cluster, precision, peak) for r in sweep.recipes}
    by_model = {r.model.architecture(): speed for r in reversed(sweep.recipes) if (speed := measured[r.id])}
    result = {}
    for recipe in sweep.recipes:
        earlier = measured[recipe.id] or by_model.get(recipe.model.architecture())
        if mfu is not None:
            result[recipe.id] = Speed(peak, mfu, "given"), Speed(peak, mfu, "given")
        elif profile.mfu:
            source = profile.mfu.source
            training = earlier or Speed(peak, profile.mfu.training, source)
            result[recipe.id] = training, Speed(peak, profile.mfu.sampling, source)
        elif earlier:
            result[recipe.id] = earlier, Speed(peak, earlier.mfu, f"as in training, {earlier.source}")
        else:
            lacks = "mfu: missing: training, sampling and source, or --mfu"
            return {}, f"{profile.where}: {lacks}; {recipe.label} was not measured here"
    return result, None


def expected_training_speed(profile: ClusterProfile) -> Speed:
    """What the profile expects of one of its devices in training, at its own precision.

    Raises:
        InputError: the profile does not say.
    """
    peak = profile.peak_tflops()
    if peak is None or profile.mfu is None:
        lacks = "mfu" if peak is not None else f"gpu.peak_tflops.{profile.precision}" if profile.gpu else "gpu"
        raise InputError(
            f"{profile.where}: {lacks}: missing; GPU-hours need gpu (name, peak_tflops.{profile.precision}) and mfu "
            "(training, sampling, source), as in sweeps/clusters/slurm-example.yaml"
        )
    return Speed(peak, profile.mfu.training, profile.mfu.source)


def rate_of(row: dict[str, Any]) -> float | None:
    """Images/s in a row of train.jsonl, if a time can be computed from it."""
    rate = row.get("images_per_s")
    return rate if isinstance(rate, (int, float)) and 0 < rate < math.inf else None


def _measured(recipe: Recipe, folder: Path, cluster: str, precision: Precision, peak: float) -> Speed | None:
    """Training speed in the run's last session that trained here: the median over its rows of train.jsonl."""
    logged = [(row["step"], rate) for row in jsonl.read(folder / "train.jsonl") if (rate := rate_of(row))]
    until = recipe.train.steps
    for session in reversed(jsonl.read(folder / "sessions.jsonl")):
        started, world_size = session.get("resumed_from_step", 0), session.get("world_size", 1)
        rates = [rate for step, rate in logged if started < step <= until]
        if rates and (session.get("cluster"), session.get("precision")) == (cluster, precision):
            tflop = FLOPS_PER_MAC * training_gmacs(forward_gmacs(recipe.model), 1, 1) / 1e3
            ranks = f"{world_size} rank{'s' if world_size > 1 else ''}"
            source = f"measured: {recipe.label} on {ranks}, median of {len(rates)} rows of train.jsonl"
            return Speed(peak, median(rates) * tflop / (world_size * peak), source)
        until = min(until, started)
    return None
