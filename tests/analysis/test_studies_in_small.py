"""Every shipped study in small: from its recipes to tables, figures, its verdict and its report.

The networks are as in the study; their runs are made up, but for the example of docs/runs.md, which is trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from run_folders import evaluation, write_lines
from typer.testing import CliRunner

from analysis.figures import picture
from analysis.figures.sources import open_sources
from bench.averages import name_of, snapshots_in
from bench.data.pixels import is_clip
from bench.files.run_folder import write_config, write_model
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.score.evaluate import sampling_key
from ditbench import app
from sweeps.expand import load_sweep, run_folders

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "sweeps" / "studies"
# The figure that a study is for, beside its curves over training.
PICTURE = {
    "blocks": "blocks",
    "digits": "gflops-vs-fid",
    "digits-advice": "training-compute",
    "digits-advice-again": "training-compute",
    "digits-advice-confirm": "training-compute",
    "ema": "averages",
    "ema-direct": "averages",
    "guidance": "guidance",
    "first": "gflops-vs-fid",
    "first-held-out": "seeds",
    "first-seeds": "seeds",
    "digits-held-out": "gflops-vs-fid",
    "digits-ladder": "training-compute",
    "digits-ladder-8x": "training-compute",
    "digits-longer": "training-compute",
    "digits-quick": "gflops-vs-fid",
    "digits-seeds": "seeds",
    "digits-timestep-init": "loss",
    "knobs": "settings",
    "mup": "transfer",
    "mup-starts": "transfer",
    "objectives": "blocks",
    "objectives-rates": "blocks",
    "pixels": "families",
    "pixels-rates": "settings",
    "samplers": "network-calls",
    "scaling": "gflops-vs-fid",
    "sit": "gflops-vs-fid",
    "text": "gflops-vs-fid",
    "text-cluster": "gflops-vs-fid",
    "try": "gflops-vs-fid",
    "video": "gflops-vs-fid",
    "video-cluster": "gflops-vs-fid",
    "video-unet": "gflops-vs-fid",
    "unet": "gflops-vs-fid",
    "unet-imagenet": "gflops-vs-fid",
    "xl2-512": "gflops-vs-fid",
    "xl2-long": "gflops-vs-fid",
}
# Columns of its data that tell models apart, where labels do not.
OF_MODEL = {
    "blocks": ["label", "block"],
    "settings": ["label", "design", "value"],
    "transfer": ["design", "width", "learning_rate"],
}
# With the picture of another, of which one in the fast tests shows how it comes about.
LIKE_ANOTHER = {
    "digits-advice",
    "digits-advice-again",
    "digits-advice-confirm",
    "digits-held-out",
    "digits-longer",
    "digits-quick",
    "digits-seeds",
    "digits-timestep-init",
    "ema-direct",
    "first",
    "first-held-out",
    "first-seeds",
    "objectives",
    "objectives-rates",
    "pixels-rates",
    "sit",
    "text",
    "text-cluster",
    "try",
    "unet-imagenet",
    "video-cluster",
    "video-unet",
    "xl2-512",
}
# Of so many runs that one in the fast tests, test_transfer.py, stands for them.
LARGE = {"mup", "mup-starts"}
# What `figure all` draws of any study with scores, losses and samples.
ALWAYS = {"bubbles", "fid_vs_steps", "sample_grid", "gflops_vs_fid", "training_compute", "metrics", "training_loss"}
# How much worse than adaln-zero a made-up score is, as a factor; the order is the paper's.
WORSE = {"adaln-zero": 1.0, "adaln": 1.3, "cross-attention": 1.4, "in-context": 1.8}


def ditbench(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def made_up_level(recipe: Recipe) -> float:
    """Falls with compute; a design, a model, an objective and a seed each have their own part in it."""
    arch = recipe.model.architecture()
    level = 100 * forward_gmacs(recipe.model) ** -0.2
    start = 1.1 if getattr(arch, "timestep_init_std", None) == 0.02 and recipe.data.name == "digits" else 1.0
    noise = np.random.default_rng(int(recipe.id, 16)).normal(scale=0.02)
    return float(level * WORSE.get(getattr(arch, "block", ""), 1.0) * start * np.exp(noise))


def made_up_fid(level: float, recipe: Recipe, step: int) -> float:
    """Falls with steps."""
    return level * (1 + 0.5 * recipe.train.steps / (step + recipe.train.steps))


def scored(level: float, recipe: Recipe, step: int, asked: EvaluationConfig) -> dict[str, Any]:
    latents = asked.decoder is not None
    sampled = sampling_key(asked, recipe.diffusion, f"{asked.decoder}@1234" if latents else "none")
    fid = made_up_fid(level, recipe, step) * (1 + 10 / sampled["network_calls"])
    conditions: dict[str, Any] = {
        "weights": name_of(asked.ema),
        **snapshots_in(asked.ema, recipe.train, step),
        **sampled,
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
    write_model(recipe, folder)
    gmacs, level = forward_gmacs(recipe.model), made_up_level(recipe)
    session = {"time": "2024-01-01T00:00:00Z", "host": "node", "device": "cpu", "precision": "fp32", "torch": "2.6"}
    write_lines(folder / "sessions.jsonl", [session | {"commit": "c0ffee", "resumed_from_step": 0, "threads": 1}])
    train = recipe.train
    rates = {"lr": train.learning_rate, "grad_norm": 0.3, "images_per_s": 1000.0}
    losses = [
        {"step": step, "loss": made_up_fid(level, recipe, step) / 1000, "mse": 0.1, "vb": 0.01, **rates}
        | {"gmacs_spent": 3 * gmacs * train.batch_size * step}
        for step in range(train.steps // 20, train.steps + 1, train.steps // 20)
    ]
    write_lines(folder / "train.jsonl", losses)
    own = [scored(level, recipe, step, recipe.evaluation) for step in train.kept_steps()]
    others = [
        {"score": score.name, **scored(level, recipe, score.step, score.evaluation)}
        for score in recipe.wanted_scores()
        if score.name
    ]
    write_lines(folder / "evals.jsonl", own)
    write_lines(folder / "scores.jsonl", others)
    (folder / "samples").mkdir()
    noise = np.random.default_rng(int(recipe.id, 16))
    shape = (1, 8, 12, 12) if is_clip(recipe.data.facts.image_shape) else (1, 8, 8)
    np.save(folder / "samples" / f"{train.steps}.npy", noise.integers(0, 256, (10, *shape), dtype=np.uint8))
    (folder / "finished.json").write_text(json.dumps({"step": train.steps, "time": "2024-01-01T01:00:00Z"}))


def finished(study: Path, folder: Path, of: Sequence[Recipe] | None = None) -> Path:
    """The results of a study whose runs, or those of some of its recipes, have all finished."""
    sweep = load_sweep(study)
    folders = run_folders(sweep, folder / "runs")
    for recipe in of or sweep.recipes:
        write_run(recipe, sweep.axes[recipe.id], folders[recipe.id])
    results = folder / "results" / sweep.name
    ditbench("collect", folder / "runs" / sweep.name, "--out", results)
    return results


def drawn(results: Path, name: str) -> Any:
    """The table beside a figure, whose pictures are there."""
    files = {path.suffix: path for path in map(Path, ditbench("figure", name, results).splitlines())}
    assert list(files) == [".png", ".pdf", ".csv", ".txt", ".tex"] and all(
        path.stat().st_size for path in files.values()
    )
    return pd.read_csv(files[".csv"])


def compared(*arguments: object) -> dict[str, Any]:
    return json.loads(ditbench("compare", *arguments, "--format", "json"))


def with_seeds(study: str, seeds: Sequence[int], folder: Path) -> Path:
    path = folder / f"{study}.yaml"
    path.write_text(yaml.safe_dump({"extends": str(SHIPPED / f"{study}.yaml"), "product": {"seed": list(seeds)}}))
    return path


def trained(recipe: Recipe) -> Any:
    """The model and how it is trained, but for how long: a ladder has each for several numbers of steps."""
    length = {"steps", "warmup_steps", "cooldown_steps", "checkpoint_steps"}
    shares = (
        round(steps / recipe.train.steps, 2) for steps in (recipe.train.warmup_steps, recipe.train.cooldown_steps)
    )
    return recipe.model.architecture(), recipe.diffusion.id, recipe.train.model_dump_json(exclude=length), *shares


def of_two_seeds(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Of runs that differ in their seed alone two: more say nothing more of tables and pictures."""
    but_for_it = [recipe.model_copy(update={"seed": 0}).id for recipe in recipes]
    return [recipe for i, recipe in enumerate(recipes) if but_for_it[:i].count(but_for_it[i]) < 2]


