"""A table as it is printed: columns, captions, digits; as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.paper.latex import latex_prose, latex_text
from analysis.results.csv_text import csv_text
from analysis.results.visible import visible

COLUMN_CHARACTERS = 60  # of a paper's column, in the size of footnotes


@dataclass(frozen=True)
class Column:
    """A printed column: the data column `name`, its heading, and how its numbers are printed; None for words.

    A cell also shows its range where the data have `{name}_min`, `{name}_max` and several seeds; and since which step
    its value is NaN, where the data have `{name}_nan_since`.
    """

    name: str
    heading: str
    number: Callable[[Any], str] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers, which are aligned to the right."""
        return self.number is not None


@dataclass(frozen=True)
class Cell:
    """A printed value, its range over seeds ("" without one), and the exact value."""

    text: str
    range: str
    value: Any


@dataclass(frozen=True)
class Table:
    """`data` in full precision, and how it is printed: `columns`, a caption, and the conventions, units included."""

    name: str
    caption: str
    conventions: str
    columns: tuple[Column, ...]
    data: pd.DataFrame

    def rows(self) -> list[list[Cell]]:
        """The printed cells, one list per row; missing values are empty."""
        return [[_cell(column, row) for column in self.columns] for row in self.data.to_dict("records")]


def columns_of(data: pd.DataFrame, number: Callable[[Any], str]) -> tuple[Column, ...]:
    """All columns of `data`: whole numbers in full, other numbers printed by `number`, anything else as text."""

    def printed(values: pd.Series) -> Callable[[Any], str] | None:
        if pd.api.types.is_integer_dtype(values):
            return count
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        return number if is_number else None

    return tuple(Column(str(name), heading_of(str(name)), printed(values)) for name, values in data.items())


def heading_of(column: str) -> str:
    """num_seeds -> num seeds."""
    return column.replace("_", " ")


def fixed(decimals: int) -> Callable[[Any], str]:
    """Print with so many decimals."""
    return lambda value: f"{value:,.{decimals}f}"


def significant(digits: int) -> Callable[[Any], str]:
    """Print with so many significant digits, whole thousands in full, never as a power of ten."""

    def text(value: Any) -> str:
        if value == 0 or not math.isfinite(value):
            return f"{value:g}"
        # The exponent after rounding: 0.99996 has its first digit where 1 has.
        exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
        return f"{value:,.{max(0, digits - 1 - exponent)}f}"

    return text


def count(value: Any) -> str:
    """Print a whole number with commas at the thousands."""
    return f"{int(value):,}"


def signed(decimals: int) -> Callable[[Any], str]:
    """Print a difference, its sign always."""
    return lambda value: f"{value:+,.{decimals}f}"


def markdown(table: Table) -> str:
    """A pipe table with its caption above and its conventions below."""
    rows = [[column.heading for column in table.columns]]
    rows += [[f"{cell.text} ({cell.range})" if cell.range else cell.text for cell in row] for row in table.rows()]
    lines = [f"| {' | '.join(map(_markdown, row))} |" for row in rows]
    lines.insert(1, f"| {' | '.join('---:' if column.is_number else '---' for column in table.columns)} |")
    return f"**{_markdown(table.caption)}**\n\n" + "\n".join(lines) + f"\n\n{_markdown(table.conventions)}\n"


def latex(table: Table) -> str:
    """A float with a booktabs `tabular`: `table*`, which has both columns of a paper, where it is too wide for one.

    Ranges stand in a line of their own below their means. What does not fit the page is scaled until it does.
    """
    rows = []
    for row in table.rows():
        cells = zip(row, table.columns, strict=True)
        rows.append([_latex_number(cell.text) if column.is_number else latex_text(cell.text) for cell, column in cells])
        if any(cell.range for cell in row):
            rows.append([rf"\scriptsize {_latex_range(cell.range)}" if cell.range else "" for cell in row])
    # Of FID∞, where it is an index.
    headings = [latex_text(column.heading).replace(r"$\infty$", r"$_\infty$") for column in table.columns]
    alignment = "".join("r" if column.is_number else "l" for column in table.columns)
    # pandas escapes neither arrows nor < and >, and writes a negative number with a hyphen.
    tabular = pd.DataFrame(rows, columns=pd.Index(headings)).to_latex(
        index=False, escape=False, column_format=alignment
    )
    environment = "table*" if _characters(table) > COLUMN_CHARACTERS else "table"
    return rf"""% needs \usepackage{{booktabs,graphicx}} and \usepackage[T1]{{fontenc}}
\begin{{{environment}}}
\centering
\footnotesize
\setlength{{\belowcaptionskip}}{{6pt}}
\setlength{{\tabcolsep}}{{4pt}}
\caption{{{latex_prose(table.caption)}. {latex_prose(table.conventions)}}}
\label{{tab:{table.name}}}
\resizebox*{{!}}{{\ifdim\totalheight>0.7\textheight 0.7\textheight\else\totalheight\fi}}{{%
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
{tabular.rstrip()}}}}}
\end{{{environment}}}
"""


def _characters(table: Table) -> int:
    """How wide a table is, the gap between two columns as two characters."""
    rows = [[column.heading for column in table.columns]]
    rows += [[max(cell.text, cell.range, key=len) for cell in row] for row in table.rows()]
    return sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))


def csv(table: Table) -> str:
    """All data columns; floats in the shortest form that reads back as the same number."""
    return csv_text(table.data)


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": csv}


def _cell(column: Column, row: dict[Any, Any]) -> Cell:
    value, text = row[column.name], column.number or _words
    if pd.isna(value):
        since = row.get(f"{column.name}_nan_since")
        return Cell(f"NaN since step {since:,}" if since is not None and pd.notna(since) else "", "", None)
    low, high = row.get(f"{column.name}_min"), row.get(f"{column.name}_max")
    # What has no seeds, such as a baseline, has a range of draws, if it has one.
    has_range = low is not None and pd.notna(low) and (pd.isna(row["num_seeds"]) or row["num_seeds"] > 1)
    return Cell(text(value), f"{text(low)} to {text(high)}" if has_range else "", value)


def _words(value: Any) -> str:
    return visible(str(value))


def _markdown(text: str) -> str:
    """`text` with what Markdown, a page's HTML and its formulas would read as markup escaped."""
    return visible(text).translate({ord(character): f"\\{character}" for character in "\\|*_`<>[]&$~#"})


def _latex_range(text: str) -> str:
    """1.2 to 1.3 with a dash; with minus signs, as it is."""
    return _latex_number(text) if "-" in text else latex_text(text.replace(" to ", "–"))


def _latex_number(text: str) -> str:
    """A number's text, its hyphens as minus signs."""
    return latex_text(text.replace("-", "−"))
