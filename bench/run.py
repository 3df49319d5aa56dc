"""One run, in one folder: train -> sample -> score at every kept step. Interrupted and repeated, it continues.

What the folder holds: see `bench/run_folder.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import checkpoint, flops, metrics, provenance
from bench.data import load_dataset
from bench.device import Precision, prepare_device
from bench.errors import RunError
from bench.evaluate import evaluate
from bench.recipe import Recipe
from bench.run_folder import is_finished, locked, logging_to, read_config, read_error, record_error
from bench.train import Trainer

log = logging.getLogger(__name__)

OnLog = Callable[[dict[str, Any]], None]


def run(
    folder: Path,
    study_folder: Path,
    device: str = "cpu",
    precision: Precision = "fp32",
    on_log: OnLog = lambda row: None,
) -> None:
    """Do what is left of the run in `folder`; nothing if it is finished.

    Args:
        folder: has config.yaml (see `bench.run_folder.write_config`).
        study_folder: where runs share the feature network they are scored with.
        device: cpu or cuda.
        precision: fp32, tf32 or bf16.
        on_log: told every row of train.jsonl and evals.jsonl as it is written.

    Raises:
        InputError: the configuration or the device is wrong.
        RunError: it diverged, or the disk is full; the message is also in error.json. A run that failed stays so
            until `bench.run_folder.clear_error`.
        RunLocked: another process is at it.
    """
    recipe = read_config(folder)
    if is_finished(folder):
        return
    torch_device = prepare_device(device, precision)
    with locked(folder), logging_to(folder):
        if is_finished(folder):  # by another process, just now
            return
        earlier = read_error(folder)
        if earlier is not None:
            raise RunError(f"failed before: {earlier}")
        try:
            _train_and_score(recipe, folder, study_folder, torch_device, precision, on_log)
        except Exception as error:
            record_error(folder, error)
            raise


def _train_and_score(
    recipe: Recipe, folder: Path, study_folder: Path, device: torch.device, precision: Precision, on_log: OnLog
) -> None:
    dataset = load_dataset(recipe.data.name, device)
    cost = flops.count(**recipe.model.arguments())
    trainer = Trainer(recipe, dataset, folder, cost.gmacs, device, precision, on_log)
    unscored = _unscored_steps(recipe, folder)
    trainer.resume(at_most=_last_usable_step(recipe, folder, unscored))
    _write_model(recipe, folder, cost)
    metrics.append(folder / "sessions.jsonl", provenance.session(device, precision, trainer.step))
    log.info("%s from step %d", "resumed" if trainer.step else "started", trainer.step)
    for step in unscored:
        trainer.train_until(step)
        row = evaluate(recipe, folder, study_folder, dataset, step, device, precision)
        metrics.append(folder / "evals.jsonl", row)
        on_log(row)
    trainer.train_until(recipe.train.steps)
    checkpoint.write_json(folder / "finished.json", {"step": recipe.train.steps, "time": provenance.now()})


def _unscored_steps(recipe: Recipe, folder: Path) -> list[int]:
    """Kept steps without a whole row in evals.jsonl; a row that a crash cut short is dropped."""
    path = folder / "evals.jsonl"
    metrics.cut_after(path, recipe.train.steps)
    scored = {row["step"] for row in metrics.read(path)}
    return [step for step in recipe.train.kept_steps() if step not in scored]


def _last_usable_step(recipe: Recipe, folder: Path, unscored: list[int]) -> int:
    """The last step that training may continue from: not beyond weights that are yet to be made, or made again."""
    checkpoints = folder / "checkpoints"
    untrained = [step for step in unscored if checkpoint.load_weights(checkpoints, step) is None]
    for step in untrained:
        checkpoint.weights_path(checkpoints, step).unlink(missing_ok=True)
    return min(untrained, default=recipe.train.steps)


def _write_model(recipe: Recipe, folder: Path, cost: flops.Cost) -> None:
    arch = recipe.model.architecture()
    content: dict[str, object] = {
        "name": recipe.model.name,
        "block": arch.block,
        "params": cost.num_parameters,
        "gmacs": cost.gmacs,
        "tokens": arch.num_tokens,
        "patch_size": arch.patch_size,
        "hidden_size": arch.hidden_size,
        "depth": arch.depth,
        "num_heads": arch.num_heads,
        "input_size": arch.input_size,
    }
    checkpoint.write_json(folder / "model.json", content)