def test_every_shipped_study_has_its_picture() -> None:
    assert sorted(PICTURE) == sorted(path.stem for path in SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_ANOTHER | LARGE else []) for name in PICTURE]
)
def test_a_shipped_study_is_collected_and_drawn(tmp_path: Path, name: str) -> None:
    """That pictures become files is seen of other studies."""
    study = SHIPPED / f"{name}.yaml"
    recipes = of_two_seeds(load_sweep(study).recipes)
    models = {trained(recipe) for recipe in recipes}
    results = finished(study, tmp_path, recipes)
    sources = open_sources([str(results)])
    curves: Any = picture("fid-vs-steps", sources).data
    scored_steps = {(trained(recipe), step) for recipe in recipes for step in recipe.train.kept_steps()}
    assert len(curves) == len(curves.drop_duplicates(["label", "step"])) == len(scored_steps)
    assert curves["label"].nunique() == len(models)
    points: Any = picture(PICTURE[name], sources).data
    of_model = OF_MODEL.get(PICTURE[name], ["label"])
    assert len(points.drop_duplicates(of_model)) == len(models)


def test_the_papers_block_designs_are_one_line_each(tmp_path: Path) -> None:
    """As shipped with one seed, and with two, which answer the question."""
    results = finished(SHIPPED / "blocks.yaml", tmp_path / "one")
    table = compared(results)
    assert [row["design"] for row in table["designs"]] == ["adaln-zero", "adaln", "cross-attention", "in-context"]
    assert {row["model"] for row in table["designs"]} == {"XL/2"}
    one = compared(results, "--between", "adaln,adaln-zero")
    assert (one["better"], one["interval"], one["distinguishable"]) == ("adaln-zero", None, False)
    assert one["difference"] == pytest.approx(one["means"][1] - one["means"][0])

    results = finished(with_seeds("blocks", (0, 1, 2), tmp_path), tmp_path / "three")
    lines = drawn(results, "blocks")
    assert lines["label"].unique().tolist() == ["XL/2"]
    assert lines.groupby("block")["step"].apply(list).tolist() == [[50_000 * n for n in range(1, 9)]] * 4
    assert set(lines["num_seeds"]) == {3}
    found = compared(results, "--between", "in-context,adaln-zero")
    assert (found["better"], found["distinguishable"], found["seeds"]) == ("adaln-zero", True, [3, 3])
    assert found["interval"]["low"] > 0 and found["multiplier"] is None


