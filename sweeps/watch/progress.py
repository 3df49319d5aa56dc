"""What a person sees while runs are at work: a live table in a terminal, a line for every change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.commands.progress import Trend, shows_sparks
from bench.commands.quantities import duration
from bench.files.names import visible
from bench.recipe import Recipe
from sweeps.groups import scoring_work, training_work
from sweeps.watch.status import LIVE, RunStatus, State
from sweeps.watch.status_table import MOST_NEEDED, TEXT, cells, counts, states

STYLES: dict[State, str] = {
    "waiting": "dim", "queued": "dim", "running": "bold", "scoring": "bold", "finished": "green", "failed": "red",
    "stopped": "red", "trained": "", "unknown": "yellow",
}  # fmt: skip
# What a narrow terminal goes without, first to last.
LEAST_NEEDED = ("node", "restarts", "elapsed", "MFU", "images/s", "scores", "trend", "left", "not finite")
# The table's heads and frame, how many more runs there are, and the cursor's line.
FRAME_LINES = 6
# Lower terminals have no room for the bar.
LOWEST_WITH_BAR = 16
WIDEST_BAR = 60
# Without a terminal: between two lines that say how far all runs are.
SECONDS_BETWEEN_COUNTS = 60.0

Show = Callable[[list[RunStatus], Sequence[str]], None]


@contextmanager
def progress(recipes: list[Recipe], console: Console) -> Iterator[Callable[[list[RunStatus]], None]]:
    """Yield the function to call with every new state of the runs, in the order of `recipes`.

    Without a terminal it prints a line for every score by `evaluation` and every failure, and every minute how far all
    runs are.
    """
    with _shown(recipes, console, lambda run: (run.fid_step, run.error), (None, None)) as show:
        yield lambda runs: show(runs, ())


@contextmanager
def watch(recipes: list[Recipe], console: Console) -> Iterator[Show]:
    """As `progress`, with notes to show under the table; without a terminal also a line for every change of state."""

    def news(run: RunStatus) -> object:
        return run.shown_state, run.fid_step, run.error

    with _shown(recipes, console, news, ("waiting", None, None)) as show:
        yield show


@contextmanager
def _shown(
    recipes: list[Recipe], console: Console, news: Callable[[RunStatus], object], no_news: object
) -> Iterator[Show]:
    whole = _Whole(recipes)
    if not console.is_terminal:
        yield _Lines(console, whole, news, no_news)
        return
    trends: dict[Path, Trend] = {}
    with Live(console=console, auto_refresh=False) as live:

        def show(runs: list[RunStatus], notes: Sequence[str]) -> None:
            for run in runs:
                trends.setdefault(run.folder, Trend()).add(run.step, run.loss)
            has_sparks = shows_sparks(console)
            fall = [trends[run.folder].text(has_sparks) if run.state in LIVE else "" for run in runs]
            live.update(_table(runs, fall, whole, notes, console), refresh=True)

        yield show


class _Lines:
    """Prints a line whenever there is news of a run, every note once, and now and then how far all runs are."""

    def __init__(self, console: Console, whole: _Whole, news: Callable[[RunStatus], object], no_news: object) -> None:
        self._console, self._whole, self._news, self._no_news = console, whole, news, no_news
        self._seen: dict[object, object] = {}
        self._counted_s = time.monotonic()

    def __call__(self, runs: list[RunStatus], notes: Sequence[str]) -> None:
        text = self._whole.look(runs)
        if time.monotonic() - self._counted_s >= SECONDS_BETWEEN_COUNTS:
            self._counted_s = time.monotonic()
            self._print(text)
        for run in runs:
            news = self._news(run)
            if news != self._seen.get(run.folder, self._no_news):
                self._seen[run.folder] = news
                score = "" if run.fid is None else f"  fid {run.fid:.4g} at {run.fid_step}"
                if 1 < run.scores < run.wanted_scores:
                    score += f", {run.scores} of {run.wanted_scores} scores"
                text = run.error or f"step {run.step}/{run.steps}{score}"
                self._print(f"{run.label:8} {run.shown_state:9} {text}")
        for note in notes:
            if note not in self._seen:
                self._seen[note] = note
                self._print(note)

    def _print(self, text: str) -> None:
        self._console.print(Text(visible(text)), soft_wrap=True)


class _Whole:
    """How much of the sweep's work is done, and how long the rest will take at the speed since the first look."""

    def __init__(self, recipes: list[Recipe]) -> None:
        self._work = [(training_work(recipe), scoring_work(recipe)) for recipe in recipes]
        self._start: tuple[float, float] | None = None
        self.share = 0.0

    def look(self, runs: list[RunStatus]) -> str:
        """`7 of 12 finished, 3 running; about 4:05 left`."""
        parts = [
            (work[0] * min(1, run.step / run.steps) + work[1] * run.scores / run.wanted_scores, sum(work), run)
            for work, run in zip(self._work, runs, strict=True)
        ]
        done = sum(part for part, _, _ in parts)
        left = sum(whole - part for part, whole, run in parts if run.state not in ("failed", "stopped"))
        self.share = done / sum(whole for _, whole, _ in parts)
        now = time.monotonic()
        if self._start is None:
            self._start = now, done
        started, done_then = self._start
        if not any(run.state in LIVE for run in runs):
            return counts(runs)
        if done <= done_then:
            return f"{counts(runs)}; time left: not known yet"
        return f"{counts(runs)}; about {duration(left * (now - started) / (done - done_then))} left"


def _table(runs: list[RunStatus], fall: list[str], whole: _Whole, notes: Sequence[str], console: Console) -> Group:
    """The runs in the sweep's order, as far as the terminal has room; what is most needed stays."""
    notes = [*map(visible, notes)]
    texts = [whole.look(runs), *notes]
    by_need = sorted(range(len(runs)), key=lambda index: MOST_NEEDED.index(runs[index].state))
    has_bar = console.height >= LOWEST_WITH_BAR
    room = max(1, console.height - FRAME_LINES - has_bar - sum(1 + len(text) // console.width for text in texts))
    shown, hidden = sorted(by_need[:room]), by_need[room:]
    rows = [_with_trend(cells(runs[index]), fall[index]) for index in shown]
    columns = _columns(rows, console.width)
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in TEXT else "right", no_wrap=True)
    for index, row in zip(shown, rows, strict=True):
        table.add_row(*(Text(row[column]) for column in columns), style=STYLES[runs[index].state])
    more = [f"and {len(hidden)} more: {states([runs[index] for index in hidden])}"] if hidden else []
    bar = ProgressBar(total=1, completed=whole.share, width=min(WIDEST_BAR, console.width))
    return Group(Text(texts[0]), *([Padding(bar, 0)] if has_bar else []), table, *map(Text, [*more, *notes]))


def _with_trend(row: dict[str, str], trend: str) -> dict[str, str]:
    """A row's cells with the loss's trend beside the loss."""
    columns: dict[str, str] = {}
    for column, text in row.items():
        columns[column] = text
        if column == "loss":
            columns["trend"] = trend
    return columns


def _columns(rows: list[dict[str, str]], width: int) -> list[str]:
    """The columns that fit, with three characters of frame for each."""
    columns = [column for column in rows[0] if column in ("model", "state", "step") or any(row[column] for row in rows)]
    widths = {column: 3 + max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    for column in LEAST_NEEDED:
        if sum(widths.values()) + 1 > width:
            widths.pop(column, None)
    return list(widths)
