"""How the states of runs are shown: as the cells of a table, as counts, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.commands.quantities import duration
from bench.commands.text_table import print_table
from bench.files.names import visible
from sweeps.watch.status import RunStatus, State

# Columns of text; the others are figures, aligned right.
TEXT = ("model", "state", "node", "not finite")
# What is at work or went wrong comes first, where there is no room for all.
MOST_NEEDED: tuple[State, ...] = (
    "running", "scoring", "failed", "stopped", "unknown", "queued", "trained", "waiting", "finished",
)  # fmt: skip


def cells(run: RunStatus) -> dict[str, str]:
    """A run's row by column, to be shown; empty where nothing is known."""
    row = {
        "model": run.label,
        "state": run.shown_state,
        "step": f"{run.step}/{run.steps}",
        "loss": "" if run.loss is None else f"{run.loss:.4f}",
        "not finite": run.not_finite,
        "Fréchet distance": "" if run.fid is None else f"{run.fid:.2f} at {run.fid_step}",
        "scores": f"{run.scores}/{run.wanted_scores}" if run.scores else "",
        "images/s": "" if run.images_per_s is None else f"{run.images_per_s:.{0 if run.images_per_s >= 10 else 2}f}",
        "MFU": "" if run.mfu is None else f"{100 * run.mfu:.1f} %",
        "elapsed": "" if run.elapsed_s is None else duration(run.elapsed_s),
        "left": "" if run.seconds_left is None else duration(run.seconds_left),
        "restarts": str(run.restarts or ""),
        "node": run.node or "",
    }
    return {column: visible(text) for column, text in row.items()}


def print_runs(runs: Sequence[RunStatus], notes: Sequence[str]) -> None:
    """The table, as wide as it must be; under it the counts, when training ends, and the notes."""
    rows = [cells(run) for run in runs]
    columns = [column for column in rows[0] if column != "not finite" or any(row[column] for row in rows)]
    print_table(columns, [[row[column] for column in columns] for row in rows], [column in TEXT for column in columns])
    left = _training_left(runs)
    print(f"\n{counts(runs)}{f'; training ends in about {duration(left)}' if left is not None else ''}")
    for note in notes:
        print(note)


def counts(runs: Sequence[RunStatus]) -> str:
    """`7 of 12 finished, 3 running, 1 queued, 1 failed`."""
    finished = [run for run in runs if run.state == "finished"]
    others = states([run for run in runs if run.state != "finished"])
    return f"{len(finished)} of {len(runs)} finished{', ' if others else ''}{others}"


def states(runs: Sequence[RunStatus]) -> str:
    """`3 running, 1 queued`."""
    by_state = Counter(run.state for run in runs)
    return ", ".join(f"{by_state[state]} {state}" for state in MOST_NEEDED if by_state[state])


def as_json(runs: Sequence[RunStatus]) -> list[dict[str, Any]]:
    """All that is known of every run, the fields of `RunStatus`; what is not known is null."""
    return [{**asdict(run), "folder": str(run.folder)} for run in runs]


def _training_left(runs: Sequence[RunStatus]) -> float | None:
    """Seconds until all training is done; None if none is running, or some of it is not and so cannot be told."""
    untrained = [run for run in runs if run.step < run.steps and run.state not in ("failed", "stopped", "finished")]
    left = [run.seconds_left for run in untrained]
    return max((s for s in left if s is not None), default=None) if None not in left else None
