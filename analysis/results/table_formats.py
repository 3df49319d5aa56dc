"""A table as it is printed: columns, captions, digits; as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Column:
    """A printed column: the data column `name`, its heading, and how a value is printed.

    A number's cell also shows its range where the data have `{name}_min`, `{name}_max` and several seeds.
    """

    name: str
    heading: str
    text: Callable[[Any], str] = str
    is_number: bool = True


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
        """The printed cells, a list a row; missing values are empty."""
        return [[_cell(column, row) for column in self.columns] for row in self.data.to_dict("records")]


def columns_of(data: pd.DataFrame, number: Callable[[Any], str]) -> tuple[Column, ...]:
    """All columns of `data`: whole numbers in full, other numbers printed by `number`, anything else as text."""
    columns = []
    for label, values in data.items():
        name = str(label)
        if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
            columns.append(Column(name, heading_of(name), is_number=False))
        else:
            columns.append(Column(name, heading_of(name), count if pd.api.types.is_integer_dtype(values) else number))
    return tuple(columns)


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
    lines = [
        "| " + " | ".join(_markdown(column.heading) for column in table.columns) + " |",
        "| " + " | ".join("---:" if column.is_number else "---" for column in table.columns) + " |",
    ]
    for row in table.rows():
        cells = (_markdown(f"{cell.text} ({cell.range})" if cell.range else cell.text) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return f"**{_markdown(table.caption)}**\n\n" + "\n".join(lines) + f"\n\n{_markdown(table.conventions)}\n"


def latex(table: Table) -> str:
    """A `table` float with a booktabs `tabular`; needs \\usepackage{booktabs,graphicx}, and UTF-8, LaTeX's default.

    Ranges stand in a line of their own below their means. A table that is wider than the text is scaled to its width;
    `table*` gives it both columns of a paper.
    """
    alignment = "".join("r" if column.is_number else "l" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\belowcaptionskip}{6pt}",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_latex(table.caption)}. {_latex(table.conventions)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _latex_row(column.heading for column in table.columns),
        r"\midrule",
    ]
    for row in table.rows():
        lines.append(_latex_row((cell.text for cell in row), numbers=table.columns))
        if any(cell.range for cell in row):
            ranges = (rf"\scriptsize {_latex_number(cell.range)}" if cell.range else "" for cell in row)
            lines.append(" & ".join(ranges) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def csv(table: Table) -> str:
    """All data columns; floats in the shortest form that reads back as the same number."""
    return table.data.to_csv(index=False, lineterminator="\n")


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": markdown, "latex": latex, "csv": csv}


def _cell(column: Column, row: dict[Any, Any]) -> Cell:
    value = row[column.name]
    if pd.isna(value):
        return Cell("", "", None)
    low, high = row.get(f"{column.name}_min"), row.get(f"{column.name}_max")
    has_range = low is not None and row["num_seeds"] > 1 and pd.notna(low)
    return Cell(column.text(value), f"{column.text(low)} to {column.text(high)}" if has_range else "", value)


def _markdown(text: str) -> str:
    """`text` with what Markdown would read as markup escaped."""
    return "".join(f"\\{character}" if character in "\\|*_`<>[]" else character for character in text)


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "∞": r"$_\infty$",
    "⁹": r"$^9$",
    "×": r"$\times$",
    "−": r"$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _latex_number(text: str) -> str:
    """A number's text, its hyphens as minus signs."""
    return _latex(text).replace("-", "$-$")


def _latex_row(cells: Iterable[str], numbers: tuple[Column, ...] = ()) -> str:
    """A row of escaped cells; `numbers`: the columns, where the cells are values and not headings."""
    if not numbers:
        return " & ".join(map(_latex, cells)) + r" \\"
    escaped = (
        _latex_number(cell) if column.is_number else _latex(cell) for cell, column in zip(cells, numbers, strict=True)
    )
    return " & ".join(escaped) + r" \\"
