"""The DiT paper's Gflops (Table 4) as they are printed, since the last digit counts, and whether ours agree."""

from __future__ import annotations

import csv
from functools import cache
from math import floor
from pathlib import Path

TABLE = Path(__file__).parents[1] / "results" / "published" / "dit_table4.csv"


@cache
def _printed() -> dict[tuple[str, str, int], str]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["gmacs"]]
    return {(row["model"], row["block"], int(row["image_size"])): row["gmacs"] for row in rows}


def printed_gmacs(model: str, block: str, image_size: int) -> str | None:
    """The figure as printed, such as "524.60"; None where the paper prints none."""
    return _printed().get((model, block, image_size))


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
