"""Run folders of the DiT paper's models, trained and scored by its protocol but for what a test changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from run_folders import evaluation, write_lines, write_run

FT_MSE, FT_EMA = "stabilityai/sd-vae-ft-mse@0a1b2c3d", "stabilityai/sd-vae-ft-ema@4e5f6a7b"
PAPERS_TRAINING = {"batch_size": 256, "learning_rate": 1e-4, "weight_decay": 0.0, "ema_decay": 0.9999}
PAPERS_TRAINING |= {"label_dropout": 0.1}
# As `bench` writes an evaluation by the paper's protocol (Table 4).
PAPERS_EVALUATION: dict[str, Any] = {
    "weights": "ema",
    "sampler": "ddpm",
    "sampling_steps": 250,
    "clip_denoised": False,
    "guidance_scale": 1.0,
    "guidance_channels": None,
    "decoder": FT_MSE,
    "num_samples": 50_000,
    "labels": "uniform",
    "reference": "adm-imagenet-256-10000-89abcdef",
    "extractor": "inception-v3-compat-6726825d",
    "kid_subset_size": 1000,
}
GUIDED = {"guidance_channels": 3, "decoder": FT_EMA}
# Of the suite's own count (results/flops.csv).
GMACS = {"S/2": 6.058, "B/4": 5.566, "XL/2": 118.638}
AT_512 = {"data": "imagenet-512-latents", "gmacs": 524.604, "reference": "adm-imagenet-512-1000-01234567"}


def run(
    sweep: Path,
    label: str,
    evaluations: list[dict[str, Any]],
    data: str = "imagenet-256-latents",
    gmacs: float | None = None,
    **train: Any,
) -> Path:
    """A run of one of the paper's models, trained as in the paper but for `train`, with these evaluations."""
    folder = write_run(sweep, label, steps=(500,))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["recipe"]["data"]["name"] = data
    config["recipe"]["train"] |= {"steps": 400_000, **PAPERS_TRAINING, **train}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    model = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(model | {"gmacs": gmacs or GMACS[label]}))
    write_lines(folder / "evals.jsonl", [evaluation(label, 500, **PAPERS_EVALUATION) | row for row in evaluations])
    return folder
