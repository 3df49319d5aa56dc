"""One run, in one folder: train -> sample -> score at every kept step. Interrupted and repeated, it continues.

A kept step is scored by the recipe's `evaluation` and by all of its `scores` that are for it.

`run` does all of it; `train` and `score` do their part, where jobs of their own score checkpoints. All ranks of a run
call them alike; rank 0 writes. What the folder holds: see `bench/files/run_folder.py`.
"""

from __future__ import annotations

import importlib
import logging
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

import models
from bench import provenance
from bench.averages import kept_weights, power_averages
from bench.data import Dataset
from bench.data.normalization import keep_of, kept_of
from bench.device import check_modes, is_out_of_memory, release_memory
from bench.errors import InputError, RunError
from bench.files import checkpoint, jsonl
from bench.files.atomic import write_json
from bench.files.run_folder import (
    Phase,
    RunLocked,
    failed_attempts,
    is_finished,
    is_trained,
    locked,
    logging_to,
    read_config,
    read_error,
    read_micro_batches,
    record_failure,
    weights_of,
    weights_path,
    write_model,
)
from bench.files.scored import EVALS, SCORES, rows_path, samples_path, unscored
from bench.flops import cost_of
from bench.objectives import OBJECTIVES
from bench.parallel import Execution, OnLog, Parallel, lost_a_peer, placed, prepare_device
from bench.randomness import Stream, generator
from bench.recipe import Recipe
from bench.recipe.evaluation import Score
from bench.sample import forget_samples
from bench.score.evaluate import check_scoring, evaluate
from bench.stopping import Stopped, StopRequest
from bench.trackers import Tracker, open_trackers
from bench.train import Trainer
from bench.weights import header_of
from models.files.assets import DamagedAsset, FetchError, MissingAsset
from models.parts import line_of

log = logging.getLogger(__name__)

# A rank that lost its peer waits this long for the peer to say what happened to it.
PEER_SECONDS = 10


def run(folder: Path, study_folder: Path, execution: Execution | None = None) -> None:
    """Do what is left of the run in `folder`; nothing if it is finished.

    Args:
        folder: has config.yaml (see `bench.files.run_folder.write_config`).
        study_folder: where runs share the feature network they are scored with.
        execution: on what, and by how many ranks; default: this process on the CPU.

    Raises:
        InputError: the configuration or the device is wrong.
        RunError: it diverged, or the disk is full; the message is also in failures.jsonl. After
            `execution.max_failures` of them the run stays failed until `bench.files.run_folder.clear_error`.
        RunLocked: another process is at it.
        Stopped: on request; the same call continues.
    """
    execution = execution or Execution()
    if execution.ranks.from_first(is_finished(folder)):
        return
    recipe = read_config(folder)
    with _working_on(folder, "training", execution), _locked(folder, "scoring", execution):
        _with_less_memory(recipe, folder, execution, lambda: _train(recipe, folder, study_folder, execution))


def train(folder: Path, execution: Execution) -> None:
    """Train without scoring; arguments and errors as `run`."""
    recipe = read_config(folder)
    with _working_on(folder, "training", execution):
        _with_less_memory(recipe, folder, execution, lambda: _train(recipe, folder, None, execution))


def score(folder: Path, study_folder: Path, execution: Execution) -> None:
    """Make every score that is missing and whose weights are there; arguments and errors as `run`."""
    recipe, ranks = read_config(folder), execution.ranks
    with (
        _working_on(folder, "scoring", execution),
        _trackers(recipe, folder, recipe.train.steps, execution) as trackers,
    ):
        device = _device(execution)
        if ranks.is_first:
            jsonl.append(folder / "scoring-sessions.jsonl", _session(device, execution))
            _cut_scores(recipe, folder)
            if recipe.scores:  # their metrics, if they were added after training
                write_model(recipe, folder)
        while ready := ranks.from_first(_ready(recipe, folder)):
            for one in ready:
                _score(recipe, folder, study_folder, one, device, execution, trackers)
        if ranks.is_first:
            _finish_if_complete(recipe, folder)


def _device(execution: Execution) -> torch.device:
    return prepare_device(execution.device, execution.precision, execution.ranks.local_rank)


@contextmanager
def _working_on(folder: Path, phase: Phase, execution: Execution) -> Iterator[None]:
    """Hold the run's lock and write its log, on rank 0, and leave the reason where the work fails."""
    ranks = execution.ranks
    with _locked(folder, phase, execution), ExitStack() as stack:
        if ranks.is_first:
            stack.enter_context(logging_to(folder, phase))
        earlier = ranks.from_first(read_error(folder, phase))
        if earlier is not None:
            raise RunError(f"failed before: {earlier}")
        attempt = ranks.from_first(execution.session.get("attempt") or uuid.uuid4().hex)
        try:
            yield
        except Stopped as stopped:
            log.info("%s", stopped)
            raise
        except RunLocked:
            raise
        except Exception as error:
            _record(folder, phase, error, attempt, execution)
            raise


