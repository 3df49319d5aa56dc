"""Writing files that a reader finds either whole or not at all.

`bench.files.atomic` does the same for runs, and syncs too: they must outlive a crash of the machine, while tables and
figures are made anew with one command. There are two because this package imports nothing of `bench`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd


def write_whole(path: Path, content: bytes) -> Path:
    """Write `content` aside, then put it in the place of `path`; returns `path`. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)  # a killed writer's, of another machine and perhaps of another user
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write `table` with floats in the shortest form that reads back as the same number."""
    return write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write `table` twice: as `path`.csv, for people, and as `path`.parquet, which keeps its types."""
    write_csv(path.with_name(f"{path.name}.csv"), table)
    write_whole(path.with_name(f"{path.name}.parquet"), table.to_parquet(path=None, index=False))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write `arrays` as a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return write_whole(path, buffer.getvalue())
