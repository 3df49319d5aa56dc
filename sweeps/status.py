"""The state of runs, read from the tails of their files. Read-only: looking never changes a run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.recipe import Recipe
from bench.run_folder import is_finished, is_locked, read_error

State = Literal["waiting", "running", "finished", "failed"]

# Enough for the last rows of a metric file, however long it is.
TAIL_BYTES = 8192


@dataclass(frozen=True)
class RunStatus:
    """One run: `loss` of the last logged window, `fid` of the newest score, `images_per_s` in training."""

    label: str
    folder: Path
    state: State
    step: int
    steps: int
    loss: float | None
    fid: float | None
    fid_step: int | None
    images_per_s: float | None
    seconds_left: float | None
    error: str | None


def run_status(recipe: Recipe, folder: Path) -> RunStatus:
    """Read one run's state; a run without a folder is waiting. `seconds_left`: of training, at the last speed."""
    train = last_row(folder / "train.jsonl") or {}
    score = last_row(folder / "evals.jsonl") or {}
    step, rate = train.get("step", 0), train.get("images_per_s")
    state = _state(folder)
    left = (recipe.train.steps - step) * recipe.train.batch_size / rate if rate and state == "running" else None
    return RunStatus(
        label=recipe.label,
        folder=folder,
        state=state,
        step=step,
        steps=recipe.train.steps,
        loss=train.get("loss"),
        fid=score.get("fid"),
        fid_step=score.get("step"),
        images_per_s=rate,
        seconds_left=left,
        error=read_error(folder),
    )


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a metric file, reading only its end; None if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            whole_lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(whole_lines):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None


def _state(folder: Path) -> State:
    if is_finished(folder):
        return "finished"
    if is_locked(folder / ".lock"):
        return "running"
    return "failed" if (folder / "error.json").exists() else "waiting"
