"""Runs that failed for good, often because they diverged: what is compared of a design is then what survived."""

from __future__ import annotations

from collections.abc import Mapping

from analysis.laws.observations import Observations

MOST_NAMED = 6


def given_up(designs: Mapping[str, Observations]) -> tuple[str, ...]:
    """The runs without a score, each after its design's name."""
    return tuple(f"{name}: {run}" for name, rows in designs.items() for run in sorted(rows.given_up))


def warning(runs: tuple[str, ...]) -> list[str]:
    """A line that names them, none if there are none."""
    if not runs:
        return []
    one = len(runs) == 1
    said = f"{len(runs)} {'run was' if one else 'runs were'} given up and {'has' if one else 'have'} no score here"
    named = [*runs[:MOST_NAMED], *([f"and {len(runs) - MOST_NAMED} more"] if len(runs) > MOST_NAMED else [])]
    return [f"{said}; the others may flatter {'its design' if one else 'their designs'}: {'; '.join(named)}."]
