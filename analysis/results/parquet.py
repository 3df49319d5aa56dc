"""Tables as parquet, and back with their declared types; each file says of which collection it is."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from analysis.errors import ResultsError
from analysis.results import typed

COLLECTION = b"ditbench.collection"


def parquet_bytes(table: pd.DataFrame, collection: str) -> bytes:
    """`table` as a file that belongs to `collection`."""
    content = pyarrow.Table.from_pandas(table, preserve_index=False)
    content = content.replace_schema_metadata({**(content.schema.metadata or {}), COLLECTION: collection.encode()})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(content, buffer)
    return buffer.getvalue()


def read_parquet(path: Path, types: Mapping[str, str], later: Mapping[str, Any]) -> tuple[pd.DataFrame, str | None]:
    """A table, the columns of `types` first, and the collection it is of: None of an earlier version, or when edited.

    later: columns that tables of earlier versions lack, and what stands in them then.

    Raises:
        ResultsError: not a whole parquet file, a column is missing, or a value is of another type than declared.
    """
    try:
        with path.open("rb") as file:  # Arrow takes no name that is not UTF-8
            content = pyarrow.parquet.read_table(file)
        table = content.to_pandas()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ResultsError(f"{path}: not a whole parquet file ({error}); collect the sweep again") from error
    table = table.reset_index(drop=all(name is None for name in table.index.names))
    missing = [name for name in types if name not in table.columns and name not in later]
    if missing:
        raise ResultsError(f"{path}: no column {', '.join(missing)}; accepted: all that `ditbench collect` wrote")
    others = [name for name in table.columns if name not in types]
    columns = {
        name: _typed(table[name], kind, path)
        if name in table.columns
        else pd.Series([later[name]] * len(table), dtype=kind)  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name, kind in types.items()
    }
    collection = (content.schema.metadata or {}).get(COLLECTION)
    read = pd.DataFrame(columns | {name: _typed(table[name], None, path) for name in others})
    return read, None if collection is None else collection.decode(errors="replace")


def _typed(values: pd.Series, kind: str | None, path: Path) -> Any:
    """`values` as `kind`, or as the one type that they have; as they are where that is clear."""
    if values.dtype == kind or (kind is None and str(values.dtype) in (*typed.ACCEPTED, "int64", "bool")):
        return values
    plain: list[Any] = values.astype("object").where(values.notna(), None).tolist()

    def place(row: int) -> str:
        return f"row {row + 1}"

    name = str(values.name)
    return typed.column(plain, kind or typed.kind_of(plain, name, path, place), name, path, place)
