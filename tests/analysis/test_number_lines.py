"""Lines that Arrow reads are read as json reads them; all others are left to json."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.results.number_lines import number_lines

TYPES = {"step": "Int64", "loss": "float64", "lr": "float64"}
numbers = st.none() | st.floats()
row = st.fixed_dictionaries({"step": st.integers(-(2**63), 2**63 - 1)}, optional={"loss": numbers, "lr": numbers})


def content(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@given(st.lists(row, min_size=1))
def test_numbers_are_those_of_json(rows):
    table = number_lines(content(*rows), TYPES)
    assert table is not None
    assert table.dtypes.astype(str).to_dict() == TYPES
    assert table["step"].tolist() == [row["step"] for row in rows]
    for name in ("loss", "lr"):
        expected = [np.nan if row.get(name) is None else row[name] for row in rows]
        np.testing.assert_array_equal(table[name].to_numpy(), np.array(expected, dtype=float))


def test_a_missing_whole_number_is_missing():
    table = number_lines(content({"loss": 1.5}, {"step": 7}), TYPES)
    assert table is not None
    assert table["step"].isna().tolist() == [True, False]
    assert table["step"].dtype == pd.Int64Dtype()


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "\n",
        '{"step": 1}\n\n',
        '{"step": 1}\n{"step": 2\n',
        '{"step": 1}\n{"step": 2}}\n',
        '{"step": 1},\n{"step": 2}\n',
        '{"step": 1} 2\n{"step": 3}\n',
        '{"step": 1}{"step": 2}\n',
        '{"step": 1} {"step": 2}\n\n',
        '{"step":\n1}\n',
        '{"step": 1, \n"loss": 2}\n{"step": 3}{"step": 4}\n',
        '{"step": 1}\n[{"step": 2}]\n',
        '{"step": 1, "lo{"step": 2}\n',
        '{"step": NaN}\n',
        '{"step": 1, "loss": 2.0, "loss": 3.0}\n',
        '{"step": 1, "loss": 1e999}\n',
        '{"step": 1, "loss": "2"}\n',
        '{"step": 1, "loss": [2]}\n',
        '{"step": 1, "loss": true}\n',
        '{"step": 1.5}\n',
        '{"step": 9223372036854775808}\n',
        '{"step": 1, "other": 2}\n',
        '{"step": 1, "loss": {"x": 2}}\n',
        '{"step": 1, "loss": 01}\n',
    ],
)
def test_anything_else_is_left_to_json(lines):
    assert number_lines(lines.encode(), TYPES) is None


def test_text_columns_are_left_to_json():
    assert number_lines(content({"step": 1}), {"step": "Int64", "device": "str"}) is None
