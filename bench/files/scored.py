"""Which scores of a run are there, and where they and their samples are. Importing it imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.files import jsonl
from bench.recipe import Recipe
from bench.recipe.evaluation import Score

EVALS, SCORES = "evals.jsonl", "scores.jsonl"
# With which the name of a score on the few samples of a search ends (`bench.score.search`).
SEARCHED = "search"


def rows_path(folder: Path, score: Score) -> Path:
    """Where a score's row is: scores by the recipe's `evaluation`, and by its `scores`, have a file each."""
    return folder / (SCORES if score.name else EVALS)


def samples_path(folder: Path, step: int, samples: str = "") -> Path:
    """Where the samples of a kept step are: uint8 (N, C, H, W). `samples`: as `Score` has it."""
    return folder / "samples" / f"step-{step:08d}{f'-{samples}' if samples else ''}.npy"


def unscored(recipe: Recipe, folder: Path) -> list[Score]:
    """Those of the recipe's scores that have no whole row yet, in the order in which they are made."""
    there = {(row.get("step"), "") for row in whole_rows(folder / EVALS)}
    if recipe.scores:
        there |= {(row.get("step"), row.get("score")) for row in whole_rows(folder / SCORES)}
    return [score for score in recipe.wanted_scores() if (score.step, score.name) not in there]


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metric file that are whole, damaged lines passed by."""
    rows = (jsonl.first_row([line]) for line in jsonl.whole_lines(path))
    return [row for row in rows if row is not None]
