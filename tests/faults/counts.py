"""What a fault did to results: rows lost, rows twice, and what differs from an undisturbed run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from targets import Outcome


@dataclass(frozen=True)
class Counts:
    lost: int
    doubled: int
    wrong: int
    where: tuple[str, ...]  # rows or files that are not as they were


def count(expected: Outcome, found: Outcome) -> Counts:
    """Compare row by row, by their step, and file by file; a file that is missing or not expected is wrong."""
    lost = doubled = wrong = 0
    where = []
    for name in sorted({*expected, *found}):
        wanted, there = expected.get(name), found.get(name)
        if wanted != there:
            where.append(name)
        if isinstance(wanted, list) and isinstance(there, list | None):
            before, now = Counter(row["step"] for row in wanted), Counter(row["step"] for row in there or [])
            lost += (before - now).total()
            doubled += (now - before).total()
            wrong += sum(row not in wanted for row in there or [])
        elif wanted != there:
            wrong += 1
    return Counts(lost, doubled, wrong, tuple(where))
