"""Runs as a person names them: by label, by recipe id, or by the name of their folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from bench.errors import InputError
from bench.files.run_files import RunFiles

# More of them in a message would hide what is wrong.
LISTED = 24


def find_run(runs: Mapping[str, RunFiles], name: str) -> RunFiles:
    """The run of that label ("S/4"), id or folder, among runs by their folders' names.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [run for folder, run in runs.items() if name in (folder, run.recipe.id)]
    found = found or [run for run in runs.values() if run.recipe.label == name]
    if len(found) == 1:
        return found[0]
    if found:
        folders = _listed([run.folder.name for run in found])
        raise InputError(f"{name}: {len(found)} runs have this label; accepted: {folders}")
    labels = _listed(list(dict.fromkeys(run.recipe.label for run in runs.values())))
    raise InputError(f"{name}: no such run; accepted: {labels}, or a recipe's id, or a run folder's name")


def short_names(runs: Mapping[str, RunFiles]) -> dict[str, str]:
    """Folder name -> the run's label, where it has one that no other has; else the folder's name."""
    labels = Counter(run.recipe.label for run in runs.values())
    return {
        folder: run.recipe.label if run.recipe.label and labels[run.recipe.label] == 1 else folder
        for folder, run in runs.items()
    }


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
