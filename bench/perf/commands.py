"""What commands cost, as whole processes: help, counts, figures of the published tables, tables of a large sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.files.run_folder import write_config, write_model
from bench.flops import forward_gmacs
from bench.perf.document import OURS
from bench.perf.turns import Measure, timed
from bench.recipe import Recipe
from bench.score.evaluate import sampling_key

LIBRARIES = ("matplotlib.figure", "pandas", "pyarrow.parquet", "scipy.optimize")  # what analysis imports
IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
HELP_SECONDS, COUNTS_SECONDS, FIGURES_SECONDS, COLLECT_SECONDS = 0.5, 3.0, 6.0, 10.0  # targets


def ditbench(*arguments: object, path: str | None = None) -> Callable[[], object]:
    """Runs the command line with these arguments as a process of its own; `path`: another PATH for it."""
    return process("-c", "from ditbench import main; main()", *arguments, path=path)


def process(*arguments: object, path: str | None = None) -> Callable[[], object]:
    """Runs Python with these arguments as a process of its own, which must end well."""
    command = [sys.executable, *map(str, arguments)]
    env = os.environ if path is None else {**os.environ, "PATH": path}
    return lambda: subprocess.run(command, check=True, capture_output=True, env=env)


def commands(folder: Path, sweep: Path, runs: str, modules: Sequence[str]) -> list[Measure]:
    """What users type, from the start of the process to its end; written into `folder`.

    Args:
        sweep: of `write_sweep`, which is collected; `runs` says of how many.
        modules: of `analysis`, all that users need, which are imported beside the libraries that they import.
    """
    drawn = ["figure", "all", "--source", "published", "--out", folder / "figures"]
    collected = ["collect", sweep, "--out", folder / "tables"]
    return [
        Measure(
            "ditbench --help",
            timed({OURS: ditbench("--help"), "Python without a program": process("-c", "")}),
            targets={OURS: HELP_SECONDS},
        ),
        Measure("ditbench flops --all", timed({OURS: ditbench("flops", "--all")}), targets={OURS: COUNTS_SECONDS}),
        Measure(
            "ditbench figure all --source published",
            timed({OURS: ditbench(*drawn)}),
            targets={OURS: FIGURES_SECONDS},
        ),
        Measure(f"ditbench collect, {runs}", timed({OURS: ditbench(*collected)}), targets={OURS: COLLECT_SECONDS}),
        Measure(
            "import all of analysis",
            timed({OURS: process("-c", IMPORT, *modules), "its libraries alone": process("-c", IMPORT, *LIBRARIES)}),
        ),
    ]


def write_sweep(folder: Path, models: Sequence[Recipe], num_runs: int = 1000, num_rows: int = 1000) -> str:
    """Made-up finished runs of `models`, as many seeds as it takes, with so many rows of train.jsonl; says how many."""
    for number in range(num_runs):
        recipe = _trained_for(num_rows, models[number % len(models)], seed=number // len(models))
        _write_run(folder / recipe.folder_name, recipe, num_rows)
    return f"{num_runs:,} runs of {num_rows:,} rows"


def _trained_for(num_rows: int, recipe: Recipe, seed: int) -> Recipe:
    """`recipe` with as many steps as it takes to log so many rows."""
    train = recipe.train.model_copy(update={"steps": num_rows * recipe.train.log_every})
    return recipe.model_copy(update={"train": train, "seed": seed})


def _write_run(folder: Path, recipe: Recipe, num_rows: int) -> None:
    """A finished run as `bench.run` writes it, with random numbers in the place of measured ones."""
    write_config(recipe, folder)
    random = np.random.default_rng([recipe.seed, *recipe.label.encode()])
    write_model(recipe, folder)
    gmacs = forward_gmacs(recipe.model)
    session = {"time": "2026-01-01T00:00:00+0000", "device": "cpu x86_64", "precision": "fp32", "commit": "0" * 12}
    _write_lines(folder / "sessions.jsonl", [{**session, "host": "n1", "world_size": 1, "resumed_from_step": 0}])
    steps = recipe.train.log_every * np.arange(1, num_rows + 1)
    mse, vb, grad_norm, speed = random.random((4, num_rows)).tolist()
    _write_lines(
        folder / "train.jsonl",
        [
            {
                "step": step,
                "loss": mse[row] + vb[row],
                "mse": mse[row],
                "vb": vb[row],
                "lr": recipe.train.learning_rate,
                "grad_norm": grad_norm[row],
                "images_per_s": 1e4 * speed[row],
                "gmacs_spent": 3 * gmacs * recipe.train.batch_size * step,
            }
            for row, step in enumerate(steps.tolist())
        ],
    )
    (folder / "samples").mkdir()
    _write_lines(folder / "evals.jsonl", [_evaluation(recipe, step, random) for step in recipe.train.kept_steps()])
    samples = random.integers(0, 256, (250, *recipe.data.facts.image_shape), dtype=np.uint8)
    np.save(folder / f"samples/{recipe.train.steps}.npy", samples)
    _write_lines(folder / "finished.json", [{"step": recipe.train.steps, "time": "2026-01-01T01:00:00+0000"}])


def _evaluation(recipe: Recipe, step: int, random: np.random.Generator) -> dict[str, Any]:
    """A row of evals.jsonl; only the samples of the last step are there, which are the ones that are read."""
    names = ("fid", "fid_percent", "kid", "kid_std", "inception_score", "inception_score_std", "precision", "recall")
    return {
        "step": step,
        "weights": "ema",
        **sampling_key(recipe.evaluation, recipe.diffusion, "pixels"),
        "reference": "digits-1797-00000000",
        "extractor": "digits-cnn-00000000",
        "extractor_accuracy": 0.98,
        "kid_subset_size": recipe.evaluation.kid_subset_size,
        **dict(zip(names, random.random(len(names)).tolist(), strict=True)),
        "sampling_images_per_s": 1e4 * random.random(),
        "samples": f"samples/{step}.npy",
    }


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
