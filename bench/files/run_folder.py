"""A run's folder: whose it is, whether it is done, and who works on it.

config.yaml      the recipe, its id, its sweep's axes     train.jsonl   one row per log_every steps
model.json       parameters, GMACs, metrics               evals.jsonl   one row per score: its whole key, its metrics
sessions.jsonl   one row per start: device, precision     scores.jsonl  the same of `scores`, of searches
failures.jsonl   one row per failed attempt               checkpoints/  state-*: to resume; ema-*, raw-*: kept weights
stops.jsonl      one row per start that SLURM stopped     samples/      uint8 arrays and their provenance
roll-backs.jsonl see `bench.training.not_finite`
finished.json    when complete; error.json if given up    log.txt       starts, the rows in words, what went wrong

Scoring by a job of its own may go on beside training: it has its own lock, and its sessions, failures, error and log
are in files whose names begin with `scoring-`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from bench.averages import EMA, kept_weights, made_of
from bench.data.pixels import is_clip
from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.atomic import write_bytes, write_json
from bench.files.scored import EVALS, SCORES, unscored, whole_rows
from bench.flops import cost_of
from bench.recipe import Recipe, parse_recipe
from bench.recipe.evaluation import Score
from bench.recipe.training import TrainConfig
from bench.schema import dump_yaml, load_yaml
from bench.score.metrics import describe_metrics
from models.parts import look_in, own_folders
from models.registry import family_of

log = logging.getLogger(__name__)

Phase = Literal["training", "scoring"]
PHASES: tuple[Phase, ...] = ("training", "scoring")
LOCK_POLL_SECONDS = 1.0
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
# Older training states are removed once this many newer ones are whole.
STATES_KEPT = 2


class RunLocked(RunError):
    """Another process is working on the run."""


def write_config(recipe: Recipe, folder: Path, axes: Mapping[str, str] | None = None) -> None:
    """Put the recipe into a new run folder, or check that an old one holds the same, but for its `scores`.

    Those of the old one become the recipe's: a finished run that lacks one of them is not finished any more.

    Args:
        axes: what a sweep chose for the run, by its axes' names, such as size: S. For tables: no result depends on it.

    Raises:
        InputError: the folder belongs to another recipe (the differing keys are named) or cannot be written.
    """
    path = folder / "config.yaml"
    if path.exists():
        there = read_config(folder)
        _check_same(recipe, there, folder)
        if there.scores != recipe.scores:
            content = read_content(folder)
            content["recipe"]["scores"] = recipe.model_dump(mode="json")["scores"]
            _write_content(content, folder)
        if is_finished(folder) and not is_complete(recipe, folder):
            (folder / "finished.json").unlink()
        return
    content: dict[str, Any] = {"id": recipe.id, "label": recipe.label}
    if axes:
        content["axes"] = dict(axes)
    content["recipe"] = recipe.model_dump(mode="json", exclude={"label"})
    _write_content(content, folder)


def _write_content(content: dict[str, Any], folder: Path) -> None:
    if folders := own_folders(content["recipe"]):
        content["look_in"] = folders  # for jobs, which work elsewhere
    try:
        write_bytes(folder / "config.yaml", dump_yaml(content).encode())
    except RunError as error:
        raise InputError(f"{folder}: cannot be written ({error}); give another folder") from None


def read_config(folder: Path) -> Recipe:
    """The recipe of a run folder.

    Raises:
        InputError: no run folder, or its config.yaml does not hold a valid recipe.
    """
    content = read_content(folder)
    for own in reversed(content.get("look_in", [])):
        look_in(Path(own))
    return parse_recipe({**content["recipe"], "label": content.get("label", "")}, str(folder / "config.yaml"))


def read_content(folder: Path) -> dict[str, Any]:
    """config.yaml as it is, its recipe unchecked: that of an earlier version may lack keys of today's.

    Raises:
        InputError: no run folder, or not YAML of this form.
    """
    path = folder / "config.yaml"
    content = load_yaml(path, texts=("id", "label"))
    sections = (content, content.get("recipe"), content.get("axes", {})) if isinstance(content, dict) else (content,)
    if not all(isinstance(section, dict) for section in sections):
        raise InputError(f"{path}: not a run's configuration (keys id, label, recipe)")
    return content


def write_model(recipe: Recipe, folder: Path) -> None:
    """Write model.json: what the recipe's network is, what it costs, and the direction of its metrics."""
    arch = recipe.model.architecture()
    cost, of_clips = cost_of(recipe.model.name, arch), is_clip(recipe.data.facts.image_shape)
    content = {
        "name": recipe.model.name,
        "family": family_of(recipe.model.name).name,
        "params": cost.parameters,
        "gmacs": cost.macs / 1e9,
        "tokens": arch.num_tokens,
        **arch.columns,
        "objective": recipe.diffusion.id,
        "metrics": {k: v for e in recipe.evaluations for k, v in describe_metrics(e.metrics, of_clips).items()},
    }
    write_json(folder / "model.json", content)


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
    """Whether the run is complete: trained to its last step, with all scores that its config.yaml asks for."""
    return (folder / "finished.json").exists()


def is_complete(recipe: Recipe, folder: Path) -> bool:
    """Whether it is, with all that this recipe asks for, whose `scores` may have been added since."""
    return is_finished(folder) and not (recipe.scores and unscored(recipe, folder))


def weights_path(checkpoints: Path, step: int, name: str = EMA) -> Path:
    """Where kept weights are, in a run's folder checkpoints/, by their step and name (`bench.averages`)."""
    return checkpoints / f"{name.replace(' ', '-')}-{step:08d}.safetensors"


