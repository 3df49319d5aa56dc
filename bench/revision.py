"""Which commit of the suite is running."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

# In a copy of the code (see `sweeps.snapshot`): the commit that it was copied from.
COMMIT_FILE = Path(__file__).parents[1] / "COMMIT"


@cache
def commit() -> str | None:
    """The suite's checked-out commit, with `+` if tracked files differ from it; None outside a checkout.

    A copy of the code carries its commit in a file.
    """
    if COMMIT_FILE.exists():
        return COMMIT_FILE.read_text(encoding="utf-8").strip() or None
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
