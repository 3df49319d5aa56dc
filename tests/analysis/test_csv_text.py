"""CSV text equals what pandas writes, for whatever a table holds, and floats read back as the same."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.results.csv_text import csv_text

EDGES = [0.0, -0.0, 1.0, -2.0, 0.1, 1e-4, 9.999e-5, 1e-5, 5e-324, 1e15, 999999999999999.9, 1e16, 1e22, 1.5e300, -1e-4]
EDGES += [1 / 3, 2.0**53, float("inf"), float("-inf"), float("nan"), 123456789012345.6, 1e-4 - 1e-19]


def of_pandas(table):
    return table.to_csv(index=False, lineterminator="\n")


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_floats_are_written_as_pandas_writes_them(values):
    table = pd.DataFrame({"x": np.array([*values, *EDGES]), "y": 1})
    assert csv_text(table) == of_pandas(table)


def test_floats_of_every_size_read_back_as_the_same():
    random = np.random.default_rng(0)
    values = random.standard_normal(20_000) * 10.0 ** random.integers(-320, 300, 20_000)
    lines = csv_text(pd.DataFrame({"x": values, "y": 1})).splitlines()[1:]
    assert [line.partition(",")[0] for line in lines] == [repr(value) for value in values.tolist()]


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, None, -3], dtype="Int64"),
        np.array([1, 2, 3]),
        np.array([True, False, True]),
        pd.array([True, None, False], dtype="boolean"),
        pd.array(["S/4", None, "Fréchet"], dtype="str"),
        pd.array(['say "so"', "one, two", "two\nlines"], dtype="str"),
        pd.array(["a\rb", "", " c "], dtype="str"),
        np.array([1, "two", None], dtype=object),
        np.array([[1], {"a": 1.0}, 2.0], dtype=object),
        pd.Categorical(["a", "b", "a"]),
    ],
)
@pytest.mark.parametrize("rows", [0, 3])
def test_columns_of_all_kinds_are_written_as_pandas_writes_them(column, rows):
    table = pd.DataFrame({"x": column, "y": [0.5, None, 2.0], "z": ["a", "b", "c"]}).head(rows)
    assert csv_text(table) == of_pandas(table)
    alone = table.drop(columns=["y", "z"])
    assert csv_text(alone) == of_pandas(alone)


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "", 3])
def test_headings_of_all_kinds_are_written_as_pandas_writes_them(name):
    table = pd.DataFrame({name: [1.0, 2.0], "y": [1, 2]})
    assert csv_text(table) == of_pandas(table)


def test_columns_of_one_name_and_tables_without_columns_are_written_as_pandas_writes_them():
    table = pd.concat([pd.DataFrame({"x": [1.5, 2.0]}), pd.DataFrame({"x": ["a", "b"]})], axis="columns")
    assert csv_text(table) == of_pandas(table)
    assert csv_text(pd.DataFrame()) == of_pandas(pd.DataFrame())
