"""Sweeps of tiny models on digits, as files, and how far they have come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from recipes import TINY

from bench.files import jsonl
from sweeps.expand import load_sweep, run_folders

DITBENCH = Path(sys.executable).with_name("ditbench")
# S/4, S/2, B/4 and B/2
FOUR: dict[str, Any] = {
    "size": {"S": {"model.hidden_size": 16}, "B": {"model.hidden_size": 24}},
    "model.patch_size": [4, 2],
}
SIZE_AND_PATCH = "{size}/{patch_size}"


def write_sweep(
    folder: Path, name: str, axes: dict[str, Any], train: dict[str, Any] | None = None, label: str | None = None
) -> Path:
    """`axes` as the grammar's `product`."""
    base = {key: value for key, value in TINY.items() if key != "label"}
    base["train"] = {**TINY["train"], **(train or {})}
    content = {"name": name, **({"label": label} if label else {}), "base": base, "product": axes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def four_runs(folder: Path, **train: Any) -> Path:
    return write_sweep(folder, "tiny", FOUR, train, SIZE_AND_PATCH)


def submit_here(path: Path, runs: Path) -> list[str]:
    """The command."""
    return [str(DITBENCH), "sweep", "submit", str(path), "--cluster", "local", "--runs", str(runs)]


def folders(path: Path, runs: Path) -> dict[str, Path]:
    """Label -> run folder."""
    sweep = load_sweep(path)
    by_id = run_folders(sweep, runs)
    return {recipe.label: by_id[recipe.id] for recipe in sweep.recipes}


def rows_logged(path: Path, runs: Path) -> int:
    return sum(len(jsonl.read(folder / "train.jsonl")) for folder in folders(path, runs).values())
