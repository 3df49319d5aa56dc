"""A study of recipe knobs at several learning rates, from made-up run folders: one model, three seeds of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from run_folders import collect, fid_of, write_lines, write_run

from analysis.results.tables import Tables

MODEL, SEEDS = "B/2", (0, 1, 2)
RATES = (1e-3, 1e-2, 0.1)
# What each arm sets, and its scores at each rate as multiples of the plain model's at the first.
ARMS: dict[str, tuple[dict[str, Any], tuple[float, float, float]]] = {
    "plain": ({}, (1.0, 3.0, 9.0)),
    "qk_norm": ({"block": "adaln-zero qk_norm"}, (1.1, 1.5, 8.0)),
    "clip": ({"clip_grad_norm": 1.0}, (1.2, 2.0, 7.0)),
    "warm-up": ({"warmup_steps": 100}, (0.9, 1.8, 6.0)),
    "all": ({"block": "adaln-zero qk_norm", "clip_grad_norm": 1.0, "warmup_steps": 100}, (0.8, 1.2, 5.0)),
}


def fid(arm: str, rate: float, seed: int) -> float:
    return ARMS[arm][1][RATES.index(rate)] * fid_of(MODEL, 2000, seed)


def write_knob_run(sweep: Path, arm: str, rate: float, seed: int, failed: bool = False) -> None:
    """failed: given up before its first score."""
    folder = write_run(sweep, MODEL, seed)
    settings, factors = ARMS[arm]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["id"], config["label"] = f"{arm}{rate:g}s{seed}", f"{arm} {rate:g}"
    knobs = {key: value for key, value in settings.items() if key != "block"}
    config["recipe"]["train"] |= {"learning_rate": rate, **knobs}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    model = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(model | {"block": settings.get("block", "adaln-zero")}))
    factor = factors[RATES.index(rate)]
    for name, columns in (("evals", ("fid",)), ("train", ("loss",))):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        changed = [row | {column: factor * row[column] for column in columns} for row in rows]
        write_lines(folder / f"{name}.jsonl", [] if failed and name == "evals" else changed)
    if failed:
        (folder / "finished.json").unlink()
        (folder / "error.json").write_text(json.dumps({"error": "the loss or its gradient is not finite"}))
    folder.rename(folder.with_name(f"{arm}-{rate:g}-{config['id']}"))


def write_knob_study(home: Path, failed: frozenset[tuple[str, float, int]] = frozenset()) -> Tables:
    """Collected into `home`/results; `failed`: (arm, rate, seed) of those that were given up."""
    for arm in ARMS:
        for rate in RATES:
            for seed in SEEDS:
                write_knob_run(home / "runs" / "knobs", arm, rate, seed, (arm, rate, seed) in failed)
    return collect(home / "runs" / "knobs", home / "results")
