"""One run, in one folder: train -> sample -> score at every kept step. Interrupted and repeated, it continues.

What the folder holds: see `bench/run_folder.py`.
"""

from __future__ import annotations

import io
import logging
import platform
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import RunError
from bench.recipe import Recipe
from bench.run_folder import is_finished, locked, logging_to, read_config, read_error, record_error

if TYPE_CHECKING:
    import torch

    from bench.data import Dataset
    from bench.device import Precision
    from bench.fidelity import Scorer
    from models.dit import DiT


def run(
    folder: Path,
    study_folder: Path,
    device: str = "cpu",
    precision: Precision = "fp32",
    on_log: Callable[[dict[str, Any]], None] = lambda row: None,
) -> None:
    """Do what is left of the run in `folder`; nothing if it is finished.

    Args:
        folder: has config.yaml (see `bench.run_folder.write_config`).
        study_folder: where runs share the feature network they are scored with.
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
    with locked(folder), logging_to(folder):
        if is_finished(folder):  # another process did, just now
            return
        error = read_error(folder)
        if error is not None:
            raise RunError(f"failed before: {error}")
        try:
            _Run(recipe, folder, study_folder, device, precision, on_log).go()
        except Exception as error:
            record_error(folder, error)
            raise


log = logging.getLogger(__name__)


class _Run:
    """The parts that a run's steps share."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        study_folder: Path,
        device: str,
        precision: Precision,
        on_log: Callable[[dict[str, Any]], None],
    ) -> None:
        from bench import flops
        from bench.data import load_dataset
        from bench.device import prepare_device
        from bench.train import Trainer

        self.recipe = recipe
        self.folder = folder
        self.study_folder = study_folder
        self.device = prepare_device(device, precision)
        self.precision: Precision = precision
        self.on_log = on_log
        self.dataset = load_dataset(recipe.data.name, self.device)
        self.cost = flops.count(**recipe.model.arguments())
        self.trainer = Trainer(recipe, self.dataset, folder, self.cost.gmacs, self.device, precision, on_log)

    def go(self) -> None:
        from bench import checkpoint, metrics

        evals = self.folder / "evals.jsonl"
        scored = {row["step"] for row in metrics.read(evals)}
        metrics.cut_after(evals, self.recipe.train.steps)
        missing = [step for step in self.recipe.train.kept_steps() if step not in scored]
        checkpoints = self.folder / "checkpoints"
        untrained = [step for step in missing if checkpoint.load_weights(checkpoints, step) is None]
        # A run whose kept weights were lost goes back as far as it must.
        self.trainer.resume(at_most=min(untrained, default=self.recipe.train.steps))
        self._record_start()
        for step in untrained:
            checkpoint.weights_path(checkpoints, step).unlink(missing_ok=True)
        for step in missing:
            self.trainer.train_until(step)
            self._evaluate(step)
        self.trainer.train_until(self.recipe.train.steps)
        checkpoint.write_json(self.folder / "finished.json", {"step": self.recipe.train.steps, "time": _now()})

    def _record_start(self) -> None:
        import torch

        from bench import checkpoint, metrics

        arch = self.recipe.model.architecture()
        model: dict[str, object] = {
            "name": self.recipe.model.name,
            "block": arch.block,
            "params": self.cost.num_parameters,
            "gmacs": self.cost.gmacs,
            "tokens": arch.num_tokens,
            "patch_size": arch.patch_size,
            "hidden_size": arch.hidden_size,
            "depth": arch.depth,
            "num_heads": arch.num_heads,
            "input_size": arch.input_size,
        }
        checkpoint.write_json(self.folder / "model.json", model)
        start = {
            "time": _now(),
            "host": socket.gethostname(),
            "device": _device_name(self.device),
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": _commit(),
            "resumed_from_step": self.trainer.step,
        }
        metrics.append(self.folder / "sessions.jsonl", start)
        log.info("%s from step %d", "resumed" if self.trainer.step else "started", self.trainer.step)

    def _evaluate(self, step: int) -> None:
        """Sample with the EMA weights of a kept step, save the samples, score them, append the row."""
        from bench import checkpoint, metrics

        weights = checkpoint.load_weights(self.folder / "checkpoints", step)
        if weights is None:
            raise RunError(f"{self.folder}: the EMA weights of step {step} could not be read back")
        model = _evaluation_model(self.recipe, weights, self.device)
        started = time.perf_counter()
        samples = _sample_all(model, self.recipe, self.dataset, self.device, self.precision)
        sampling_seconds = time.perf_counter() - started
        scorer, shared_key = _scorer(self.recipe, self.dataset, self.study_folder, self.device)
        evaluation = self.recipe.evaluation
        key: dict[str, Any] = {
            "step": step,
            "weights": "ema",
            "sampler": evaluation.sampler,
            "sampling_steps": evaluation.sampling_steps,
            "clip_denoised": evaluation.clip_denoised,
            "guidance_scale": evaluation.guidance_scale,
            "guidance_channels": evaluation.guidance_channels if evaluation.guidance_scale != 1 else None,
            "decoder": self.dataset.decoder,
            "num_samples": evaluation.num_samples,
            "labels": evaluation.labels,
            **shared_key,
        }
        path = self.folder / "samples" / f"step-{step:08d}.npy"
        _save_samples(path, samples, {"run": self.recipe.id, "seed": self.recipe.seed, **key})
        row = {
            **key,
            **scorer.score(samples),
            "sampling_images_per_s": evaluation.num_samples / sampling_seconds,
            "samples": str(path.relative_to(self.folder)),
        }
        metrics.append(self.folder / "evals.jsonl", row)
        self.on_log(row)


