"""A ladder of tiny models on digits, and runs of any sweep whose scores follow a known law of models and training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from recipes import TINY
from run_folders import evaluation, write_lines

from analysis.laws.forms import FORMS
from bench.files.run_folder import write_config, write_model
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from sweeps.expand import load_sweep, run_folders

LAW = (2.0, 1.0, 3e4, 0.3, 0.2, 0.9)  # E, A, B, alpha, gamma, beta of the form sum
MODELS: dict[str, Any] = {
    "size": {"S": {"model.hidden_size": 16}, "B": {"model.hidden_size": 24}},
    "model.patch_size": [4, 2],
}
TRAIN = {"steps": 600, "batch_size": 32, "schedule": "cooldown", "cooldown_steps": 150, "warmup_steps": 50}


def write_models(folder: Path, **changed: Any) -> Path:
    """The sweep models.yaml: S/4, S/2, B/4 and B/2."""
    base = {key: value for key, value in TINY.items() if key != "label"}
    content: dict[str, Any] = {"name": "models", "label": "{size}/{patch_size}", "base": base, "product": MODELS}
    content["base"] = {**base, "train": {**TINY["train"], **TRAIN, "checkpoint_steps": [300]}}
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump(content | changed, sort_keys=False))
    return path


def write_ladder(folder: Path, **content: Any) -> Path:
    """A ladder's file; `content` over that of one with one budget."""
    whole: dict[str, Any] = {"name": "tiny-ladder", "extends": "models.yaml", "isoflop": [{"pf_days": 1e-9}]}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**whole, **content}, sort_keys=False))
    return path


def score(recipe: Recipe, noise: float = 0.02) -> float:
    arch = recipe.model.architecture()
    images = recipe.train.batch_size * recipe.train.steps
    at = {"compute": forward_gmacs(recipe.model), "tokens": float(arch.num_tokens), "images": float(images)}
    error = np.random.default_rng(int(recipe.id, 16)).normal(scale=noise)
    return float(FORMS["sum"](LAW, at)[0] * np.exp(error))


def write_run(recipe: Recipe, axes: dict[str, str], folder: Path, started: str, fid: float, **key: Any) -> None:
    """A finished run, scored where it ends."""
    write_config(recipe, folder, axes)
    write_model(recipe, folder)
    session = {"time": started, "host": "node", "device": "cpu", "precision": "fp32", "torch": "2.6"}
    write_lines(folder / "sessions.jsonl", [session | {"commit": "c0ffee", "resumed_from_step": 0, "threads": 1}])
    last = {"step": recipe.train.steps, "loss": fid / 1000, "mse": fid / 1000, "lr": 1e-3, "grad_norm": 0.3}
    write_lines(folder / "train.jsonl", [last | {"images_per_s": 1000.0, "gmacs_spent": 1.0}])
    write_lines(folder / "evals.jsonl", [evaluation("S/4", recipe.train.steps, **{"fid": fid, "samples": None} | key)])
    (folder / "finished.json").write_text(json.dumps({"step": recipe.train.steps, "time": started}))


def write_runs(
    path: Path, runs: Path, started: str = "2024-01-01T00:00:00+0000", factor: float = 1.0, **key: Any
) -> list[Path]:
    """Runs of a sweep, their scores times `factor`, their keys with `key`; their folders."""
    sweep = load_sweep(path)
    folders = run_folders(sweep, runs)
    for recipe in sweep.recipes:
        write_run(recipe, sweep.axes[recipe.id], folders[recipe.id], started, factor * score(recipe), **key)
    return list(folders.values())