@contextmanager
def _locked(folder: Path, phase: Phase, execution: Execution) -> Iterator[None]:
    """Rank 0 holds the lock; all ranks learn if it cannot."""
    with ExitStack() as stack:
        problem = None
        if execution.ranks.is_first:
            try:
                stack.enter_context(locked(folder, phase, execution.lock_wait_s))
            except RunLocked as error:
                problem = str(error)
        problem = execution.ranks.from_first(problem)
        if problem:
            raise RunLocked(problem)
        yield


def _record(folder: Path, phase: Phase, error: Exception, attempt: str, execution: Execution) -> None:
    """Leave the reason in failures.jsonl, once for all ranks: the rank that failed by itself knows it best."""
    ranks = execution.ranks
    deadline = time.monotonic() + (PEER_SECONDS if lost_a_peer(error) else 0.2 * ranks.rank)
    while ranks.world_size > 1:
        if any(row.get("attempt") == attempt for row in failed_attempts(folder, phase)):
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    expected = isinstance(error, (InputError, RunError, MissingAsset, DamagedAsset, FetchError))
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    if not expected and (line := line_of(error)):
        text += f" ({line})"
    facts = {**execution.session, "attempt": attempt, "rank": ranks.rank}
    if lost_a_peer(error):
        facts["lost_a_peer"] = True  # a row with the peer's own reason may follow
    if not expected:
        facts["traceback"] = "".join(traceback.format_exception(error))
        log.error("%s", facts["traceback"])
    record_failure(folder, phase, text, execution.max_failures, facts)


def _train(recipe: Recipe, folder: Path, study_folder: Path | None, execution: Execution) -> None:
    """Train what is left, and score each kept step on the way if there is a `study_folder`."""
    ranks = execution.ranks
    if ranks.from_first(is_finished(folder)):
        return
    parallel = Parallel(_device(execution), execution.precision, ranks, execution.modes)
    check_modes(execution.modes, recipe.model.name, ranks.world_size, "how the run is carried out")
    check_scoring(recipe, folder, execution.offline)
    micro_batches = ranks.from_first(read_micro_batches(folder))
    _check_batch(recipe, ranks.world_size, micro_batches)
    if study_folder:
        importlib.import_module("torch_fidelity")  # broken, or its torchvision, it ends the run now, not after training
        if ranks.is_first:
            _cut_scores(recipe, folder)
    left = ranks.from_first(unscored(recipe, folder))
    usable = ranks.from_first(_last_usable_step(recipe, folder, left) if ranks.is_first else 0)
    # Then nothing needs a training state, which may have been cleared away.
    trained = ranks.from_first(usable == recipe.train.steps and is_trained(recipe, folder))
    trackers: list[Tracker] = []

    def on_log(row: dict[str, Any]) -> None:
        log.info("%s", jsonl.in_words(row))
        execution.on_log(row)
        for tracker in trackers:
            tracker.log(row)

    trainer = None
    if not trained:
        if problem := ranks.from_first(keep_of(recipe.data, folder) if ranks.is_first else None):
            raise InputError(problem)
        dataset, cost = recipe.data.load(parallel.device), cost_of(recipe.model.name, recipe.model.architecture())
        gmacs, stop = cost.macs / 1e9, execution.stop
        trainer = build_trainer(recipe, dataset, folder, gmacs, parallel, on_log, stop, micro_batches)
        trainer.resume(at_most=usable)
    begins_at = trainer.step if trainer else recipe.train.steps
    if ranks.is_first:
        write_model(recipe, folder)
        facts = {"resumed_from_step": begins_at, "micro_batches": micro_batches}
        jsonl.append(folder / "sessions.jsonl", {**_session(parallel.device, execution), **facts})
    log.info("%s from step %d", "resumed" if begins_at else "started", begins_at)
    with _trackers(recipe, folder, begins_at, execution) as opened:
        trackers += opened
        for step, scores in groupby(left, key=lambda score: score.step):
            if trainer:
                trainer.train_until(step)
            execution.on_weights(step)
            if study_folder:
                for one in scores:
                    _score(recipe, folder, study_folder, one, parallel.device, execution, trackers)
        if trainer:
            trainer.train_until(recipe.train.steps)
    if ranks.is_first and study_folder:
        _finish_if_complete(recipe, folder)


def _score(
    recipe: Recipe,
    folder: Path,
    study_folder: Path,
    score: Score,
    device: torch.device,
    execution: Execution,
    trackers: list[Tracker],
) -> None:
    row = evaluate(recipe, folder, study_folder, score, device, execution)
    if row is not None:
        jsonl.append(rows_path(folder, score), row)
        log.info("%s", jsonl.in_words(row))
        execution.on_log(row)
        for tracker in trackers:
            tracker.log(row)


@contextmanager
def _trackers(recipe: Recipe, folder: Path, step: int, execution: Execution) -> Iterator[list[Tracker]]:
    """The run's trackers, on rank 0, closed at the end."""
    names = execution.trackers if execution.ranks.is_first else ()
    opened = open_trackers(names, folder, recipe, step)
    try:
        yield opened
    finally:
        for tracker in opened:
            tracker.close()


