"""Metric files: one JSON object a line, appended; after a crash, cut back to what the checkpoint knows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from bench.atomic import write_bytes
from bench.errors import RunError


def now() -> str:
    """The time as rows record it: local, with its offset, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one row.

    Raises:
        RunError: the disk is full or the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            # A checkpoint must never outlive the metrics that led to it.
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"{path}: could not be written ({error})") from None


def read(path: Path) -> list[dict[str, Any]]:
    """All rows; a last line that a crash cut short is left out.

    Raises:
        RunError: another line is not a JSON object.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")
    # What follows the last newline is empty, or a torn line.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise RunError(f"{path}: line {number} is not a JSON object")
        rows.append(row)
    return rows


def cut_after(path: Path, step: int) -> None:
    """Drop rows beyond `step` and a torn last line, so that the steps about to be repeated appear once."""
    if path.exists():
        kept = [row for row in read(path) if row["step"] <= step]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