def _evaluation_model(recipe: Recipe, weights: dict[str, torch.Tensor], device: torch.device) -> DiT:
    import models

    model = models.create_model(**recipe.model.arguments())
    model.load_state_dict(weights, strict=True)
    return model.to(device).eval()


def _sample_all(
    model: DiT, recipe: Recipe, dataset: Dataset, device: torch.device, precision: Precision
) -> torch.Tensor:
    import torch

    from bench.sample import sample_batches

    return torch.cat(list(sample_batches(model, recipe, dataset, device, precision)))


# The scorer of the last evaluation: runs of one study share the reference, whose features are the costly part.
_last_scorer: dict[tuple[object, ...], tuple[Scorer, dict[str, Any]]] = {}


def _scorer(
    recipe: Recipe, dataset: Dataset, study_folder: Path, device: torch.device
) -> tuple[Scorer, dict[str, Any]]:
    """The scorer of a recipe, and the part of a score's key that it decides."""
    from bench.data import reference_id
    from bench.fidelity import Scorer, extractor

    evaluation = recipe.evaluation
    identity = (recipe.data, evaluation.extractor, evaluation.kid_subset_size, study_folder, device)
    if identity not in _last_scorer:
        network = extractor(evaluation.extractor, study_folder / "features")
        images = dataset.reference_images().cpu()
        key = {
            "reference": reference_id(recipe.data.name, images),
            "extractor": network.id,
            "extractor_accuracy": network.test_accuracy,
            "kid_subset_size": evaluation.kid_subset_size,
        }
        _last_scorer.clear()
        _last_scorer[identity] = Scorer(images, network, evaluation.kid_subset_size, device), key
    return _last_scorer[identity]


def _save_samples(path: Path, samples: torch.Tensor, provenance: dict[str, Any]) -> None:
    """`.npy` uint8 (N, C, H, W), and a `.json` beside it that says how it was made."""
    import numpy as np

    from bench import checkpoint

    buffer = io.BytesIO()
    np.save(buffer, samples.numpy(), allow_pickle=False)
    checkpoint.write_atomically(path, buffer.getvalue())
    checkpoint.write_json(path.with_suffix(".json"), {**provenance, "commit": _commit()})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"


def _commit() -> str | None:
    """The checked-out commit of the suite, with `+` if files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
