"""Metric files: one JSON object a line, appended; after a crash, cut back to what the checkpoint knows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import RunError
from bench.files.atomic import sync_names, write_bytes

# Enough for the last rows of a metric file, however long it is.
TAIL_BYTES = 8192
NO_FILE = (FileNotFoundError, NotADirectoryError)


def now() -> str:
    """The time as rows record it: local, with its offset, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def in_words(row: dict[str, Any]) -> str:
    """A row of train.jsonl, evals.jsonl or scores.jsonl as a person reads it."""
    if "loss" not in row:  # a score, whose metrics the recipe chooses
        said = f"Fréchet distance {row['fid']:.4g}" if "fid" in row else "scored"
        if "score" in row:  # one of several
            scale = row["guidance_scale"]
            guided = f", guidance {scale:g}" if scale != 1 else ""
            said = f"{said} by {row['sampler']} in {row['sampling_steps']} steps{guided} (score {row['score']})"
        return f"step {row['step']:,}: {said}"
    rate, loss = row["images_per_s"], loss_in_words(row)
    return f"step {row['step']:,}: {loss}, {rate:,.{0 if rate >= 10 else 2}f} images/s{not_finite_in_words(row, ', ')}"


def loss_in_words(row: dict[str, Any]) -> str:
    """The loss of a row of train.jsonl, which has none where each of its steps was skipped."""
    return "no loss" if row["loss"] is None else f"loss {row['loss']:.4f}"


def not_finite_in_words(row: dict[str, Any], before: str = "") -> str:
    """What the run did so far about losses that were not finite, after `before`; empty where it did nothing."""
    skipped, roll_backs = row.get("skipped"), row.get("roll_backs")
    if skipped:
        return f"{before}{skipped:,} step{'' if skipped == 1 else 's'} skipped"
    return f"{before}rolled back {'once' if roll_backs == 1 else f'{roll_backs:,} times'}" if roll_backs else ""


def append(path: Path, row: dict[str, Any]) -> None:
    """Add one row, in the place of a last line that a crash or a full disk cut short.

    Raises:
        RunError: the disk is full or the file cannot be written.
    """
    try:
        is_new = not path.exists()
        with path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            # A checkpoint must never outlive the metrics that led to it.
            os.fsync(file.fileno())
        if is_new:
            sync_names(path.parent)
    except OSError as error:
        raise RunError(f"{path}: could not be written ({error})") from None


def _cut_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    if tail and not tail.endswith(b"\n"):
        # A row longer than the tail that was read is cut by the whole file.
        file.seek(0 if b"\n" not in tail else start)
        kept = file.tell() + file.read().rfind(b"\n") + 1
        file.truncate(kept)


def whole_lines(path: Path) -> list[bytes]:
    """All lines but a last one that a crash cut short; none if there is no file."""
    try:
        # What follows the last newline is empty, or a torn line.
        return path.read_bytes().split(b"\n")[:-1]
    except NO_FILE:
        return []


def read(path: Path) -> list[dict[str, Any]]:
    """All rows; a last line that a crash cut short is left out.

    Raises:
        RunError: another line is not a JSON object.
    """
    rows = []
    for number, line in enumerate(whole_lines(path), start=1):
        row = first_row([line])
        if row is None:
            raise RunError(f"{path}: line {number} is not a JSON object")
        rows.append(row)
    return rows


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row, reading only the file's end and passing damaged lines by; None if there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except NO_FILE:
        return None
    return first_row(reversed(lines))


def first_row(lines: Iterable[bytes]) -> dict[str, Any] | None:
    """The first line that is a JSON object; None if none is."""
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            return row
    return None


def cut_after(path: Path, step: int) -> None:
    """Drop rows beyond `step` and a torn last line, so that the steps about to be repeated appear once.

    Raises:
        RunError: a line is damaged, or has no step.
    """
    if path.exists():
        rows = read(path)
        for number, row in enumerate(rows, start=1):
            if type(row.get("step")) is not int:
                raise RunError(f"{path}: line {number}: 'step' is {row.get('step')!r}; accepted: a whole number")
        kept = [row for row in rows if row["step"] <= step]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
