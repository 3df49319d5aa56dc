"""What comes with ditbench and is found by name, also where only the package is installed: sweeps, cluster profiles."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

STUDIES = Path(__file__).parent / "studies"
CLUSTERS = Path(__file__).parent / "clusters"
LADDERS = Path(__file__).parent / "ladders"


def names(shipped: Path) -> list[str]:
    """What `find` takes of one of these folders, in alphabetical order."""
    return sorted(path.stem for path in shipped.glob("*.yaml"))


def find(name: str | Path, shipped: Path, beside: Path = Path(), folders: Collection[str] = ()) -> Path | None:
    """A file by its path from the folder `beside`, else the shipped one of that name, with or without `.yaml`.

    So a file of one's own wins where it has the very name that was given. `folders`: names of folders before a shipped
    file's, as in `clusters/local.yaml`, for which it also stands where there is no such folder.
    """
    if _is_file(path := beside / name):
        return path
    folder, file = Path(name).parent, f"{Path(name).name.lower().removesuffix('.yaml')}.yaml"
    is_shipped = (folder == Path() or folder.name in folders) and _is_file(shipped / file)
    return shipped / file if is_shipped else None


def measured_minutes() -> dict[str, tuple[float, str]]:
    """Shipped sweeps that were run: minutes of CPU time, one thread a run, and the folder in results/ that has them."""
    with (STUDIES / "measured.csv").open(encoding="utf-8", newline="") as file:
        return {row["sweep"]: (float(row["cpu_minutes"]), row["results"]) for row in csv.DictReader(file)}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no file can have so long a name, or one with a NUL
        return False
