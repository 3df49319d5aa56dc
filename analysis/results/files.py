"""Writing files that a reader finds either whole or not at all, alone or as a set.

`bench.files.atomic` does the same for runs. There are two because this package imports nothing of `bench`.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results.csv_text import csv_text


def write_whole(path: Path, content: bytes) -> Path:
    """Write `content` aside, then put it in the place of `path`; returns `path`. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.unlink(missing_ok=True)  # a killed writer's, of another machine and perhaps of another user
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path


def write_set(folder: Path, contents: Mapping[str, bytes | None]) -> None:
    """Replace the files `contents` of `folder` together; None takes one away. Makes the folder.

    All are written aside and synced first: what fails by then leaves the folder as it was. The last of them, without
    which no reader may take the set for whole, is away while the others are put in their places.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {folder / name: content for name, content in contents.items() if content is not None}
    try:
        for path, content in written.items():
            with _aside(path).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        *others, last = (folder / name for name in contents)
        last.unlink(missing_ok=True)
        _sync(folder)
        for path in others:
            if path in written:
                _aside(path).replace(path)
            else:
                path.unlink(missing_ok=True)
        _sync(folder)
        _aside(last).replace(last)
        _sync(folder)
    finally:
        for path in written:
            _aside(path).unlink(missing_ok=True)


def write_csv(path: Path, table: pd.DataFrame) -> Path:
    """Write `table` as `csv_text` has it; `csv_text.read_csv` reads the same."""
    return write_whole(path, csv_text(table).encode())


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """`arrays` as a compressed .npz, under any names: to `np.savez_compressed`, `file` is an argument."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _sync(folder: Path) -> None:
    """Keep the order of what was renamed, should the machine lose its power."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
