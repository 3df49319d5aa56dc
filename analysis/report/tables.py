"""What several sections of a report share: any data frame as a table, and values in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.results.table_formats import Table, columns_of, significant
from analysis.results.tables import Tables

number = significant(4)


def table_or_reason(make: Callable[[Tables], Table], tables: Tables) -> Table | str:
    """The table, or why there is none."""
    try:
        return make(tables)
    except ResultsError as error:
        return f"No table: {error}"


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
