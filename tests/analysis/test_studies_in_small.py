"""Every shipped study in small: from its recipes to tables, figures, its verdict and its report.

The networks are as in the study; their runs are made up, but for README's own example, which is trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from run_folders import evaluation, write_lines
from typer.testing import CliRunner

from bench.closed_form import forward_gmacs, num_parameters
from bench.recipe import Recipe
from bench.run_folder import write_config
from ditbench import app
from sweeps.expand import load_sweep, run_folders

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "sweeps" / "studies"
# Of a study with scores, losses and samples.
ALWAYS = {"bubbles", "fid_vs_steps", "sample_grid", "gflops_vs_fid", "training_compute", "metrics", "training_loss"}
LAW = {"fitted_law", "residuals"}
# What else is drawn of each shipped study.
DRAWN: dict[str, set[str]] = {
    "blocks": {"blocks"},
    "digits": LAW,
    "digits-advice": LAW | {"seeds"},
    "digits-advice-again": LAW | {"seeds"},
    "digits-advice-confirm": LAW | {"seeds"},
    "digits-held-out": LAW | {"seeds"},
    "digits-quick": LAW,
    "digits-seeds": LAW | {"seeds"},
    "digits-timestep-init": {"residuals", "seeds"},
    "scaling": LAW,
    "xl2-512": set(),
    "xl2-long": set(),
}
# How much worse than adaln-zero a made-up score is, as a factor; the order is the paper's.
WORSE = {"adaln-zero": 1.0, "adaln": 1.3, "cross-attention": 1.4, "in-context": 1.8}


def ditbench(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def made_up_fid(recipe: Recipe, step: int) -> float:
    """Falls with compute and steps; a design, a model and a seed each have their own part in it."""
    arch = recipe.model.architecture()
    level = 100 * forward_gmacs(arch) ** -0.2 * (1 + 0.5 * recipe.train.steps / (step + recipe.train.steps))
    start = 1.1 if arch.timestep_init_std == 0.02 and recipe.data.name == "digits" else 1.0
    noise = np.random.default_rng(int(recipe.id, 16)).normal(scale=0.02)
    return float(level * WORSE[arch.block] * start * np.exp(noise))


def scored(recipe: Recipe, step: int) -> dict[str, Any]:
    fid, asked = made_up_fid(recipe, step), recipe.evaluation
    latents = asked.decoder is not None
    conditions: dict[str, Any] = {
        "sampling_steps": asked.sampling_steps,
        "clip_denoised": asked.clip_denoised,
        "decoder": f"{asked.decoder}@1234" if latents else None,
        "num_samples": asked.num_samples,
        "labels": asked.labels,
        "reference": f"{asked.reference}-abcd" if latents else "digits-1797-abcd",
        "extractor": f"{asked.extractor}-abcd",
        "kid_subset_size": asked.kid_subset_size,
        "extractor_accuracy": None if latents else 0.98,
    }
    scores = {"fid": fid, "fid_percent": fid / 5, "kid": fid / 1000, "inception_score": 1 + 200 / fid}
    return evaluation("S/4", step, 0, **conditions, **scores)


def write_run(recipe: Recipe, axes: dict[str, str], folder: Path) -> None:
    """A finished run as `bench` leaves it, with made-up scores at the steps that the recipe keeps."""
    write_config(recipe, folder, axes)
    arch = recipe.model.architecture()
    gmacs = forward_gmacs(arch)
    model = {
        "name": recipe.model.name,
        "block": arch.block,
        "params": num_parameters(arch),
        "gmacs": gmacs,
        "tokens": arch.num_tokens,
        "patch_size": arch.patch_size,
        "hidden_size": arch.hidden_size,
        "depth": arch.depth,
        "num_heads": arch.num_heads,
        "input_size": arch.input_size,
    }
    (folder / "model.json").write_text(json.dumps(model))
    session = {"time": "2024-01-01T00:00:00Z", "host": "node", "device": "cpu", "precision": "fp32", "torch": "2.6"}
    write_lines(folder / "sessions.jsonl", [session | {"commit": "c0ffee", "resumed_from_step": 0, "threads": 1}])
    train = recipe.train
    rates = {"lr": train.learning_rate, "grad_norm": 0.3, "images_per_s": 1000.0}
    losses = [
        {"step": step, "loss": made_up_fid(recipe, step) / 1000, "mse": 0.1, "vb": 0.01, **rates}
        | {"gmacs_spent": 3 * gmacs * train.batch_size * step}
        for step in range(train.steps // 20, train.steps + 1, train.steps // 20)
    ]
    write_lines(folder / "train.jsonl", losses)
    write_lines(folder / "evals.jsonl", [scored(recipe, step) for step in train.kept_steps()])
    (folder / "samples").mkdir()
    noise = np.random.default_rng(int(recipe.id, 16))
    np.save(folder / "samples" / f"{train.steps}.npy", noise.integers(0, 256, (10, 1, 8, 8), dtype=np.uint8))
    (folder / "finished.json").write_text(json.dumps({"step": train.steps, "time": "2024-01-01T01:00:00Z"}))


def finished(study: Path, folder: Path) -> Path:
    """The results of a study whose runs have all finished."""
    sweep = load_sweep(study)
    folders = run_folders(sweep, folder / "runs")
    for recipe in sweep.recipes:
        write_run(recipe, sweep.axes[recipe.id], folders[recipe.id])
    results = folder / "results" / sweep.name
    ditbench("collect", folder / "runs" / sweep.name, "--out", results)
    return results


def drawn(results: Path) -> set[str]:
    """The figures that `ditbench figure all` writes."""
    ditbench("figure", "all", "--source", results, "--out", results / "figures")
    return {path.stem for path in (results / "figures").glob("*.png")}


def plotted(results: Path, stem: str) -> Any:
    return pd.read_csv(results / "figures" / f"{stem}.csv")


def compared(*arguments: object) -> dict[str, Any]:
    return json.loads(ditbench("compare", *arguments, "--format", "json"))


def with_seeds(study: str, seeds: Sequence[int], folder: Path) -> Path:
    path = folder / f"{study}.yaml"
    path.write_text(yaml.safe_dump({"extends": str(SHIPPED / f"{study}.yaml"), "product": {"seed": list(seeds)}}))
    return path


def test_every_shipped_study_is_here() -> None:
    assert sorted(DRAWN) == sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_a_shipped_study_is_collected_drawn_and_reported(tmp_path: Path, name: str) -> None:
    study = SHIPPED / f"{name}.yaml"
    results = finished(study, tmp_path)
    assert drawn(results) == ALWAYS | DRAWN[name]
    models = {(recipe.model.architecture(), recipe.model.block) for recipe in load_sweep(study).recipes}
    points = plotted(results, "gflops_vs_fid")
    assert points["label"].is_unique and len(points) == len(models)
    curves = plotted(results, "fid_vs_steps")
    assert set(curves["label"]) == set(points["label"])
    ditbench("report", results)
    page = (results / "report.html").read_text(encoding="utf-8")
    assert page.count("<picture") >= 5
