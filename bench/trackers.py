"""Experiment trackers beside the metric files: optional, told every row, and never able to stop a run.

train.jsonl, evals.jsonl and scores.jsonl remain the record. Importing this module imports no tracker, and not torch.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import InputError, RunError
from bench.files.atomic import write_bytes
from bench.files.names import visible

if TYPE_CHECKING:
    from bench.recipe import Recipe

log = logging.getLogger(__name__)

# Each is the name of the package too, and of the extra that installs it.
TRACKERS = ("tensorboard", "wandb")

# How long the end of a run waits for an upload; what is missing then lies in the run's folder, for `wandb sync`.
WANDB_FINISH_SECONDS = 300.0


class Tracker(Protocol):
    """Shows a run elsewhere."""

    def log(self, row: dict[str, Any]) -> None:
        """Take a row of train.jsonl, evals.jsonl or scores.jsonl; those of scores have a "fid"."""
        ...

    def close(self) -> None:
        """Write out what is pending; the tracker is not used again."""
        ...


def check_installed(names: Sequence[str]) -> None:
    """Refuse what `open_trackers` would, without importing it.

    Raises:
        InputError: an unknown name, or a package that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"unknown tracker {name!r}; accepted: {', '.join(TRACKERS)}")
        spec = find_spec(name)
        # No origin: a mere folder of that name, as trackers leave behind, in the working directory.
        if spec is None or spec.origin is None:
            raise InputError(f'tracker {name}: not installed; install it with: uv pip install "ditbench[{name}]"')


def open_trackers(names: Sequence[str], folder: Path, recipe: Recipe, resumed_from: int) -> list[Tracker]:
    """Open trackers of the run in `folder`, to be told the rows after `resumed_from` (0 for a new run).

    What is returned never raises: a tracker that fails is closed and dropped with one warning.

    Raises:
        InputError: as `check_installed`; or wandb is neither logged in nor offline (WANDB_MODE=offline).
        RunError: a tracker could not be opened; none stays open.
    """
    check_installed(names)
    opened: list[Tracker] = []
    for name in dict.fromkeys(names):
        try:
            tracker = _TensorBoard(folder, resumed_from) if name == "tensorboard" else _Wandb(folder, recipe)
        except Exception as error:
            for other in opened:
                other.close()
            if isinstance(error, InputError):
                raise
            raise RunError(f"tracker {name}: could not be opened ({_one_line(error)})") from error
        opened.append(_Forgiving(name, tracker))
    return opened


class _Forgiving:
    """A tracker whose failures end it, not the run."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker

    def log(self, row: dict[str, Any]) -> None:
        if self._tracker is not None:
            try:
                self._tracker.log(row)
            except Exception as error:
                self._warn(error)
                with suppress(Exception):
                    self._tracker.close()
                self._tracker = None

    def close(self) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            try:
                tracker.close()
            except Exception as error:
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        log.warning("tracker %s failed and is dropped; the metric files go on (%s)", self._name, _one_line(error))


class _TensorBoard:
    """Scalars (float32) in `folder`/tensorboard, drawn anew from the metric files at every start and roll-back.

    So there is no step twice and none missing, whatever a killed process had shown or had not: neither the training
    that is repeated, nor an evaluation beyond it, which is not. Older event files stay, since a TensorBoard that
    reads one hangs on it when it is deleted; what they hold is hidden.
    """

    def __init__(self, folder: Path, resumed_from: int) -> None:
        self._folder = folder
        self._draw(resumed_from)

    def _draw(self, until: int) -> None:
        """Begin with the rows of training up to step `until`, and all scores."""
        from torch.utils.tensorboard import SummaryWriter

        from bench.files import jsonl

        train, *evals = (jsonl.read(self._folder / name) for name in ("train.jsonl", "evals.jsonl", "scores.jsonl"))
        self._writer, self._trained = SummaryWriter(self._folder / "tensorboard", purge_step=0, flush_secs=10), 0
        for row in chain((row for row in train if row["step"] <= until), *evals):
            self.log(row)

    def log(self, row: dict[str, Any]) -> None:
        if _kind(row) == "train":
            if row["step"] <= self._trained:  # training was rolled back to before it
                self._writer.close()
                self._draw(row["step"] - 1)
            self._trained = row["step"]
        for name, value in _scalars(row).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A wandb run: project the study, name the label. Offline, and its account, by wandb's own variables.

    Curves have their own step (train/step, eval/step, and one for each of the recipe's `scores`), as wandb's drops rows
    that are not in order. wandb cannot take rows back: steps repeated after a resumption are in its history twice.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        import wandb
        from wandb.errors import AuthenticationError, UsageError

        run_id = _wandb_id(folder, recipe)
        # An outage at the end must not hold a job, nor wandb's stop button end it; older versions have neither.
        wanted: dict[str, Any] = {"stop_fn": lambda: log.warning("wandb asked to stop the run; stop the job instead")}
        if "WANDB_FINISH_TIMEOUT" not in os.environ:
            wanted["finish_timeout"] = WANDB_FINISH_SECONDS
        known = getattr(wandb.Settings, "model_fields", {})
        try:
            with _no_terminal():
                self._run = wandb.init(
                    project=re.sub(r"[/\\#?%:]", "-", visible(folder.resolve().parent.name))[:128],
                    id=run_id,
                    name=visible(recipe.label) or recipe.folder_name,
                    config={"id": recipe.id, **recipe.model_dump(mode="json")},
                    dir=str(folder),
                    resume="allow",
                    settings=wandb.Settings(console="off", **{k: v for k, v in wanted.items() if k in known}),
                )
        except (AuthenticationError, UsageError) as error:
            raise InputError(
                f"tracker wandb: {_one_line(error)} (`wandb login` once, or set WANDB_MODE=offline)"
            ) from None
        if self._run.id != run_id and not self._run.disabled:
            raise RunError(f"this process has another wandb run open, {self._run.id}")
        scores = (_of_score(score.id) for score in recipe.evaluations[1:])
        for kind in ("train", "eval", *scores):
            self._run.define_metric(f"{kind}/step")
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")

    def log(self, row: dict[str, Any]) -> None:
        self._run.log({f"{_kind(row)}/step": row["step"], **_scalars(row)})

    def close(self) -> None:
        self._run.finish()


def _wandb_id(folder: Path, recipe: Recipe) -> str:
    """The run's id at wandb: made once, so that it outlives a move of the folder but not its deletion."""
    path = folder / "wandb" / "id.txt"
    if not path.exists():
        write_bytes(path, f"{recipe.id}-{secrets.token_hex(4)}".encode())
    return path.read_text(encoding="utf-8")


@contextmanager
def _no_terminal() -> Iterator[None]:
    """Without a terminal wandb raises where it would wait for somebody to type an API key."""
    before = sys.stdin
    with Path(os.devnull).open(encoding="utf-8") as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = before


def _kind(row: dict[str, Any]) -> str:
    if "score" in row:
        return _of_score(row["score"])
    return "eval" if "fid" in row else "train"


def _of_score(name: str) -> str:
    return f"eval-{name}"


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """`train/loss` and so on: the numbers of a row, but its step."""
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool) and k != "step"}
    return {f"{_kind(row)}/{name}": value for name, value in numbers.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
