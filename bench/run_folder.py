"""A run's folder: whose it is, whether it is done, and who works on it.

config.yaml      the recipe and its id                    train.jsonl   a row every log_every steps
model.json       parameters and GMACs                     evals.jsonl   a row a score: its whole key, its metrics
sessions.jsonl   a row a start: device, precision, ...    checkpoints/  state-*: to resume; ema-*: kept weights
finished.json    when complete; error.json if it failed   samples/      uint8 arrays and their provenance
log.txt          starts, resumptions, spoilt checkpoints
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from bench.errors import InputError, RunError
from bench.recipe import Recipe, load_yaml, parse_recipe

log = logging.getLogger(__name__)


class RunLocked(Exception):
    """Another process is working on the run."""


def write_config(recipe: Recipe, folder: Path) -> None:
    """Put the recipe into a new run folder, or check that an old one holds the same.

    Raises:
        InputError: the folder belongs to another recipe (the differing keys are named) or cannot be written.
    """
    path = folder / "config.yaml"
    if path.exists():
        _check_same(recipe, read_config(folder), folder)
        return
    content = {"id": recipe.id, "label": recipe.label, "recipe": recipe.model_dump(mode="json", exclude={"label"})}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / ".config.yaml"
        aside.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}); give another folder") from None


def read_config(folder: Path) -> Recipe:
    """The recipe of a run folder.

    Raises:
        InputError: no run folder, or its config.yaml does not hold a valid recipe.
    """
    path = folder / "config.yaml"
    content = load_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise InputError(f"{path}: not a run's configuration (keys id, label, recipe)")
    return parse_recipe({**content["recipe"], "label": content.get("label", "")}, str(path))


def _check_same(recipe: Recipe, other: Recipe, folder: Path) -> None:
    if recipe.id == other.id:
        return
    ours, theirs = _flat(recipe.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
    different = [f"{key} is {theirs[key]!r} there, {ours[key]!r} here" for key in ours if ours[key] != theirs[key]]
    raise InputError(f"{folder}: holds a run of another recipe ({'; '.join(different)}); give another folder")


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in content.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def is_finished(folder: Path) -> bool:
    """Whether the run is complete: trained to its last step and scored at every kept one."""
    return (folder / "finished.json").exists()


def read_error(folder: Path) -> str | None:
    """Why the run failed, if it did."""
    try:
        return str(json.loads((folder / "error.json").read_text(encoding="utf-8"))["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        return f"error.json cannot be read ({error})"


def clear_error(folder: Path) -> None:
    """Let a failed run be tried again."""
    (folder / "error.json").unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock, which the system frees even if the process is killed.

    Raises:
        RunLocked: another process holds it.
    """
    with (folder / ".lock").open("w") as lock:
        if not try_lock(lock):
            raise RunLocked(f"{folder}: another process is working on this run")
        yield


def try_lock(file: IO[str]) -> bool:
    """Take a file's lock if nobody works under it, for as long as the file is open.

    A look at the lock holds it for an instant (see `is_locked`), so one refusal proves nothing.
    """
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


def is_locked(lock_file: Path) -> bool:
    """Whether a process holds the lock of this file now."""
    try:
        with lock_file.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Append what this process logs to the run's log.txt."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("bench")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def record_error(folder: Path, error: Exception) -> None:
    """Leave the reason in error.json; where even that cannot be written, in the log."""
    expected = isinstance(error, (InputError, RunError))
    text = str(error) if expected else f"{type(error).__name__}: {error}"
    log.error(text, exc_info=None if expected else error)
    try:
        (folder / "error.json").write_text(json.dumps({"error": text}) + "\n", encoding="utf-8")
    except OSError:
        log.exception("%s: the error could not be recorded", folder)
