"""Gflops and parameters as papers print them, since the last digit counts, and whether ours agree."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import cache
from math import floor
from pathlib import Path
from typing import NamedTuple

PUBLISHED = Path(__file__).parents[1] / "results" / "published"
# The DiT paper's Table 4; and of other systems, what their papers or those that compare with them print.
TABLE, SYSTEMS = PUBLISHED / "dit_table4.csv", PUBLISHED / "systems_gmacs.csv"


class Printed(NamedTuple):
    """What is printed of a system.

    Attributes:
        parameters, gmacs: such as "554M" and "1120"; None where nothing is.
        includes: the model whose cost is in `gmacs` too: an upsampler's, which makes its small images.
        convention: what is counted, in words, beside how we count.
        checked: "full text", where the numbers were read in the source, or "second hand".
    """

    parameters: str | None
    gmacs: str | None
    includes: str | None
    convention: str | None
    checked: str | None


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


@cache
def _printed() -> dict[tuple[str, str, int], str]:
    return {(row["model"], row["block"], int(row["image_size"])): row["gmacs"] for row in _rows(TABLE) if row["gmacs"]}


@cache
def _systems() -> dict[tuple[str, int], Printed]:
    return {
        (row["model"], int(row["image_size"] or 0)): Printed(*(row[field] or None for field in Printed._fields))
        for row in _rows(SYSTEMS)
    }


def printed_gmacs(model: str, block: str, image_size: int) -> str | None:
    """The DiT paper's figure as printed, such as "524.60"; None where it prints none."""
    return _printed().get((model, block, image_size))


def printed_system(model: str, image_size: int) -> Printed | None:
    """What is printed of another system; None: nothing."""
    return _systems().get((model, image_size))


def agreement(gmacs: float, model: str, printed: str | None) -> str:
    """Whether a count, rounded as printed, is the paper's figure: yes, no, truncated or not published.

    truncated: DiT-B/4 alone, whose 5.566 is printed as 5.56, where every other row is rounded.
    """
    if printed is None:
        return "not published"
    decimals = len(printed.partition(".")[2])
    if f"{gmacs:.{decimals}f}" == printed:
        return "yes"
    is_truncated = (model, printed) == ("DiT-B/4", "5.56") and floor(100 * gmacs) == 556
    return "truncated" if is_truncated else "no"
