"""Lines of JSON that hold numbers only, such as train.jsonl's, read by Arrow: three times as fast as one by one."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
from pyarrow import json

ARROW_TYPES = {"float64": pa.float64(), "Int64": pa.int64()}


def number_lines(content: bytes, types: dict[str, str]) -> pd.DataFrame | None:
    """The columns `types` (name -> float64 or Int64) of lines that are flat objects of numbers and nulls.

    None for any others, damaged ones above all: these are to be read, and refused, line by line.
    """
    lines = content.count(b"\n")
    # Each line begins an object, which ends before the next line's begins.
    if not content.startswith(b"{") or not (lines == content.count(b"{") == content.count(b"}")):
        return None
    if content.count(b"\n{") != lines - 1:
        return None
    if not set(types.values()) <= set(ARROW_TYPES):
        return None
    schema = pa.schema([(name, ARROW_TYPES[kind]) for name, kind in types.items()])
    options = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    try:
        table = json.read_json(pa.BufferReader(content), json.ReadOptions(use_threads=False), options)
    except pa.ArrowInvalid:
        return None
    if table.num_rows != lines:
        return None
    columns = {name: table[name].to_numpy() for name in types}  # floats; NaN for null
    columns |= {name: pd.array(table[name].to_pandas(), dtype=kind) for name, kind in types.items() if kind == "Int64"}
    return pd.DataFrame(columns)
