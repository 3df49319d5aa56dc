"""How far averages made afterwards of snapshots are from those that training kept: weights.csv, beside this file.

    python results/ema/weights.py runs/ema runs/ema-direct

Two runs of one seed took the same steps, and differ in nothing but which averages they kept. `error` is the norm of the
difference over the norm of the kept average, `moved` that of the trained weights less the kept average; of all
snapshots, and of every second, fourth and eighth.
"""

from __future__ import annotations

import csv
import sys
from functools import cache
from pathlib import Path

import torch

from bench.averages.power import coefficients
from bench.files import checkpoint
from bench.files.run_folder import read_config
from bench.recipe import Recipe

EVERY = (1, 2, 4, 8)


def main(made: Path, kept: Path) -> None:
    rows = []
    for folder, recipe in runs(kept):
        (other,) = (each for each in runs(made) if each[1].seed == recipe.seed and each[1].train.schedule == "constant")
        for step in recipe.train.kept_steps():
            rows += [row for std in recipe.train.ema_stds for row in errors(other, folder, recipe, std, step)]
    with (Path(__file__).parent / "weights.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def runs(sweep: Path) -> list[tuple[Path, Recipe]]:
    return [(path.parent, read_config(path.parent)) for path in sorted(sweep.glob("*/config.yaml"))]


def errors(other: tuple[Path, Recipe], folder: Path, recipe: Recipe, std: float, step: int) -> list[dict[str, object]]:
    made, theirs = other
    wanted, raw = (read(folder, recipe.id, step, name) for name in (f"ema std={std!r}", "raw"))
    rows: list[dict[str, object]] = []
    for every in EVERY:
        steps = [at for at in theirs.train.snapshot_steps() if at <= step][::-1][::every]
        parts = tuple((each, at) for at in reversed(steps) for each in theirs.train.ema_stds)
        numbers = coefficients(parts, std, step)
        found = torch.zeros_like(wanted)
        for (each, at), number in zip(parts, numbers, strict=True):
            found += number * read(made, theirs.id, at, f"ema std={each!r}")
        rows.append(
            {
                "seed": recipe.seed,
                "step": step,
                "std": std,
                "snapshots": len(parts),
                "error": float((found - wanted).norm() / wanted.norm()),
                "moved": float((raw - wanted).norm() / wanted.norm()),
            }
        )
    return rows


@cache
def read(folder: Path, run: str, step: int, name: str) -> torch.Tensor:
    tensors = checkpoint.read_weights(folder / "checkpoints", step, name, run)
    return torch.cat([tensors[key].double().flatten() for key in sorted(tensors) if key != "pos_embed"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
