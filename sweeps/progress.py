"""What a person sees while a sweep runs: a live table in a terminal, a line for every score elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.recipe import Recipe
from sweeps.groups import work
from sweeps.status import RunStatus

STYLES = {"waiting": "dim", "running": "bold", "finished": "green", "failed": "red"}


@contextmanager
def progress(recipes: list[Recipe], console: Console) -> Iterator[Callable[[list[RunStatus]], None]]:
    """Yield the function to call with every new state of the runs, in the order of `recipes`."""
    remaining = _TimeLeft(recipes)
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda statuses: live.update(_table(statuses, remaining(statuses)), refresh=True)


class _Lines:
    """Prints a line whenever a run has a new score or has failed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[object, object] = {}

    def __call__(self, statuses: list[RunStatus]) -> None:
        for status in statuses:
            news = (status.fid_step, status.error)
            if news != self._seen.get(status.folder, (None, None)):
                self._seen[status.folder] = news
                text = status.error or f"step {status.step}/{status.steps}  fid {status.fid:.4g} at {status.fid_step}"
                self._console.print(f"{status.label:8} {status.state:9} {text}", highlight=False, soft_wrap=True)


class _TimeLeft:
    """Seconds until the sweep is done, from the work done since the first call; None until some is."""

    def __init__(self, recipes: list[Recipe]) -> None:
        self._work = [work(recipe) for recipe in recipes]
        self._start: tuple[float, float] | None = None

    def __call__(self, statuses: list[RunStatus]) -> float | None:
        done = sum(w * status.step / status.steps for w, status in zip(self._work, statuses, strict=True))
        now = time.monotonic()
        if self._start is None:
            self._start = now, done
        started, done_then = self._start
        return (sum(self._work) - done) * (now - started) / (done - done_then) if done > done_then else None


def _table(statuses: list[RunStatus], seconds_left: float | None) -> Table:
    finished = sum(status.state == "finished" for status in statuses)
    left = "time left: not known yet" if seconds_left is None else f"about {_duration(seconds_left)} left"
    table = Table(title=f"{finished} of {len(statuses)} runs finished, {left}", title_justify="left")
    for name in ("run", "state", "step", "loss", "Fréchet distance", "images/s", "left"):
        table.add_column(name, justify="left" if name in ("run", "state") else "right")
    for status in statuses:
        table.add_row(
            status.label,
            status.state,
            f"{status.step}/{status.steps}",
            "" if status.loss is None else f"{status.loss:.4f}",
            "" if status.fid is None else f"{status.fid:.2f} at {status.fid_step}",
            "" if status.images_per_s is None else f"{status.images_per_s:.0f}",
            "" if status.seconds_left is None else _duration(status.seconds_left),
            style=STYLES[status.state],
        )
    return table


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
