"""What looking at a large sweep costs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench.files.run_folder import write_config
from sweeps.expand import load_sweep, run_folders

STEPS_A_ROW = 4


def status_cost(num_runs: int, num_rows: int, repeats: int) -> dict[str, str]:
    """Seconds of `ditbench sweep status` as a whole process, for a sweep of running and finished runs made for it.

    All runs have the metric files of one, by hard links: they differ in nothing that costs time but the disk's cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _make_study(Path(folder), num_runs, num_rows)
        command = [sys.executable, "-c", "from ditbench import main; main()"]
        command += ["sweep", "status", str(path), "--runs", folder]
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
        megabytes = sum(file.stat().st_size for file in Path(folder).rglob("train.jsonl")) / 1e6
    return {
        "runs": str(num_runs),
        "rows_a_run": str(num_rows),
        "train_jsonl_mb": f"{megabytes:.0f}",
        "median_s": f"{statistics.median(seconds):.2f}",
        "longest_s": f"{max(seconds):.2f}",
        "repeats": str(repeats),
    }


def _make_study(folder: Path, num_runs: int, num_rows: int) -> Path:
    """A sweep of so many seeds, each with its metric files; every third run is finished."""
    content = {
        "extends": "digits.yaml",
        "name": "many",
        "label": "S/4 {seed}",
        "base": {"train": {"steps": num_rows * STEPS_A_ROW}},
        "product": {
            "size": {"S": {"model.hidden_size": 24, "model.depth": 3, "model.num_heads": 2}},
            "model.patch_size": [4],
            "seed": list(range(num_runs)),
        },
    }
    path = folder / "many.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    row = {"loss": 0.123456789, "mse": 0.12, "vb": 0.003, "lr": 1e-4, "grad_norm": 0.4, "images_per_s": 1234.5}
    train = folder / "train.jsonl"
    with train.open("w", encoding="utf-8") as file:
        for index in range(1, num_rows + 1):
            file.write(json.dumps({"step": index * STEPS_A_ROW, **row, "gmacs_spent": 1.0 * index}) + "\n")
    sweep = load_sweep(path)
    for number, (recipe, run) in enumerate(zip(sweep.recipes, run_folders(sweep, folder).values(), strict=True)):
        write_config(recipe, run)
        (run / "train.jsonl").hardlink_to(train)
        session = {"time": "2026-01-01T00:00:00+0000", "host": "n1", "precision": "fp32", "world_size": 1}
        (run / "sessions.jsonl").write_text(json.dumps(session) + "\n", encoding="utf-8")
        (run / "evals.jsonl").write_text(json.dumps({"step": STEPS_A_ROW, "fid": 1.5}) + "\n", encoding="utf-8")
        if number % 3 == 0:
            (run / "finished.json").write_text("{}", encoding="utf-8")
    train.unlink()
    return path
