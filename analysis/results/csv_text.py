"""Tables as csv, and back: what was written comes back as it was, whatever it looks like.

Text that could be read as a number, as true or false, or as nothing is quoted: what is quoted is text, and an empty
cell without quotes is a missing value. For people and their programs it is plain csv (RFC 4180).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.results import typed

FORM = "accepted: UTF-8 text, commas between cells, a point as decimal sign"
BOOLEANS = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}
NUMBER = re.compile(
    r"[-+]?(\d+(\.\d*)?([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|inf|infinity|nan)", re.ASCII | re.IGNORECASE
)
NOT_FINITE = ("nan", "inf", "infinity")
CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"|[^",\r\n]*')
LINE_END = re.compile(r"\r\n|\n|\r|$")


class Quoted(str):
    """A cell that stood in quotes."""


def csv_text(table: pd.DataFrame) -> str:
    """`table` with floats in the shortest form that reads back as the same number."""
    columns = [_written(table.iloc[:, index]) for index in range(table.shape[1])]
    lines = [[_quoted(str(name)) for name in table.columns], *zip(*columns, strict=True)]
    return "".join(f"{','.join(line)}\n" for line in lines)


def read_csv(
    path: Path, types: Mapping[str, str] | None = None, needed: Iterable[str] = (), filled: Iterable[str] = ()
) -> pd.DataFrame:
    """Read a table; columns that `types` does not declare are of the one type that all their cells have, else text.

    needed: columns that must be there; filled: those, if they are there, that hold a value in every row, which is
    finite if it is a number.

    Raises:
        ResultsError: not such a file, a column is missing or there twice, a line has too many or too few cells, or a
            cell is not of its column's type: the line and the column are named.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a byte-order mark is no part of the first name
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: not UTF-8 text ({error}); {FORM}") from None
    lines = _lines(path, text)
    _, header = next(lines, (0, []))
    _check_header(path, header, needed)
    numbers, rows = [], []
    for number, cells in lines:
        if cells == [""] and len(header) > 1:  # an empty line
            continue
        if len(cells) != len(header):
            raise ResultsError(f"{path}: line {number} has {len(cells)} cells, the first {len(header)}; {FORM}")
        numbers.append(number)
        rows.append(cells)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    for name in (name for name in filled if name in header):
        for number, cell in zip(numbers, columns[header.index(name)], strict=True):
            if cell == "" or cell.lower().lstrip("+-") in NOT_FINITE:
                said = f"'{name}' is {cell}" if cell else f"no {name}"
                raise ResultsError(f"{path}: line {number}: {said}; accepted: a value in every row")
    declared = types or {}
    return pd.DataFrame(
        {
            str(name): _read(list(cells), declared.get(name), name, path, lambda row: f"line {numbers[row]}")
            for name, cells in zip(header, columns, strict=True)
        }
    )


def _written(values: pd.Series) -> list[str]:
    if pd.api.types.is_float_dtype(values.dtype):
        return ["" if value is pd.NA or value != value else repr(value) for value in values.tolist()]
    texts: dict[Any, str] = {}  # there are few different ones
    cells = []
    for value in values.tolist():
        if not isinstance(value, str):
            cells.append("" if pd.isna(value) else str(value))
            continue
        if value not in texts:
            texts[value] = _quoted(value)
        cells.append(texts[value])
    return cells


def _quoted(text: str) -> str:
    if text and not any(character in text for character in '",\r\n') and isinstance(_plain(text), str):
        return text
    return '"' + text.replace('"', '""') + '"'


def _plain(cell: str) -> Any:
    """What a cell without quotes says."""
    if not cell:
        return None
    if cell in BOOLEANS:
        return BOOLEANS[cell]
    if not NUMBER.fullmatch(cell):
        return cell
    try:
        return int(cell)
    except ValueError:  # also of more digits than Python converts
        return float(cell)


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that a row begins at, and the row's cells."""
    place, number, start, cells = 0, 1, 1, []
    while place < len(text):
        match = CELL.match(text, place)
        assert match is not None  # it can be empty
        place = match.end()
        cells.append(match[0] if match[1] is None else Quoted(match[1].replace('""', '"')))
        number += len(re.findall(r"\r\n|\n|\r", match[0]))
        if text.startswith(",", place):
            place += 1
            if place < len(text):
                continue
            cells.append("")
        ended = LINE_END.match(text, place)
        if ended is None:
            raise ResultsError(f"{path}: line {number}: a quote inside a cell, or one that does not end; {FORM}")
        place, number = ended.end(), number + 1
        yield start, cells
        start, cells = number, []


def _check_header(path: Path, header: list[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing or not header:
        other = next((sign for sign in ";\t" if len(header) == 1 and sign in header[0]), None)
        if other is not None:
            raise ResultsError(f"{path}: its cells are separated by {other!r}; {FORM}")
        named = ", ".join(missing) or "any"
        raise ResultsError(f"{path}: no column {named} (it has {', '.join(header) or 'none'}); {FORM}")
    for name in header:
        if header.count(name) > 1:
            raise ResultsError(f"{path}: two columns are called {name}; accepted: one")


def _read(cells: list[str], kind: str | None, key: str, path: Path, place: typed.Place) -> Any:
    if kind == "str":
        values: list[Any] = [str(cell) if cell or isinstance(cell, Quoted) else None for cell in cells]
        return typed.column(values, "str", key, path, place)
    if kind is not None:
        return typed.column([_plain(cell) for cell in cells], kind, key, path, place)
    values = [str(cell) if isinstance(cell, Quoted) else _plain(cell) for cell in cells]
    try:
        return typed.column(values, typed.kind_of(values, key, path, place), key, path, place)
    except ResultsError:  # written by something else: as it stands there
        return _read(cells, "str", key, path, place)
