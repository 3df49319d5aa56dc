"""Small sweeps for the cluster of the tests, and the same runs undisturbed, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from recipes import TINY

from bench import jsonl
from bench.recipe import Recipe
from bench.run_folder import write_config
from sweeps.cluster import load_cluster
from sweeps.expand import load_sweep, run_folders
from sweeps.slurm import submissions

DITBENCH = Path(sys.executable).with_name("ditbench")
SPEEDS = ("images_per_s", "sampling_images_per_s")


def write_sweep(folder: Path, name: str, axes: dict[str, Any], train: dict[str, Any] | None = None) -> Path:
    """A sweep of tiny models on digits; `axes` as the grammar's `product`."""
    base = {key: value for key, value in TINY.items() if key != "label"}
    base["train"] = {**TINY["train"], **(train or {})}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "base": base, "product": axes}, sort_keys=False))
    return path


def write_profile(folder: Path, **changes: Any) -> Path:
    """The profile of the test cluster with other values; None removes a key."""
    profile = load_cluster("slurm-test").model_dump(mode="json", exclude_defaults=True)
    profile |= {"time_limit": "00:10:00", **changes}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in profile.items() if value is not None}))
    return path


def ditbench(*arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ditbench sweep ...`; its output is shown where a check fails."""
    command = [str(DITBENCH), "sweep", *map(str, arguments)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def submit(path: Path, profile: Path, runs: Path, *options: str) -> str:
    return ditbench("submit", path, "--cluster", profile, "--runs", runs, *options).stdout


def folders(path: Path, runs: Path) -> dict[str, Path]:
    """Label -> run folder."""
    sweep = load_sweep(path)
    by_id = run_folders(sweep, runs)
    return {recipe.label: by_id[recipe.id] for recipe in sweep.recipes}


def job_ids(study: Path, kind: str = "training", number: int = -1) -> dict[str, str]:
    """Run folder's name -> SLURM's id of its job, of the newest submission."""
    record = submissions.read_all(study)[number]
    return {
        run: str(array.task_id(index))
        for array in record.arrays
        if array.kind == kind
        for index, task in enumerate(array.tasks)
        for run in task
    }


def all_finished(path: Path, runs: Path) -> bool:
    return all((folder / "finished.json").exists() for folder in folders(path, runs).values())


def results(folder: Path) -> dict[str, Any]:
    """Scores, weights and samples of a run, byte for byte; speeds left out."""
    rows = [{k: v for k, v in row.items() if k not in SPEEDS} for row in jsonl.read(folder / "evals.jsonl")]
    files = [*folder.glob("checkpoints/ema-*"), *folder.glob("samples/*.npy")]
    return {"scores": sorted(rows, key=lambda row: row["step"]), **{path.name: path.read_bytes() for path in files}}


def train_rows(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in SPEEDS} for row in jsonl.read(folder / "train.jsonl")]


def starts(folder: Path) -> list[dict[str, Any]]:
    return jsonl.read(folder / "sessions.jsonl")


def last_step(folder: Path) -> int:
    rows = jsonl.read(folder / "train.jsonl")
    return rows[-1]["step"] if rows else 0


def undisturbed(path: Path, study: Path) -> dict[str, dict[str, Any]]:
    """Label -> results of the same runs, each in one process of this machine, without interruption."""
    sweep = load_sweep(path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = {r.label: pool.submit(_run, r.model_dump_json(), study) for r in sweep.recipes}
        return {label: results(job.result()) for label, job in jobs.items()}


def _run(recipe_json: str, study: Path) -> Path:
    import torch

    from bench.run import run

    torch.set_num_threads(1)
    recipe = Recipe.model_validate_json(recipe_json)
    folder = study / recipe.folder_name
    write_config(recipe, folder)
    run(folder, study)
    return folder
