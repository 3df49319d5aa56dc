"""What several sections of a report share: any data frame as a table, and values in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.paper.table_formats import Table, columns_of, significant
from analysis.paper.tables import GMACS, RANGE, protocol
from analysis.results.tables import Tables

number = significant(4)


def brief(table: Table, tables: Tables) -> Table:
    """Without those conventions that a page says once, for all of its tables."""
    left = table.conventions
    for said in (GMACS, RANGE, protocol(tables)):
        left = left.replace(said, "") if said else left
    return replace(table, conventions=" ".join(left.split()))


def plain_table(name: str, caption: str, conventions: str, data: pd.DataFrame) -> Table:
    """A table of all columns that say something, numbers to four digits; ranges stand in their value's cells."""
    shown = data.dropna(axis="columns", how="all")
    if "num_seeds" in data.columns:
        shown = shown.loc[:, ~shown.columns.str.endswith(("_min", "_max"))]
    return Table(name, caption, conventions, columns_of(shown, number), data)


def names(values: Any) -> str:
    """The different values in their order of first appearance."""
    shown = values.dropna().drop_duplicates()
    return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value}" for value in shown)


def counted(number: int, what: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(share: float, sign: bool = False) -> str:
    """A share in whole percent: "90 %", or "+11 %"."""
    return minus(f"{100 * share:{'+' if sign else ''}.0f}\N{NO-BREAK SPACE}%")


def duration(hours: float) -> str:
    """In the unit that people would choose."""
    seconds = 3600 * hours
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{hours:,.1f} hours" if hours < 100 else f"{hours:,.0f} hours"


def minus(text: str) -> str:
    """Hyphens as minus signs."""
    return text.replace("-", "−")
