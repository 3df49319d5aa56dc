"""Tables and texts that several sections of a report share: any data frame as a table, headings, lists of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.report import page
from analysis.results.table_formats import Column, Table, count, significant
from analysis.results.tables import Tables

number = significant(4)


def table_or_reason(make: Callable[[Tables], Table], tables: Tables) -> str:
    """The table as HTML, or why there is none."""
    try:
        return page.table(make(tables))
    except ResultsError as error:
        return page.paragraph(f"No table: {error}")


def plain_table(name: str, caption: str, conventions: str, data: pd.DataFrame) -> Table:
    """A table of all columns that say something, numbers to four digits; ranges stand in their value's cells."""
    columns = []
    for label, values in data.dropna(axis="columns", how="all").items():
        column = str(label)
        if "num_seeds" in data.columns and column.endswith(("_min", "_max")):
            continue
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            columns.append(Column(column, heading_of(column), is_number=False))
        else:
            whole = pd.api.types.is_integer_dtype(values)
            columns.append(Column(column, heading_of(column), count if whole else number))
    return Table(name, caption, conventions, tuple(columns), data)


def heading_of(column: str) -> str:
    """num_seeds -> num seeds."""
    return column.replace("_", " ")


def names(values: Any) -> str:
    """The different values in their order of first appearance."""
    shown = values.dropna().drop_duplicates()
    return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value}" for value in shown)
