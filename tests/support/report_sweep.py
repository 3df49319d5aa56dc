"""A made-up sweep with all that `bench` records of its starts, for the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from run_folders import write_lines, write_run


def write_sweep(runs: Path) -> Path:
    """Three models and two seeds, trained on two devices; returns the folder `runs`."""
    for seed in (0, 1):
        for label in ("S/4", "S/2", "B/4"):
            folder = write_run(runs, label, seed)
            session = {"time": "2024-01-01T00:00:00Z", "host": "secret-node", "device": "cpu", "precision": "fp32"}
            session |= {"torch": "2.6", "python": "3.11.7", "commit": "c0ffee", "threads": 1, "world_size": 2}
            write_lines(folder / "sessions.jsonl", [session | {"resumed_from_step": 0}])
    return runs


def plan_of(sweep: Path, steps_left: int = 2000, hours: float | None = 0.01) -> Path:
    """A plan of all runs of `sweep`, as `ditbench sweep plan --json` prints it, in a file beside it."""
    runs = [yaml.safe_load(path.read_text())["id"] for path in sorted(sweep.glob("*/config.yaml"))]
    times: dict[str, Any] = {"steps_left": steps_left, "training_gpu_hours": hours, "scoring_gpu_hours": hours}
    path = sweep.parent / "plan.json"
    path.write_text(json.dumps({"runs": [{"id": run} | times for run in runs]}))
    return path
