"""Tables as csv are written column by column and not cell by cell, and say what each cell by itself would."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.errors import ResultsError
from analysis.results.csv_text import csv_text
from analysis.results.run_folders import table_of_lines

ROWS = 12
FLOATS = [0.0, -0.0, np.nan, np.inf, 1e16, 0.1, 1e-7, 2.5, 0.0, -0.0, 2.5, 5e-324]
TABLE = pd.DataFrame(
    {
        "run": pd.array(["a1", "a1", "a1", "b2", "b2", "b2"] * 2, dtype="str"),
        "text": pd.array(["x", "1", "", None, 'a,"b"', "True"] * 2, dtype="str"),
        "whole": pd.array([1, None, 2**62, -5] * 3, dtype="Int64"),
        "flag": pd.array([True, None, False] * 4, dtype="boolean"),
        "float": FLOATS,
        "missing": pd.array([1.5, None, -0.0] * 4, dtype="Float64"),
        "single": np.array(FLOATS, dtype="float32"),
        "object": np.array([1, True, 1.0, None, "1", 0.5] * 2, dtype=object),
        "plain": np.arange(ROWS) // 6,
        "same": 0.1,
        "different": np.arange(ROWS) / 7,
    }
)


def cell(value):
    """As a table has it that was written cell by cell."""
    if isinstance(value, str):
        quoted = value in ("", "1", "True") or "," in value
        return '"' + value.replace('"', '""') + '"' if quoted else value
    return "" if pd.isna(value) else repr(float(value)) if isinstance(value, float) else str(value)


def expected(table):
    rows = zip(*(table.iloc[:, index].tolist() for index in range(table.shape[1])), strict=True)
    return "".join(f"{','.join(line)}\n" for line in (table.columns, *(map(cell, row) for row in rows)))


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE[::3],
        TABLE.iloc[:, ::-1],
        TABLE[:0],
        TABLE[:1],
        pd.DataFrame(np.ones((50, 3)) * [1, 2, 3], columns=list("abc")),
        pd.DataFrame(
            {"sizes": [*np.geomspace(1e-9, 1e18, 99), *-np.arange(9.0), *10.0 ** np.arange(-6, 18), np.nan, np.inf]}
        ),
        pd.concat([TABLE] * 20, ignore_index=True).assign(number=range(20 * ROWS)),
        *(pd.concat([TABLE[[name]]] * 3) for name in TABLE),
    ],
)
def test_a_table_is_written_as_its_cells_are(table):
    assert csv_text(table) == expected(table)


class Record:
    """A run folder's lines."""

    folder = Path("a-run")

    def __init__(self, *lines):
        self.given = [line.encode() for line in lines]

    def lines(self, name):
        return self.given


def record(*lines: str) -> Any:
    return Record(*lines)


STEP = {"step": "Int64", "loss": "float64"}


def test_lines_that_are_objects_together_only_are_refused():
    with pytest.raises(ResultsError, match=r"a-run/train\.jsonl, line 2: not JSON"):
        table_of_lines(record('{"step": 1}', '{"step": 2, "x": [{}', "{}]}"), "train.jsonl", STEP)
    with pytest.raises(ResultsError, match="line 1: not JSON"):
        table_of_lines(record('{"step": 1}, {"step": 2}', '{"step": 3}'), "train.jsonl", STEP)
    with pytest.raises(ResultsError, match="line 2: no 'step'; needed: step"):
        table_of_lines(record('{"step": 1}', '{"step": null}'), "train.jsonl", STEP, ("step",))


def test_lines_with_blanks_around_them_are_read_one_by_one():
    table = table_of_lines(record('{"step": 1, "loss": NaN} ', ' {"step": 2, "loss": 3}'), "train.jsonl", STEP)
    assert table["step"].tolist() == [1, 2]
    assert np.array_equal(table["loss"], [np.nan, 3], equal_nan=True)
