"""Whether a run that is stopped again and again gets on: the useful time of its starts against their lost time.

stops.jsonl     one row per stop: useful_s, spent on what was saved; lost_s, the rest of that start

A run is hopeless once as many starts in a row as may fail were hardly of use, and have lost as much time together as
that many whole starts have. So a few preemptions while a job starts up, of hours that it would have had, harm nobody;
and a time limit that is too short for the start-up is found out after the fewest starts, though each saves a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.files import jsonl
from bench.files.run_folder import Phase, phase_file

# A start whose useful time is less than this share of its time is hardly of use.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class LostTime:
    """Of the newest starts in a row that were hardly of use, each ended by a stop."""

    starts: int
    useful_s: float
    lost_s: float

    def is_hopeless(self, max_failures: int, whole_start_s: float) -> bool:
        """Whether to give the run up. `whole_start_s`: what a start has at least, if nobody ends it early."""
        return self.starts >= max_failures and self.useful_s + self.lost_s >= max_failures * whole_start_s


def record_stop(folder: Path, phase: Phase, attempt: str, useful_s: float, lost_s: float) -> None:
    """Add a start that was stopped; once, whoever asks again.

    Raises:
        RunError: it cannot be written.
    """
    path = phase_file(folder, "stops.jsonl", phase)
    if not any(row.get("attempt") == attempt for row in jsonl.read(path)):
        row = {"time": jsonl.now(), "attempt": attempt, "useful_s": round(useful_s, 1), "lost_s": round(lost_s, 1)}
        jsonl.append(path, row)


def lost_time(folder: Path, phase: Phase) -> LostTime:
    """The account of a run, since it was last of use or let be tried again (`bench.files.run_folder.clear_error`)."""
    starts, useful_s, lost_s = 0, 0.0, 0.0
    for row in reversed(jsonl.read(phase_file(folder, "stops.jsonl", phase))):
        if row["useful_s"] >= LEAST_SHARE * (row["useful_s"] + row["lost_s"]):
            break
        starts, useful_s, lost_s = starts + 1, useful_s + row["useful_s"], lost_s + row["lost_s"]
    return LostTime(starts, useful_s, lost_s)
