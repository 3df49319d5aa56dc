"""A copy of the code for one submission: jobs that wait run what was submitted, however the checkout changes."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.errors import InputError
from bench.provenance import commit

ROOT = Path(__file__).parents[2]
# What a job imports, and the published figures that counting reads.
FOLDERS = ("models", "bench", "sweeps", "analysis", "results/published")


def copy_code(folder: Path) -> None:
    """Copy the suite's code into a new `folder`, and its commit into a file COMMIT there.

    Raises:
        InputError: the folder cannot be written.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    try:
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        (folder / "COMMIT").write_text(f"{commit() or ''}\n", encoding="utf-8")
    except (OSError, shutil.Error) as error:
        raise InputError(f"{folder}: the code could not be copied there ({error})") from None
