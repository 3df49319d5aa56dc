"""Trainings on a device: without a stop, stopped by SIGTERM and continued, and sampled in other batches; what differs.

    .venv/bin/python tests/support/stopped_and_continued.py FOLDER --device cuda --out results/h100

Everything goes through `ditbench run`, on digits, as a user does it: one recipe for each objective, with its samplers
and the settings of training. Prints and writes one row for each: whether all weights files are the same, byte for byte,
and the losses, and the share of the samples' pixels that differ.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

DITBENCH = Path(sys.executable).parent / "ditbench"
STOP_AFTER_ROWS = 4
NO_SIGMA = {"learn_sigma": False}
EMBEDDINGS = {"frequency_embedding_size": 64, "label_init_std": 1.0, "timestep_init_std": 0.15}
NETWORK = {"name": "DiT", "input_size": 8, "in_channels": 1, "patch_size": 2, "hidden_size": 64, "depth": 6}
KNOBS = {"qk_norm": True, "norm": "rms", "mlp": "swiglu", "positions": "rotary"}
SECTIONS: dict[str, dict[str, Any]] = {
    "model": NETWORK | {"num_heads": 4, "num_classes": 10} | EMBEDDINGS,
    "data": {"name": "digits"},
    "diffusion": {},
    "train": {"steps": 600, "batch_size": 64, "learning_rate": 2e-3, "ema_decay": 0.99, "log_every": 20},
    "evaluation": {
        "num_samples": 500,
        "extractor": "digits-cnn",
        "kid_subset_size": 100,
        "sampling_steps": 20,
        "clip_denoised": True,
    },
}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "iddpm, ddpm": {},
    "noise, ddim": {"diffusion": {"prediction": "noise"}, "evaluation": {"sampler": "ddim"}, "model": NO_SIGMA},
    "flow, heun": {"diffusion": {"objective": "flow"}, "evaluation": {"sampler": "heun"}, "model": NO_SIGMA},
    "flow, guided sde": {
        "diffusion": {"objective": "flow"},
        "evaluation": {"sampler": "sde", "guidance_scale": 1.5, "guidance_channels": None},
        "model": NO_SIGMA,
    },
    "edm, heun": {"diffusion": {"objective": "edm"}, "evaluation": {"sampler": "heun"}, "model": NO_SIGMA},
    "flow, all knobs": {
        "diffusion": {"objective": "flow", "times": "logit-normal"},
        "evaluation": {"sampler": "dpm-solver++", "ema": "std=0.1"},
        "model": NO_SIGMA | KNOBS,
        "train": {"clip_grad_norm": 1.0, "warmup_steps": 20, "schedule": "cosine", "ema_stds": [0.05, 0.1]},
    },
}


def cases(device: str) -> list[tuple[str, str]]:
    """Names and precisions."""
    more = [("flow, heun", "tf32"), ("flow, heun", "bf16")] if device == "cuda" else []
    return [*((name, "fp32") for name in CASES), *more]


def row_of(folder: Path, name: str, precision: str, device: str) -> dict[str, Any]:
    """Train one case three times, in new folders of `folder`."""
    folder.mkdir(parents=True)

    def start(run: str, batch_size: int) -> subprocess.Popen[bytes]:
        recipe = folder / f"{run}.yaml"
        content = {section: values | CASES[name].get(section, {}) for section, values in SECTIONS.items()}
        content["train"] = content["train"] | {"save_every": 50}
        content["evaluation"] = content["evaluation"] | {"batch_size": batch_size}
        recipe.write_text(yaml.safe_dump({"label": name, **content}))
        command = [DITBENCH, "run", recipe, "--folder", folder / run, "--device", device, "--precision", precision]
        with (folder / f"{run}.log").open("a") as log:
            return subprocess.Popen([*map(str, command)], stdout=log, stderr=log)

    runs = {
        "whole": start("whole", 250),
        "other batches": start("other batches", 100),
        "stopped": start("stopped", 250),
    }
    stop(runs["stopped"], folder / "stopped")
    exits = {run: process.wait() for run, process in runs.items()}
    exits["continued"] = start("stopped", 250).wait()
    if exits != {"whole": 0, "other batches": 0, "stopped": 85, "continued": 0}:
        raise RuntimeError(f"{name}, {precision}: exit statuses {exits}; logs: {folder}")
    whole, again, other = (folder / run for run in ("whole", "stopped", "other batches"))
    return {
        "case": name,
        "precision": precision,
        "same_weights": weights(whole) == weights(again),
        "same_losses": losses(whole) == losses(again),
        "pixels_that_differ": differ(whole, again),
        "fid": last(whole / "evals.jsonl")["fid"],
        "same_fid": last(whole / "evals.jsonl")["fid"] == last(again / "evals.jsonl")["fid"],
        "pixels_that_differ_in_other_batches": differ(whole, other),
    }


def stop(process: subprocess.Popen[bytes], run: Path) -> None:
    """SIGTERM once it has logged a few rows."""
    while process.poll() is None:
        if (run / "train.jsonl").exists() and len((run / "train.jsonl").read_text().splitlines()) >= STOP_AFTER_ROWS:
            process.send_signal(signal.SIGTERM)
            return
        time.sleep(0.02)


def weights(run: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in run.glob("checkpoints/*.safetensors")}


def losses(run: Path) -> list[tuple[int, float, float]]:
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows]


def differ(run: Path, other: Path) -> float:
    samples = [np.load(folder / last(folder / "evals.jsonl")["samples"]) for folder in (run, other)]
    return float((samples[0] != samples[1]).mean())


def last(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text().splitlines()[-1])


def main() -> None:
    """Run all cases, print them, and write resume.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a new folder for all runs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="folder for resume.csv")
    options = parser.parse_args()
    rows = []
    for index, (name, precision) in enumerate(cases(options.device)):
        rows.append(row_of(options.folder.resolve() / str(index), name, precision, options.device))
        print(json.dumps(rows[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "resume.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