def _session(device: torch.device, execution: Execution) -> dict[str, Any]:
    session = provenance.session(device, execution.precision, execution.ranks.world_size)
    return {**session, **asdict(execution.modes), **execution.session}


def _finish_if_complete(recipe: Recipe, folder: Path) -> None:
    if unscored(recipe, folder):
        return  # of weights that a job of its own has yet to make
    if added := unscored(read_config(folder), folder):
        log.info("%d scores were added meanwhile; the next start makes them", len(added))
        return
    write_json(folder / "finished.json", {"step": recipe.train.steps, "time": jsonl.now()})


def _cut_scores(recipe: Recipe, folder: Path) -> None:
    """Drop rows that a crash cut short."""
    for name in (EVALS, SCORES):
        jsonl.cut_after(folder / name, recipe.train.steps)


def _ready(recipe: Recipe, folder: Path) -> list[Score]:
    """Scores that can be made now."""
    there = {*(folder / "checkpoints").glob("*.safetensors")}
    return [score for score in unscored(recipe, folder) if weights_of(recipe, folder, [score]) <= there]


def _last_usable_step(recipe: Recipe, folder: Path, left: list[Score]) -> int:
    """The last step that training may continue from: not beyond weights that are yet to be made, or made again."""
    checkpoints = folder / "checkpoints"
    steps = {score.step for score in left}
    wanted = weights_of(recipe, folder, left)
    snapshots = power_averages(recipe.train) if left and recipe.train.snapshot_steps() else {}

    def is_there(step: int, name: str) -> bool:
        if step in steps:
            return checkpoint.load_weights(checkpoints, step, name, recipe.id) is not None
        return checkpoint.has_weights(checkpoints, step, name, recipe.id)  # of snapshots there may be hundreds

    lost = {
        path: step
        for step, names in kept_weights(recipe.train).items()
        for name in names
        if (path := weights_path(checkpoints, step, name)) in wanted or step in steps or name in snapshots
        if not is_there(step, name)
    }
    for path in lost:
        path.unlink(missing_ok=True)
    for score in left:
        if weights_of(recipe, folder, [score]) & lost.keys():
            forget_samples(samples_path(folder, score.step, score.samples))
    return min(lost.values(), default=recipe.train.steps)


def _check_batch(recipe: Recipe, world_size: int, micro_batches: int) -> None:
    batch_size = recipe.train.batch_size
    if batch_size % (world_size * micro_batches):
        raise InputError(
            f"train.batch_size: {batch_size} is not a multiple of {world_size} ranks x {micro_batches} micro-batches"
        )


def _with_less_memory(recipe: Recipe, folder: Path, execution: Execution, work: Callable[[], None]) -> None:
    """Do the work; where memory runs out and the recipe allows it, again with micro-batches of half the size.

    Raises:
        RunError: it is not allowed, or a micro-batch is one image already.
        Stopped: other ranks have to start again as well.
    """
    while True:
        pieces = execution.ranks.from_first(read_micro_batches(folder))  # before another rank may have raised it
        try:
            return work()
        except RuntimeError as error:  # so is torch's OutOfMemoryError
            if not is_out_of_memory(error):
                if lost_a_peer(error) and read_micro_batches(folder) > pieces:
                    raise Stopped("out of memory on another rank: every rank starts again") from None
                raise
            reason = str(error).splitlines()[0]
        world_size = execution.ranks.world_size
        images = recipe.train.batch_size // world_size // pieces
        if images % 2:
            raise RunError(f"out of memory with {images} images at a time, which cannot be halved ({reason})")
        if not recipe.train.allow_accumulation:
            hint = "train.allow_accumulation: true lets a run split its batches further"
            raise RunError(f"out of memory with {images} images at a time ({reason}); {hint}")
        log.warning("out of memory; going on with %d images at a time, gradients accumulated (%s)", images // 2, reason)
        content = {"micro_batches": 2 * pieces, "reason": reason, "time": jsonl.now()}
        write_json(folder / "micro_batches.json", content)
        if world_size > 1:
            raise Stopped("out of memory: every rank starts again, with micro-batches of half the size")
        release_memory()


def build_model(recipe: Recipe, device: torch.device) -> nn.Module:
    """A freshly initialised model: a function of the recipe's seed alone, whatever the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.seed, Stream.INIT, 0).initial_seed())
        return placed(models.create_model(**recipe.model.arguments()), device)


def build_trainer(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    gmacs: float,
    parallel: Parallel,
    on_log: OnLog = lambda row: None,
    stop: StopRequest | None = None,
    micro_batches: int = 1,
) -> Trainer:
    """A trainer of the parts that a recipe names; arguments as `Trainer`."""
    return Trainer(
        build_model(recipe, parallel.device),
        OBJECTIVES.find(recipe.diffusion.objective)(recipe.diffusion.options, parallel.device),
        dataset,
        parallel,
        recipe.train,
        recipe.seed,
        folder,
        gmacs,
        on_log,
        stop,
        micro_batches,
        header_of(recipe, kept_of(recipe.data, folder)),
    )
