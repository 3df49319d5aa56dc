"""The instants at which a process changes files: where it can be killed, or hit otherwise, the same way every time.

An instant is just before a file is opened for writing, renamed, linked or removed, before a folder is made or removed,
and before and after a sync. What lies between two of them is reached by kills after a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(root: Path, on_instant: Callable[[int], object]) -> None:
    """Call `on_instant` with 1, 2, ... at every instant of this process, which cannot be undone: for children only."""
    within = f"{root}/"
    count, busy = 0, False
    sync = os.fsync

    def instant() -> None:
        nonlocal count, busy
        if not busy:
            busy = True  # what it does itself is none
            count += 1
            on_instant(count)
            busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING and isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(within):
                instant()
        elif event in CHANGES:
            path = os.fspath(arguments[0])
            if not path.startswith("/") or path.startswith(within):  # shutil.rmtree names files by their folder
                instant()

    def fsync(file: Any) -> None:
        instant()
        sync(file)
        instant()

    sys.addaudithook(hook)
    os.fsync = fsync
