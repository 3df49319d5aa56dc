"""What a person sees of one run's training: a bar, the loss and its fall, the time left; without a terminal, lines."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.commands.quantities import duration
from bench.files.jsonl import in_words, loss_in_words, not_finite_in_words
from bench.files.names import visible

if TYPE_CHECKING:
    from rich.console import Console

# Between two lines of a run's losses, where there is no terminal; scores are always told.
SECONDS_BETWEEN_LINES = 15.0
# Narrower terminals go without the fall of the loss, and at last without bar and time.
WIDE, NARROW = 76, 52
LEVELS = "▁▂▃▄▅▆▇█"
SPARKS = 8


class Trend:
    """How a loss fell since it was first seen."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._step = -1

    def add(self, step: int, loss: float | None) -> None:
        if loss is not None and math.isfinite(loss) and step > self._step:
            self._losses.append(loss)
            self._step = step

    def text(self, with_sparks: bool) -> str:
        """`▇▅▃▂▁`, or `from 0.478` where a terminal cannot show that; empty before there is a trend."""
        if len(self._losses) < 2:
            return ""
        if not with_sparks:
            return f"from {self._losses[0]:.3g}"
        number = min(SPARKS, len(self._losses))
        edges = [len(self._losses) * part // number for part in range(number + 1)]
        means = [sum(self._losses[a:b]) / (b - a) for a, b in pairwise(edges)]
        low, span = min(means), max(means) - min(means)
        shares = [(mean - low) / span if 0 < span < math.inf else 0 for mean in means]
        return "".join(LEVELS[round((len(LEVELS) - 1) * share)] for share in shares)


def shows_sparks(console: Console) -> bool:
    """Whether the terminal's encoding has the signs of a trend."""
    try:
        LEVELS.encode(console.encoding)
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def training_progress(console: Console, label: str, steps: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what is to be told every row of train.jsonl, evals.jsonl and scores.jsonl of a run of so many steps."""
    if not console.is_terminal:
        yield _Lines(console, label, steps)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), TextColumn("{task.fields[news]}", markup=False))
    if console.width >= NARROW:
        name, bar = TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)
        columns = (name, bar, *columns, TimeRemainingColumn(), TextColumn("left"))
    trend, has_sparks = Trend(), shows_sparks(console)
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(visible(label), total=steps, news="")

        def on_row(row: dict[str, Any]) -> None:
            if "loss" not in row:
                bar.console.print(in_words(row))
                return
            if not trend.text(with_sparks=False):  # a run that continues did not do all before in no time
                bar.reset(task, completed=row["step"])
            trend.add(row["step"], row["loss"])
            news = loss_in_words(row)
            if console.width >= WIDE and (fall := trend.text(has_sparks)):
                news = f"{news} {fall}"
            news += not_finite_in_words(row, ", ")
            bar.update(task, completed=row["step"], news=news)

        yield on_row


class _Lines:
    """Prints every score, and the loss now and then with the time that training will still take."""

    def __init__(self, console: Console, label: str, steps: int) -> None:
        self._console, self._label, self._steps = console, label, steps
        self._first: dict[str, Any] | None = None
        self._first_s = self._printed_s = 0.0

    def __call__(self, row: dict[str, Any]) -> None:
        now = time.monotonic()
        if "loss" not in row:
            self._print(in_words(row))
            return
        first = self._first
        if first is None:
            self._first, self._first_s = row, now
        elif now - self._printed_s < SECONDS_BETWEEN_LINES and row["step"] < self._steps:
            return
        self._printed_s = now
        text = f"step {row['step']:,} of {self._steps:,}: {loss_in_words(row)}{not_finite_in_words(row, ', ')}"
        if first is not None and row["step"] > first["step"]:
            left_s = (now - self._first_s) / (row["step"] - first["step"]) * (self._steps - row["step"])
            text += f", {loss_in_words(first).removeprefix('loss ')} at step {first['step']:,}"
            text += f"; about {duration(left_s)} left" if left_s else ""
        self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(visible(f"{self._label}: {text}"), soft_wrap=True)