def average_paths(folder: Path, train: TrainConfig, step: int, ema: str | None) -> set[Path]:
    """The files that the average `ema` (`bench.averages`) of a step is made of."""
    return {weights_path(folder / "checkpoints", at, name) for name, at in made_of(ema, train, step)}


def weights_of(recipe: Recipe, folder: Path, scores: Iterable[Score]) -> set[Path]:
    """The files of weights that scores need, those of the run's own guide among them."""
    found: set[Path] = set()
    for score in scores:
        evaluation = score.evaluation
        own_guide = evaluation.guide_step if evaluation.guide is None and evaluation.guidance_scale != 1 else None
        for step in (score.step,) if own_guide is None else (score.step, own_guide):
            found |= average_paths(folder, recipe.train, step, evaluation.ema)
    return found


def is_trained(recipe: Recipe, folder: Path) -> bool:
    """Whether all weights are there that training keeps."""
    checkpoints = folder / "checkpoints"
    wanted = {
        weights_path(checkpoints, step, name) for step, names in kept_weights(recipe.train).items() for name in names
    }
    return wanted <= {*checkpoints.glob("*.safetensors")}


def phase_file(folder: Path, name: str, phase: Phase) -> Path:
    """`name` for training, `scoring-name` for scoring."""
    return folder / (name if phase == "training" else f"scoring-{name}")


def read_error(folder: Path, phase: Phase = "training") -> str | None:
    """Why the run was given up, if it was."""
    path = phase_file(folder, "error.json", phase)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{path.name} cannot be read ({error})"


def clear_error(folder: Path) -> None:
    """Let a run that was given up be tried again; what failed stays in failures.jsonl."""
    for phase in PHASES:
        phase_file(folder, "error.json", phase).unlink(missing_ok=True)
        phase_file(folder, "stops.jsonl", phase).unlink(missing_ok=True)  # see `bench.files.lost_time`
        if failed_attempts(folder, phase):
            jsonl.append(phase_file(folder, "failures.jsonl", phase), {"time": jsonl.now(), "error": None})


def failed_attempts(folder: Path, phase: Phase = "training") -> list[dict[str, Any]]:
    """Rows of failures.jsonl since the last `clear_error`, one for each attempt."""
    rows: dict[Any, dict[str, Any]] = {}
    for row in jsonl.read(phase_file(folder, "failures.jsonl", phase)):
        attempt = row.get("attempt")
        if row.get("error") is None:
            rows.clear()
        elif rows.get(attempt, {"lost_a_peer": True}).get("lost_a_peer"):  # a row that knows more may follow
            rows[attempt] = row
    return list(rows.values())


def record_failure(folder: Path, phase: Phase, error: str, max_failures: int, facts: dict[str, Any]) -> None:
    """Count a failed attempt, and give the run up if that was the last one allowed.

    `facts["attempt"]` tells attempts apart: ranks that fail together are one.
    """
    log.error(error)
    try:
        path = phase_file(folder, "failures.jsonl", phase)
        jsonl.append(path, {"time": jsonl.now(), "error": error, **facts})
        if len(failed_attempts(folder, phase)) >= max_failures:
            write_json(phase_file(folder, "error.json", phase), {"error": error, "time": jsonl.now(), **facts})
    except (OSError, RunError):
        log.exception("%s: the error could not be recorded", folder)


@contextmanager
def locked(folder: Path, phase: Phase = "training", wait_s: float = 0) -> Iterator[None]:
    """Hold the run's lock, which the system frees even if the process is killed.

    Raises:
        RunLocked: another process holds it, for longer than `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    with open_lock(lock_path(folder, phase)) as lock:
        while not try_lock(lock):
            if time.monotonic() >= deadline:
                raise RunLocked(f"{folder}: another process is working on this run")
            time.sleep(LOCK_POLL_SECONDS)
        yield


def lock_path(folder: Path, phase: Phase = "training") -> Path:
    return folder / (".lock" if phase == "training" else ".scoring-lock")


def open_lock(path: Path) -> IO[str]:
    """Open a lock's file, making it if need be; of another user's, which others may only read, reading is enough."""
    try:
        return path.open("a")
    except PermissionError:
        return path.open("r")


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


def log_to_stdout() -> None:
    """Print what a job's process logs, in the form of log.txt; submitit prints its own lines itself."""
    logging.getLogger("submitit").propagate = False
    logging.basicConfig(format=LOG_FORMAT, level=logging.INFO, stream=sys.stdout)


@contextmanager
def logging_to(folder: Path, phase: Phase = "training") -> Iterator[None]:
    """Append what this process logs to the run's log.txt."""
    handler = logging.FileHandler(
        phase_file(folder, "log.txt", phase), encoding="utf-8", errors="backslashreplace", delay=True
    )
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger("bench")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def read_micro_batches(folder: Path) -> int:
    """Into how many pieces a rank splits its share of a batch; more than one after memory ran out.

    Raises:
        RunError: the file that says so is damaged.
    """
    path = folder / "micro_batches.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["micro_batches"])
    except FileNotFoundError:
        return 1
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete it, and it is found out again") from None


def progress(folder: Path, phase: Phase) -> list[int]:
    """How far a run is, in numbers of which one changes with all that is saved.

    Its newest state's step and its micro-batches (training only), its scores, its batches of samples.
    """
    states = sorted((folder / "checkpoints").glob("state-*.safetensors"))
    trained = [int(states[-1].stem.removeprefix("state-")) if states else 0, read_micro_batches(folder)]
    scores = sum(len(whole_rows(folder / name)) for name in (EVALS, SCORES))
    return (trained if phase == "training" else []) + [scores, len(list((folder / "samples").glob(".step-*/*")))]