def test_how_the_timestep_table_starts_is_answered_by_two_studies(tmp_path: Path) -> None:
    paper = finished(SHIPPED / "digits-timestep-init.yaml", tmp_path)
    ours = finished(SHIPPED / "digits-seeds.yaml", tmp_path)
    found = compared(paper, ours, "--by", "source")
    assert (found["better"], found["paired"], found["models"]) == (str(ours), True, [3, 3])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blocks", "xl2-long"])
def test_all_figures_and_the_report_of_a_study_of_one_model(tmp_path: Path, name: str) -> None:
    results = finished(SHIPPED / f"{name}.yaml", tmp_path)
    ditbench("figure", "all", results)
    assert {path.stem for path in results.glob("*.png")} == ALWAYS | ({"blocks"} if name == "blocks" else set())
    ditbench("report", results)
    page = (results / "report.html").read_text(encoding="utf-8")
    assert all(label in page for label in pd.read_csv(results / "runs.csv")["label"])
    assert "<svg" in page


@pytest.mark.slow
def test_the_readmes_block_example_from_submit_to_its_verdict(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own text, with fewer steps and smaller networks; really trained."""
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    (example,) = (part for part in page.split("```yaml\n")[1:] if "model.block: [adaln-zero, adaln" in part)
    content = yaml.safe_load(example.partition("```")[0])
    content["extends"] = str(SHIPPED / content["extends"])
    content["base"] = {
        "train": {"steps": 4, "checkpoint_steps": [2], "log_every": 1},
        "evaluation": {"sampling_steps": 2, "num_samples": 40, "kid_subset_size": 20},
    }
    content["product"]["size"]["XL"] = {"model.hidden_size": 24, "model.depth": 1, "model.num_heads": 2}
    (tmp_path / "my-blocks.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(features, tmp_path / "runs" / "my-blocks" / "features")
    ditbench("sweep", "submit", "my-blocks.yaml", "--cluster", "local")
    ditbench("collect", "runs/my-blocks", "--out", "results/my-blocks")
    results = Path("results/my-blocks")

    lines = drawn(results, "blocks")
    designs = {"adaln-zero", "adaln", "in-context"}
    assert {(row["label"], row["block"], row["num_seeds"]) for row in lines.to_dict("records")} == {
        ("XL/2", design, 2) for design in designs
    }
    assert sorted(set(lines["step"])) == [2, 4]
    assert set(drawn(results, "gflops-vs-fid")["label"]) == {f"XL/2 {design}" for design in designs}
    assert {row["design"] for row in compared(results)["designs"]} == designs
    verdict = compared(results, "--by", "block", "--between", "adaln,adaln-zero")
    assert verdict["models"] == ["XL/2"] and verdict["seeds"] == [2, 2]
    low, high = verdict["interval"]["low"], verdict["interval"]["high"]
    assert low < verdict["difference"] < high
    assert verdict["distinguishable"] == (low > 0)
