"""A copy of the code for one submission: jobs that wait run what was submitted, however the checkout changes."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.errors import InputError
from bench.provenance import commit

ROOT = Path(__file__).parents[2]
# What a job imports.
FOLDERS = ("models", "bench", "sweeps", "analysis")


def copy_code(folder: Path) -> None:
    """Copy the suite's code into a new `folder`, and its commit into a file COMMIT there.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        for name in FOLDERS:
            _copy(ROOT / name, folder / name)
        (folder / "COMMIT").write_text(f"{commit() or ''}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: the code could not be copied there ({error})") from None


def _copy(source: Path, folder: Path) -> None:
    """Copy what is in a folder, without hidden files; permissions and group are the new place's, not the checkout's."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            _copy(path, folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)
