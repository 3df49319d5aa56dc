"""The one reader of run folders, for those who watch runs and for those who make tables of them; it changes nothing.

`read_ends` reads no more than files' ends: a look at a thousand long runs takes a second or two. `read_records` is for
tables and reads whole files, when they are asked for.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import DATA, PixelDataset
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import PHASES, Phase, is_complete, is_trained, phase_file, read_content, read_error
from bench.files.scored import EVALS, SCORES, unscored
from bench.recipe import Recipe
from bench.schema import check_options

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class RunFiles:
    """What the ends of one run's files say.

    Attributes:
        train, score: the newest rows of train.jsonl and evals.jsonl, empty if there are none.
        unscored: how many of the recipe's scores are missing.
        starts: how often each kind of job started it.
        first, newest: the rows of its first training and, by kind, of its newest start.
        errors: why it was given up, by kind of job.
        finished_s, written_s: when it was complete, and when a row was last added, in seconds since 1970.
    """

    recipe: Recipe
    folder: Path
    train: dict[str, Any]
    score: dict[str, Any]
    unscored: int
    starts: dict[Phase, int]
    first: dict[str, Any]
    newest: dict[Phase, dict[str, Any]]
    errors: dict[Phase, str]
    is_trained: bool
    is_finished: bool
    finished_s: float | None
    written_s: float | None

    @property
    def started_s(self) -> float | None:
        """When it was started first, in seconds since 1970."""
        return seconds(self.first.get("time"))

    def newest_s(self, kind: Phase) -> float:
        """When it was started last for this kind of job, in seconds since 1970; 0 if never."""
        return seconds(self.newest[kind].get("time")) or 0

    @property
    def last_start(self) -> tuple[Phase, dict[str, Any]] | None:
        """The newest start of either kind, None before the first."""
        kinds: list[Phase] = [kind for kind in PHASES if self.newest[kind]]
        kind = max(kinds, key=self.newest_s, default=None)
        return (kind, self.newest[kind]) if kind else None

    def is_done(self, kind: Phase, scores_inline: bool) -> bool:
        """Whether a job of this kind has nothing to do for the run any more."""
        if self.is_finished or kind in self.errors:
            return True
        if kind == "training":
            return self.is_trained and not scores_inline
        return "training" in self.errors and not self.is_trained


def read_ends(recipe: Recipe, folder: Path) -> RunFiles:
    """The ends of a run's files; one without a folder was never started."""
    finished = is_complete(recipe, folder)
    sessions: dict[Phase, list[bytes]] = {
        kind: jsonl.whole_lines(phase_file(folder, "sessions.jsonl", kind)) for kind in PHASES
    }
    errors: dict[Phase, str] = {}
    for kind in PHASES:
        if not finished and (error := read_error(folder, kind)) is not None:
            errors[kind] = error
    written = [_changed(folder / name) for name in ("train.jsonl", EVALS, SCORES)]
    return RunFiles(
        recipe=recipe,
        folder=folder,
        train=jsonl.last_row(folder / "train.jsonl") or {},
        score=jsonl.last_row(folder / EVALS) or {},
        unscored=0 if finished else len(unscored(recipe, folder)),
        starts={kind: len(lines) for kind, lines in sessions.items()},
        first=jsonl.first_row(sessions["training"]) or {},
        newest={kind: jsonl.first_row(reversed(lines)) or {} for kind, lines in sessions.items()},
        errors=errors,
        is_trained=finished or is_trained(recipe, folder),
        is_finished=finished,
        finished_s=_finished_s(folder) if finished else None,
        written_s=max((time for time in written if time is not None), default=None),
    )


def seconds(time: object) -> float | None:
    """A row's time (`bench.files.jsonl.now`) in seconds since 1970; None if it is none."""
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return None


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except jsonl.NO_FILE:
        return None


def _finished_s(folder: Path) -> float | None:
    try:
        content = json.loads((folder / "finished.json").read_text(encoding="utf-8"))
        return seconds(content["time"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True)
class RunRecord:
    """All that one run folder says, for tables.

    Attributes:
        config: config.yaml: id, label, recipe and, of a sweep's run, axes: what the sweep chose, by its axes' names.
        model: model.json; empty before the first start.
        finished: when the run was complete, as rows record time; None before.
        is_failed: its training was given up.
    """

    folder: Path
    config: dict[str, Any]
    model: dict[str, Any]
    finished: str | None
    is_failed: bool

    def lines(self, name: str) -> list[bytes]:
        """The whole lines of a .jsonl file, not parsed; none if there is no such file."""
        return jsonl.whole_lines(self.folder / name)

    def samples(self, name: str, number: int) -> np.ndarray | None:
        """The first `number` samples (N, C, H, W) uint8, or clips (N, C, T, H, W), of a file in the folder; None if it
        has been cleared away.

        Raises:
            InputError: it is damaged or holds something else.
        """
        import numpy as np  # here: a look at runs does without it

        path = self.folder / name
        if not path.is_file():
            return None
        try:
            samples = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a whole .npy array ({error})") from None
        if not isinstance(samples, np.ndarray):
            raise InputError(f"{path}: not a whole .npy array (it is a .npz archive)")
        if samples.ndim not in (4, 5) or samples.dtype != np.uint8 or not samples.size:
            found = f"shape {samples.shape} of {samples.dtype}"
            raise InputError(f"{path}: {found}; accepted: (N, C, H, W) of uint8, or clips (N, C, T, H, W)")
        return np.array(samples[:number])

    def real_images(self, number: int) -> tuple[np.ndarray, int] | None:
        """Real images or clips (number, *shape) uint8 of the run's data, i of class i modulo the number of classes, and
        that number; None where there are none to show: latents, data of one's own, or data not on this machine.
        """
        return _real_images(json.dumps(self.config["recipe"].get("data")), number)


def read_records(sweep_folder: Path) -> Iterator[RunRecord]:
    """The run folders in `sweep_folder`, those with a config.yaml, by name, as far as their runs have come.

    Raises:
        InputError: there is none, or its config.yaml, model.json or finished.json is damaged.
    """
    folders = sorted(path.parent for path in sweep_folder.glob("*/config.yaml"))
    if not folders:
        raise InputError(f"{sweep_folder}: no run folder there; accepted: folders with a config.yaml")
    return map(_record, folders)


def _record(folder: Path) -> RunRecord:
    finished = _document(folder / "finished.json")
    if finished is not None and "time" not in finished:
        raise InputError(f"{folder / 'finished.json'}: no key 'time'")
    return RunRecord(
        folder=folder,
        config=read_content(folder),
        model=_document(folder / "model.json") or {},
        finished=str(finished["time"]) if finished is not None else None,
        is_failed=phase_file(folder, "error.json", "training").is_file(),
    )


@cache
def _real_images(data: str, number: int) -> tuple[np.ndarray, int] | None:
    """As `RunRecord.real_images`, of a recipe's section `data`, which the runs of a sweep have in common."""
    given = json.loads(data)
    name: str = given.pop("name", "") if isinstance(given, dict) else ""
    part = DATA.find(name) if name in DATA.builtin else None  # no code of one's own is run for a look at its runs
    if not isinstance(part, PixelDataset):
        return None
    try:
        options = check_options(part.options, given)
        classes = part.facts(name, options).num_classes
        return part.of_classes(name, options, [index % classes for index in range(number)]), classes
    except (ValueError, InputError):
        return None


def _document(path: Path) -> dict[str, Any] | None:
    """A JSON file's mapping, None if there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a mapping of keys to values")
    return content
