"""How fast training and sampling will go: as it was measured, or the device's peak times the share that is expected.

No expectation goes below what launching a network's kernels takes: small models are bound by that, not by compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from bench.commands.quantities import time_text
from bench.errors import InputError
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.samplers import network_calls
from sweeps import shipped
from sweeps.cluster import LEAST_SHARE, ClusterProfile, Mfu, Precision
from sweeps.expand import Sweep, load_sweep
from sweeps.groups import step_work
from sweeps.planning.measured import Measured, Where, like_it, measured_run, step_tflop

# PyTorch starts a kernel no faster, on any device: 5 microseconds is what CUDA's launches take one after the other.
LAUNCH_S = 5e-6
# Counted on the digits study's DiTs, views aside: forward and backward of a block, and the rest of a training step (the
# batch, the loss, fused optimiser and average); forward of a block, and the rest of a sampling step.
STEP_KERNELS, STEP_KERNELS_PER_BLOCK = 260, 60
CALL_KERNELS, CALL_KERNELS_PER_BLOCK = 50, 20
# From a job's start to its first step: Python, torch, the device and the data. 10 s from a local disk; longer from a
# file system that many nodes read at once.
JOB_START_S = 30.0


@dataclass(frozen=True)
class Speed:
    """What is expected of one device, in true TFLOP/s, and who says so.

    `mfu` is the share of `peak_tflops`; both are None where no peak is known. What was measured has no floor.
    """

    tflops: float
    source: str
    kind: Literal["assumed", "measured", "estimated"]
    peak_tflops: float | None = None
    mfu: float | None = None


def expected_speeds(
    sweep: Sweep,
    profile: ClusterProfile,
    cluster: str,
    folders: dict[str, Path],
    mfu: float | None,
    precision: Precision,
    runs: Path | None = None,
) -> tuple[dict[str, tuple[Speed, Speed]], str | None]:
    """Recipe id -> speed of training and of sampling; empty, with the reason, where nothing tells them.

    Training: `mfu` if it is given; else as measured on this cluster at this precision, by the run or another of the
    same model; else the profile's. Sampling: `mfu`, the profile's, or as in training. On this machine,
    if its profile has no peak: as measured, by runs of this sweep or any under `runs`, or estimated from these.

    Raises:
        InputError: `mfu` is no share.
    """
    if mfu is not None and not LEAST_SHARE <= mfu <= 1:
        raise InputError(f"--mfu {mfu:g}: accepted: a share of the peak, {LEAST_SHARE:g} to 1 (12 % is 0.12)")
    where = Where(cluster, profile.device, precision, profile.modes)
    peak = profile.peak_tflops(precision)
    own = {r.id: found for r in sweep.recipes if (found := measured_run(r, folders[r.id], where))}
    if peak is None and profile.executor == "local" and profile.gpu is None and mfu is None:
        return _of_this_machine(sweep, own, where, runs)
    if peak is None and profile.gpu:
        given = ", ".join(profile.gpu.peak_tflops) or "none"
        return {}, (
            f"{profile.where}: gpu.peak_tflops.{precision}: missing: the dense peak in TFLOP/s (2 a "
            f"multiply-accumulate); given: {given}"
        )
    if peak is None:
        return {}, f"{profile.where}: gpu: missing: name and peak_tflops.{precision}, dense, in TFLOP/s"

    def assumed(share: float, source: str) -> Speed:
        return Speed(peak * share, source, "assumed", peak, share)

    by_model = {r.model.architecture(): own[r.id] for r in reversed(sweep.recipes) if r.id in own}
    result = {}
    for recipe in sweep.recipes:
        earlier = own.get(recipe.id) or by_model.get(recipe.model.architecture())
        training = _as_measured(earlier.training_tflops, earlier.source, peak) if earlier else None
        if mfu is not None:
            result[recipe.id] = assumed(mfu, "given"), assumed(mfu, "given")
        elif profile.mfu:
            source = profile.mfu.source
            training = training or assumed(*_training_mfu(profile, profile.mfu))
            result[recipe.id] = training, assumed(profile.mfu.sampling, source)
        elif training:
            result[recipe.id] = training, _as_measured(training.tflops, f"as in training, {training.source}", peak)
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
    share, source = _training_mfu(profile, profile.mfu)
    return Speed(peak * share, source, "assumed", peak, share)


def _training_mfu(profile: ClusterProfile, mfu: Mfu) -> tuple[float, str]:
    """The share of the peak that the profile expects, and who says so: of steps that compute each activation once."""
    if not profile.checkpoint_activations:
        return mfu.training, mfu.source
    return 3 / 4 * mfu.training, f"{mfu.source}; 3/4 of it, as checkpoint_activations repeats the forward pass"


def _as_measured(tflops: float, source: str, peak: float | None = None) -> Speed:
    return Speed(tflops, source, "measured", peak, tflops / peak if peak else None)


def _of_this_machine(
    sweep: Sweep, own: dict[str, Measured], where: Where, runs: Path | None
) -> tuple[dict[str, tuple[Speed, Speed]], str | None]:
    """Speeds from runs of this machine alone."""
    missing = [recipe for recipe in sweep.recipes if recipe.id not in own]
    known = [*own.values(), *(like_it(runs, where) if missing and runs else ())]
    if missing and not known:
        nothing = (
            f"no run was trained here yet ({where.device}, {where.precision}) that would tell this machine's speed"
        )
        return {}, f"{nothing}{_elsewhere(sweep)}"
    by_model = {(found.recipe.model.architecture(), found.recipe.train.batch_size): found for found in reversed(known)}
    s_per_work = median(found.step_s / step_work(found.recipe) for found in known) if known else 0
    result = {}
    for recipe in sweep.recipes:
        found = own.get(recipe.id) or by_model.get((recipe.model.architecture(), recipe.train.batch_size))
        if found:
            training = _as_measured(found.training_tflops, found.source)
            sampling = _as_measured(found.sampling_tflops or found.training_tflops, found.source)
        else:
            labels = ", ".join(dict.fromkeys(found.recipe.label for found in known))
            step_s = s_per_work * step_work(recipe)
            source = f"estimated from {labels}: in proportion to compute and to depth"
            training = sampling = Speed(step_tflop(recipe) / step_s, source, "estimated")
        result[recipe.id] = training, sampling
    return result, None


def _elsewhere(sweep: Sweep) -> str:
    """What a shipped sweep took where its results were made."""
    minutes, results = shipped.measured_minutes().get(sweep.name, (None, ""))
    if minutes is None or sweep.recipes != load_sweep(shipped.STUDIES / f"{sweep.name}.yaml").recipes:
        return ""
    return f"; on the machine of results/{results} its runs took {time_text(60 * minutes)} of CPU time"


def step_floor_s(recipe: Recipe) -> float:
    """The least that a training step takes, in seconds."""
    return LAUNCH_S * (STEP_KERNELS + STEP_KERNELS_PER_BLOCK * recipe.model.architecture().depth)


def score_floor_s(recipe: Recipe, ranks: int, evaluation: EvaluationConfig | None = None) -> float:
    """The least that the samples of one score take, in seconds; ranks take batches in turn.

    `evaluation`: one of the recipe's; default: the first.
    """
    evaluation = evaluation or recipe.evaluation
    batches = math.ceil(math.ceil(evaluation.num_samples / evaluation.batch_size) / ranks)
    calls = network_calls(evaluation, recipe.diffusion)
    # Class and null label are one batch; another network is called for itself.
    by_network = evaluation.guide is not None or evaluation.guide_step is not None
    calls = calls.sampler + (calls.guided if by_network else 0)
    return batches * calls * LAUNCH_S * (CALL_KERNELS + CALL_KERNELS_PER_BLOCK * recipe.model.architecture().depth)
