"""Tables as csv, and back: what was written comes back as it was, whatever it looks like.

Text that could be read as a number, as true or false, or as nothing is quoted: what is quoted is text, and an empty
cell without quotes is a missing value. For people and their programs it is plain csv (RFC 4180).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from pandas.api.types import is_float_dtype

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
COMMENT = re.compile(r"#[^\r\n]*(\r\n|\n|\r|$)")


class Quoted(str):
    """A cell that stood in quotes."""


def csv_text(table: pd.DataFrame) -> str:
    """`table` with floats in the shortest form that reads back as the same number."""
    header = ",".join(_quoted(str(name)) for name in table.columns)
    columns = _together([_written(table.iloc[:, index]) for index in range(table.shape[1])])
    return "\n".join([header, *map(",".join, zip(*columns, strict=True)), ""])


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
    return read_numbered(path, types, needed, filled)[0]


def read_numbered(
    path: Path,
    types: Mapping[str, str] | None = None,
    needed: Iterable[str] = (),
    filled: Iterable[str] = (),
    by_hand: bool = False,
) -> tuple[pd.DataFrame, list[int]]:
    """`read_csv`, and the number of each row's line, as an editor counts.

    by_hand: a table of anyone's, in which lines that begin with # are comments, and blanks around a cell nothing.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a byte-order mark is no part of the first name
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: not UTF-8 text ({error}); {FORM}") from None
    lines = ((number, cells) for number, cells in _lines(path, text, by_hand) if not (by_hand and cells == [""]))
    first, header = next(lines, (0, []))
    _check_header(path, header, needed)
    numbers, rows = [], []
    for number, cells in lines:
        if cells == [""] and len(header) > 1:  # an empty line
            continue
        if len(cells) != len(header):
            above = "the first" if first == 1 else f"line {first}"
            raise ResultsError(f"{path}: line {number} has {len(cells)} cells, {above} {len(header)}; {FORM}")
        numbers.append(number)
        rows.append(cells)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    for name in (name for name in filled if name in header):
        for number, cell in zip(numbers, columns[header.index(name)], strict=True):
            if cell == "" or cell.lower().lstrip("+-") in NOT_FINITE:
                said = f"'{name}' is {cell}" if cell else f"no {name}"
                raise ResultsError(f"{path}: line {number}: {said}; accepted: a value in every row")
    declared = types or {}
    table = pd.DataFrame(
        {
            str(name): _read(list(cells), declared.get(name), name, path, lambda row: f"line {numbers[row]}")
            for name, cells in zip(header, columns, strict=True)
        }
    )
    return table, numbers


@dataclass(frozen=True)
class _Few:
    """A column of few different cells: `texts`, and which of them each row has."""

    places: np.ndarray
    texts: list[str]

    def cells(self) -> list[str]:
        return np.array(self.texts, dtype=object)[self.places].tolist()


def _written(values: pd.Series) -> _Few | list[str]:
    if values.dtype == object:  # of several types, among which equal is not the same: 1 and True
        return list(map(_cell, values.tolist()))
    # Floats are told apart by their bits: 0.0 and -0.0 are equal.
    floats = np.array(values.to_numpy(float, na_value=np.nan)) if is_float_dtype(values.dtype) else None
    places, different = pd.factorize(values if floats is None else floats.view(np.int64))
    if floats is not None:
        if 2 * len(different) > len(floats):
            return _float_texts(floats)
        different = different.view(float)
    texts = [*map(_cell, different.tolist()), ""]  # the last of a missing value
    return _Few(np.where(places < 0, len(texts) - 1, places), texts)


def _float_texts(floats: np.ndarray) -> list[str]:
    """Each as Python writes it, which for most of them Arrow does, too, in a third of the time; "" for NaN."""
    texts = pyarrow.array(floats).cast(pyarrow.string()).to_numpy(zero_copy_only=False)
    sizes = np.abs(floats)
    # With one of the two the others have an exponent, or no ".0".
    others = ~((sizes >= 1e-4) & (sizes < 1e9) & (np.floor(sizes) < sizes))
    texts[others] = list(map(repr, floats[others].tolist()))
    texts[np.isnan(floats)] = ""
    return texts.tolist()


def _together(columns: list[_Few | list[str]]) -> list[list[str]]:
    """The columns, neighbours of few different cells as one: most of a table says whose row it is."""
    joined: list[_Few | list[str]] = []
    for column in columns:
        before = joined[-1] if joined else None
        if isinstance(before, _Few) and isinstance(column, _Few):
            places, pairs = pd.factorize(before.places * len(column.texts) + column.places)
            if 2 * len(pairs) < len(places):
                whose = (divmod(pair, len(column.texts)) for pair in pairs.tolist())
                joined[-1] = _Few(places, [f"{before.texts[one]},{column.texts[other]}" for one, other in whose])
                continue
        joined.append(column)
    return [column.cells() if isinstance(column, _Few) else column for column in joined]


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return "" if pd.isna(value) else str(value)


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


def _lines(path: Path, text: str, by_hand: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that a row begins at, and the row's cells."""
    place, number, start, cells = 0, 1, 1, []
    while place < len(text):
        if by_hand and not cells and (comment := COMMENT.match(text, place)):
            place, number = comment.end(), number + 1
            start = number
            continue
        match = CELL.match(text, place)
        assert match is not None  # it can be empty
        place = match.end()
        plain = match[0].strip() if by_hand else match[0]
        cells.append(plain if match[1] is None else Quoted(match[1].replace('""', '"')))
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
        named = ", ".join(name or "''" for name in missing) or "any"
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
