"""Files that a reader, or a crash, finds in their old state or in the new, never in between."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from bench.errors import RunError

NAME_CACHE_SECONDS = 90


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write(aside)` make a file beside `path`, sync it, and rename it into place.

    Who may read and write it is what the umask and the folder (its group, its ACL) say, whatever `write` does.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)  # a killed writer's, of another machine and perhaps of another user
        mode = made_mode(aside)
        write(aside)
        give_mode(aside, mode)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        sync_names(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError):
            raise RunError(f"{path}: could not be written ({error}); what was saved before is untouched") from None
        raise


def made_mode(path: Path) -> int:
    """Make an empty file; return its permissions: the umask's, less what an ACL of the folder takes away.

    So the umask is never asked for, which can only be done by setting it, for all threads at once.
    """
    with path.open("xb") as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def give_mode(path: Path, mode: int) -> None:
    """Give a file these permissions, if it has others: safetensors makes files that only the owner reads."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def write_bytes(path: Path, data: bytes) -> None:
    """`replace` with these bytes."""
    replace(path, lambda aside: aside.write_bytes(data))


def write_json(path: Path, content: object) -> None:
    """`replace` with a JSON document."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def sync_names(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power: syncing a new file does not promise that of its name."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def wait_for_file(path: Path) -> None:
    """Return once a file that another node wrote is seen here: network file systems cache names for up to a minute."""
    deadline = time.monotonic() + NAME_CACHE_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
