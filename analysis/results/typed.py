"""Columns of declared types: a value of another type is refused with its place, never turned into something else."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError

# pandas' name of a type -> what people are told, and what Python reads from JSON for it.
ACCEPTED = {"str": "text", "Int64": "a whole number of 64 bits", "float64": "a number", "boolean": "true or false"}
READ_AS: dict[str, set[type]] = {"str": {str}, "Int64": {int}, "float64": {float, int}, "boolean": {bool}}

KINDS: dict[type, str] = {str: "str", int: "Int64", float: "float64", bool: "boolean"}

Place = Callable[[int], str]


def column(values: Sequence[Any], kind: str, key: str, where: object, place: Place) -> Any:
    """`values` (N,) as a column of the type `kind`, a missing one where there is None.

    `where` (a file), `place` (of the n-th value in it) and `key` are for the message.

    Raises:
        ResultsError: the first value that is of another type.
    """
    try:
        types = set(map(type, values)) - {type(None)}
        if types <= READ_AS[kind]:
            return np.array(values, dtype=kind) if kind == "float64" else _array(values, kind)
        return column([_as(value, kind) for value in values], kind, key, where, place)
    except (TypeError, ValueError, OverflowError):
        row = next(row for row, value in enumerate(values) if not fits(value, kind))
        at = f"{place(row)} is {reprlib.repr(values[row])}"
        raise ResultsError(
            f"{where}: a value of '{key}' is not of type {kind} ({at}); accepted: {ACCEPTED[kind]}"
        ) from None


def fits(value: Any, kind: str) -> bool:
    """Whether a column of the type `kind` can hold `value`; None is a missing one."""
    try:
        _check([_as(value, kind)], kind)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def kind_of(values: Sequence[Any], key: str, where: object, place: Place) -> str:
    """The one type of all `values` (N,), for a column that nothing declares; None and NaN have any.

    Raises:
        ResultsError: a value is no text, number, true or false, or two are of different types.
    """
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        if value is None or value != value:
            continue
        kind = KINDS.get(type(value))
        if kind is None:
            at = f"{place(row)} is {reprlib.repr(value)}"
            raise ResultsError(f"{where}: '{key}': {at}; accepted: text, a number, true or false")
        first.setdefault(kind, row)
    if set(first) == {"Int64", "float64"}:
        return "float64"
    if len(first) > 1:
        said = " and ".join(f"{reprlib.repr(values[row])} ({place(row)})" for row in list(first.values())[:2])
        raise ResultsError(f"{where}: '{key}' is of several types, {said}; accepted: one type")
    return next(iter(first), "float64")


def _as(value: Any, kind: str) -> Any:
    """`value` as what JSON would have of the type `kind`: a whole float is an int.

    Raises:
        TypeError, OverflowError: it is of another type.
    """
    if value is None:
        return None
    if kind == "Int64" and type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if type(value) not in READ_AS[kind]:
        raise TypeError
    return float(value) if kind == "float64" else value


def _array(values: Sequence[Any], kind: str) -> Any:
    if kind == "Int64" and None not in values:
        return pd.array(np.array(values, dtype=np.int64), dtype=kind)  # pyright: ignore[reportArgumentType, reportCallIssue]
    _check(values, kind)
    return pd.array(list(values), dtype=kind)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _check(values: Sequence[Any], kind: str) -> None:
    """Raise UnicodeEncodeError or OverflowError for what Python holds and a column cannot."""
    if kind == "str":
        "".join(value for value in values if value is not None).encode()  # half of a surrogate pair is no text
    if kind == "Int64" and not all(value is None or -(2**63) <= value < 2**63 for value in values):
        raise OverflowError
