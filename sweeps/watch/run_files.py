"""What the files of a run tell of it, read from their ends: a look at a thousand long runs takes a second or two.

Read-only: looking never changes a run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.recipe import Recipe
from bench.run_folder import is_finished, is_trained, phase_file, read_error
from sweeps.slurm.submissions import Kind

# Enough for the last rows of a metric file, however long it is.
TAIL_BYTES = 8192
KINDS: tuple[Kind, ...] = ("training", "scoring")
NO_FILE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class RunFiles:
    """One run's files.

    Attributes:
        train, score: the newest rows of train.jsonl and evals.jsonl, empty if there are none.
        starts: how often each kind of job started it.
        first, newest: the rows of its first training and, by kind, of its newest start.
        errors: why it was given up, by kind of job.
        finished_s, written_s: when it was complete, and when a row was last added, in seconds since 1970.
    """

    recipe: Recipe
    folder: Path
    train: dict[str, Any]
    score: dict[str, Any]
    starts: dict[Kind, int]
    first: dict[str, Any]
    newest: dict[Kind, dict[str, Any]]
    errors: dict[Kind, str]
    is_trained: bool
    is_finished: bool
    finished_s: float | None
    written_s: float | None

    @property
    def started_s(self) -> float | None:
        """When it was started first, in seconds since 1970."""
        return seconds(self.first.get("time"))

    def newest_s(self, kind: Kind) -> float:
        """When it was started last for this kind of job, in seconds since 1970; 0 if never."""
        return seconds(self.newest[kind].get("time")) or 0

    @property
    def last_start(self) -> tuple[Kind, dict[str, Any]] | None:
        """The newest start of either kind, None before the first."""
        kinds: list[Kind] = [kind for kind in KINDS if self.newest[kind]]
        kind = max(kinds, key=self.newest_s, default=None)
        return (kind, self.newest[kind]) if kind else None

    def is_done(self, kind: Kind, scores_inline: bool) -> bool:
        """Whether a job of this kind has nothing to do for the run any more."""
        if self.is_finished or kind in self.errors:
            return True
        if kind == "training":
            return self.is_trained and not scores_inline
        return "training" in self.errors and not self.is_trained


def read_run(recipe: Recipe, folder: Path) -> RunFiles:
    """Read a run's files; one without a folder was never started."""
    finished = is_finished(folder)
    sessions: dict[Kind, list[bytes]] = {kind: _rows(phase_file(folder, "sessions.jsonl", kind)) for kind in KINDS}
    errors: dict[Kind, str] = {}
    for kind in KINDS:
        if not finished and (error := read_error(folder, kind)) is not None:
            errors[kind] = error
    written = [_changed(folder / name) for name in ("train.jsonl", "evals.jsonl")]
    return RunFiles(
        recipe=recipe,
        folder=folder,
        train=last_row(folder / "train.jsonl") or {},
        score=last_row(folder / "evals.jsonl") or {},
        starts={kind: len(lines) for kind, lines in sessions.items()},
        first=_first_row(sessions["training"]),
        newest={kind: _first_row(reversed(lines)) for kind, lines in sessions.items()},
        errors=errors,
        is_trained=finished or is_trained(recipe, folder),
        is_finished=finished,
        finished_s=_finished_s(folder) if finished else None,
        written_s=max((time for time in written if time is not None), default=None),
    )


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a metric file, reading only its end; None if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            whole_lines = file.read().split(b"\n")[:-1]
    except NO_FILE:
        return None
    return _first_row(reversed(whole_lines)) or None


def seconds(time: object) -> float | None:
    """A row's time (`bench.jsonl.now`) in seconds since 1970; None if it is none."""
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None


def _rows(path: Path) -> list[bytes]:
    """The whole lines of a short file."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except NO_FILE:
        return []


def _first_row(lines: Iterable[bytes]) -> dict[str, Any]:
    """The first line that is a JSON object; empty if none is."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return row
    return {}


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except NO_FILE:
        return None


def _finished_s(folder: Path) -> float | None:
    try:
        content = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
        return seconds(content["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
