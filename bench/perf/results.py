"""What tables and figures cost, as whole processes: collecting a large sweep, drawing the published tables."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.files.run_folder import write_config, write_model
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.score.evaluate import sampling_key

LIBRARIES = ("matplotlib.figure", "pandas", "pyarrow.parquet", "scipy.optimize")  # what analysis imports
IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
COMMAND = [sys.executable, "-c", "from ditbench import main; main()"]


@dataclass(frozen=True)
class CollectCost:
    """`ditbench collect` as a whole process, imports included: rows read and checked, csv and parquet written.

    Attributes:
        runs: finished runs of the digits study's models, as many seeds as it takes.
        rows_a_run: of train.jsonl; no two alike.
        scores_a_run: of evals.jsonl.
        train_jsonl_mb: of all runs, in 1e6 bytes, in the page cache.
        rounds: how often the process was started.
        median_s, longest_s: from its start to its end.
        cpu_s: median of its processor time, of all threads, user and system.
    """

    runs: int
    rows_a_run: int
    scores_a_run: int
    train_jsonl_mb: float
    rounds: int
    median_s: float
    longest_s: float
    cpu_s: float


@dataclass(frozen=True)
class FiguresCost:
    """`ditbench figure all --source published` as a whole process.

    Attributes:
        figures: drawn, each as PNG, PDF and csv.
        rounds, median_s, longest_s, cpu_s: as for `CollectCost`.
    """

    figures: int
    rounds: int
    median_s: float
    longest_s: float
    cpu_s: float


@dataclass(frozen=True)
class ImportsCost:
    """Importing all modules of `analysis` that users need, as a whole process.

    Attributes:
        modules: imported.
        rounds, median_s, longest_s, cpu_s: as for `CollectCost`.
        libraries_cpu_s: the same of `LIBRARIES` alone.
        times_libraries: cpu_s / libraries_cpu_s.
    """

    modules: int
    rounds: int
    median_s: float
    longest_s: float
    cpu_s: float
    libraries_cpu_s: float
    times_libraries: float


def imports_cost(modules: list[str], rounds: int) -> ImportsCost:
    """Import `modules`, and the libraries alone, `rounds` times each."""
    cost, libraries = (_cost([*names], rounds, [sys.executable, "-c", IMPORT]) for names in (modules, LIBRARIES))
    return ImportsCost(
        len(modules), **cost, libraries_cpu_s=libraries["cpu_s"], times_libraries=cost["cpu_s"] / libraries["cpu_s"]
    )


def collect_cost(models: list[Recipe], num_runs: int, num_rows: int, rounds: int) -> CollectCost:
    """Collect so many made-up runs of `models`, in a temporary folder, `rounds` times."""
    recipes = [
        _trained_for(num_rows, models[number % len(models)], seed=number // len(models)) for number in range(num_runs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "many"
        for recipe in recipes:
            _write_run(sweep / recipe.folder_name, recipe, num_rows)
        cost = _cost(["collect", str(sweep), "--out", str(Path(folder) / "tables")], rounds)
        megabytes = sum(file.stat().st_size for file in sweep.glob("*/train.jsonl")) / 1e6
    scores = len(recipes[0].train.kept_steps())
    return CollectCost(num_runs, num_rows, scores, megabytes, **cost)


def figures_cost(rounds: int) -> FiguresCost:
    """Draw all that the published tables suffice for, `rounds` times."""
    with tempfile.TemporaryDirectory() as folder:
        cost = _cost(["figure", "all", "--source", "published", "--out", folder], rounds)
        drawn = len(list(Path(folder).glob("*.png")))
    return FiguresCost(drawn, **cost)


def _cost(arguments: list[str], rounds: int, command: list[str] = COMMAND) -> dict[str, Any]:
    """What `ditbench`, or another command, with these arguments costs: rounds, median_s, longest_s, cpu_s."""
    wall, cpu = [], []
    for _ in range(rounds):
        started, used = time.perf_counter(), _processor_seconds()
        subprocess.run([*command, *arguments], check=True, capture_output=True)
        wall.append(time.perf_counter() - started)
        cpu.append(_processor_seconds() - used)
    medians = {"median_s": statistics.median(wall), "cpu_s": statistics.median(cpu)}
    return {"rounds": rounds, "longest_s": max(wall), **medians}


def _processor_seconds() -> float:
    """Of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


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
