"""Writing files that a reader finds either whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results.csv_text import csv_text


def write_whole(path: Path, content: bytes) -> Path:
    """Write `content` aside, then put it in the place of `path`; returns `path`. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write `table` with floats in the shortest form that reads back as the same number."""
    return write_whole(path, csv_text(table).encode())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write `arrays` as a compressed .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return write_whole(path, buffer.getvalue())
