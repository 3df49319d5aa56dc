"""What looking at a large sweep costs, planning it and submitting it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from bench.files.run_folder import write_config
from bench.perf.commands import ditbench
from bench.perf.document import OURS
from bench.perf.turns import Measure, timed
from sweeps.expand import load_sweep, run_folders

STEPS_A_ROW = 4
STATUS_SECONDS = 2.0  # target


def launching(folder: Path, num_runs: int = 1000, num_rows: int = 100_000) -> list[Measure]:
    """Looking at a sweep of running and finished runs, planning it and writing its jobs anew, as whole processes.

    It is made in `folder`. All runs have the metric files of one, by hard links: they differ in nothing that costs time
    but the disk's cache. SLURM is not asked: there is no PATH.
    """
    path = _make_study(folder, num_runs, num_rows)
    cluster = ["--cluster", "slurm-example", "--runs", folder / "none"]
    status = ditbench("sweep", "status", path, "--runs", folder, path="")
    ways = {
        f"plan of {num_runs:,} runs": ditbench("sweep", "plan", path, *cluster, path=""),
        f"submission of {num_runs:,} runs, dry": ditbench("sweep", "submit", path, "--dry-run", *cluster, path=""),
    }
    looked_at = f"status of {num_runs:,} runs of {num_rows:,} rows"
    return [
        Measure(looked_at, timed({OURS: status}), targets={OURS: STATUS_SECONDS}),
        *(Measure(what, timed({OURS: way})) for what, way in ways.items()),
    ]


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
