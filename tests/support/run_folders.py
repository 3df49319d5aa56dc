"""Run folders as `bench` writes them, with made-up numbers, for the tests of `analysis`, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis.results import run_history, tables
from analysis.results.run_history import RunHistory
from analysis.results.tables import Tables
from bench.files.run_files import read_records

PATCHES = (4, 2, 1)
SIZES = ("S", "B", "L", "XL")
# Like the digits study: image of 8 x 8, the MACs grow with the width and the number of tokens.
WIDTHS = {"S": 32, "B": 64, "L": 96, "XL": 128}
LABELS = [f"{size}/{patch}" for size in SIZES for patch in PATCHES]
STEPS = (500, 1000, 1500, 2000)


def collect(sweep: Path, out: Path) -> Tables:
    """As `ditbench collect` does."""
    return tables.collect(read_records(sweep), out)


def read_histories(sweep: Path, of: Tables) -> list[RunHistory]:
    """As `ditbench report --runs` does."""
    return run_history.read_histories(read_records(sweep), of)


def gmacs_of(label: str) -> float:
    size, patch = label.split("/")
    return 12 * 4 * WIDTHS[size] ** 2 * (8 // int(patch)) ** 2 * 1e-9


def fid_of(label: str, step: int, seed: int = 0) -> float:
    """Falls with the logarithm of the compute and with the step; seeds and models scatter around that."""
    noise = np.random.default_rng([seed, LABELS.index(label)]).normal(scale=3)
    level = 60 - 18 * (np.log10(gmacs_of(label)) + 4)
    return float((level + noise) * (1 + 300 / step))


def evaluation(label: str, step: int, seed: int = 0, **changed: Any) -> dict[str, Any]:
    fid = fid_of(label, step, seed)
    row = {
        "step": step,
        "weights": "ema",
        "sampler": "ddpm",
        "sampling_steps": 250,
        "network_calls": changed.get("sampling_steps", 250),
        "clip_denoised": True,
        "guidance_scale": 1.0,
        "guidance_channels": None,
        "guidance_interval": None,
        "guide": None,
        "decoder": None,
        "num_samples": 1000,
        "labels": "balanced",
        "reference": "digits-3f2a",
        "extractor": "digits-mlp",
        "kid_subset_size": 100,
        "extractor_accuracy": 0.98,
        "fid": fid,
        "fid_percent": fid / 5,
        "kid": fid / 1000,
        "kid_std": 0.001,
        "inception_score": 1 + 200 / fid,
        "inception_score_std": 0.1,
        "precision": 0.7,
        "recall": 0.6,
        "samples": f"samples/{step}.npy",
    }
    return row | changed


def config(label: str, seed: int = 0) -> dict[str, Any]:
    recipe = {
        "model": {"name": f"DiT-{label}", "block": "adaln-zero"},
        "data": {"name": "digits"},
        "train": {"steps": STEPS[-1], "batch_size": 64},
        "evaluation": {"num_samples": 1000},
        "seed": seed,
    }
    return {"id": f"{label.replace('/', '')}{seed}".lower(), "label": label, "recipe": recipe}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(sweep: Path, label: str, seed: int = 0, steps: tuple[int, ...] = STEPS, channels: int = 1) -> Path:
    """A finished run of `label` ("S/4"), evaluated at `steps`; returns its folder."""
    size, patch = label.split("/")
    settings = config(label, seed)
    folder = sweep / f"dit-{label.replace('/', '-').lower()}-{settings['id']}"
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    model = {
        "name": f"DiT-{label}",
        "params": 12 * WIDTHS[size] ** 2 * 4,
        "gmacs": gmacs_of(label),
        "tokens": (8 // int(patch)) ** 2,
        "patch_size": int(patch),
        "hidden_size": WIDTHS[size],
        "depth": 4,
        "num_heads": 4,
        "input_size": 8,
    }
    (folder / "model.json").write_text(json.dumps(model))
    session = {"time": "2024-01-01T00:00:00Z", "host": "node1", "device": "cpu", "precision": "fp32"}
    write_lines(folder / "sessions.jsonl", [session | {"torch": "2.6", "commit": "c0ffee", "resumed_from_step": 0}])
    losses = [
        {
            "step": step,
            "loss": 1.1 / step**0.25,
            "mse": 1 / step**0.25,
            "vb": 0.1 / step**0.25,
            "lr": 1e-4,
            "grad_norm": 0.3,
            "images_per_s": 1234.5,
            "gmacs_spent": 3 * gmacs_of(label) * 64 * step,
        }
        for step in range(100, steps[-1] + 1, 100)
    ]
    write_lines(folder / "train.jsonl", losses)
    write_lines(folder / "evals.jsonl", [evaluation(label, step, seed) for step in steps])
    noise = np.random.default_rng([seed, LABELS.index(label)])
    for step in steps:
        samples = noise.integers(0, 256, (20, channels, 8, 8), dtype=np.uint8)
        np.save(folder / "samples" / f"{step}.npy", samples)
    (folder / "finished.json").write_text(json.dumps({"step": steps[-1], "time": "2024-01-01T01:00:00Z"}))
    return folder
