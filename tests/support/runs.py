"""Runs of small recipes in a study's folder, and what they measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.recipe import Recipe
from bench.run import run

# The fixtures `study` and `undisturbed`.
StudyFolder = Callable[[str], Path]
Undisturbed = Callable[[Recipe], dict[str, Any]]
SPEEDS = ("images_per_s", "sampling_images_per_s")


def start(recipe: Recipe, study: Path) -> Path:
    folder = study / recipe.folder_name
    write_config(recipe, folder)
    return folder


def finished(recipe: Recipe, study: Path) -> Path:
    folder = start(recipe, study)
    run(folder, study)
    return folder


def results(folder: Path) -> dict[str, Any]:
    """Everything a run measured, and its weights' bytes; speeds left out."""
    content: dict[str, Any] = {
        name: [{k: v for k, v in row.items() if k not in SPEEDS} for row in jsonl.read(folder / name)]
        for name in ("train.jsonl", "evals.jsonl")
    }
    for pattern in ("checkpoints/*.safetensors", "samples/*.npy"):
        content |= {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}
    return content


def last_step(folder: Path) -> int:
    """The last that was logged."""
    return max((row["step"] for row in jsonl.read(folder / "train.jsonl")), default=0)
