"""Small sweeps for the cluster of the tests, and the same runs undisturbed, on this machine."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from runs import SPEEDS
from sweep_files import DITBENCH, folders

from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.recipe import Recipe
from sweeps.cluster import load_cluster
from sweeps.expand import load_sweep
from sweeps.slurm import submissions


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
