"""What every family's runs keep to, for U-Nets: resumed and sampled the same, and loaded again from their folders."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import ditbench
from recipes import TINY
from trainings import assert_same, trainer_of

from bench.data.decoders import Pixels
from bench.errors import InputError
from bench.files import checkpoint, jsonl
from bench.recipe import Recipe, parse_recipe
from bench.run import build_model
from bench.sample import Sampling, sample
from bench.weights import load_weights_of
from models.unet.cost import count
from sweeps.shipped import STUDIES

CPU = torch.device("cpu")
MODELS: dict[str, dict[str, Any]] = {
    "adm": {"name": "UNet-S", "channels": 4, "multipliers": [1, 2], "attention": [4], "learn_sigma": True},
    "ldm": {
        "name": "UNet-S", "design": "ldm", "channels": 4, "multipliers": [1, 2], "attention": [4], "num_heads": 2,
        "label_size": 6, "learn_sigma": True,
    },
}  # fmt: skip


def content(design: str, **train: Any) -> dict[str, Any]:
    return {**TINY, "label": f"U-Net {design}", "model": MODELS[design], "train": {**TINY["train"], **train}}


def recipe(design: str, **train: Any) -> Recipe:
    return parse_recipe(content(design, **train), "recipe.yaml")


@pytest.mark.parametrize("design", ["adm", pytest.param("ldm", marks=pytest.mark.slow)])
def test_the_loss_falls_and_resumed_equals_uninterrupted(design: str, tmp_path: Path) -> None:
    steps = 20
    asked = recipe(design, steps=steps, learning_rate=1e-2, checkpoint_steps=[], save_every=4)
    states = {}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        trainer = trainer_of(asked, tmp_path / name)
        if name == "parts":
            trainer.train_until(10)
            torch.rand(7)
            trainer = trainer_of(asked, tmp_path / name)
            trainer.resume(at_most=steps)
            assert trainer.step == 8
        trainer.train_until(steps)
        path = tmp_path / name / "checkpoints" / f"state-{steps:08d}.safetensors"
        states[name] = checkpoint.load_tensors(path)[0]
    assert_same(states["whole"], states["parts"])
    losses = [row["loss"] for row in jsonl.read(tmp_path / "whole" / "train.jsonl")]
    assert all(map(math.isfinite, losses)) and sum(losses[-3:]) < 0.95 * sum(losses[:3])


@pytest.mark.parametrize("design", MODELS)
def test_samples_do_not_depend_on_the_batch_split(design: str) -> None:
    asked = recipe(design)
    model = build_model(asked, CPU).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))

    def draw(start: int, stop: int) -> torch.Tensor:
        return sample(model, Sampling.of(asked), Pixels(), start, stop, CPU, "fp32")

    together = draw(0, 24)
    assert len(torch.unique(together)) > 10
    difference = (together.int() - torch.cat([draw(0, 7), draw(7, 24)]).int()).abs()
    assert difference.max() <= 1 and (difference > 0).double().mean() < 0.01


def test_an_id_says_what_the_network_is() -> None:
    spelled = parse_recipe({**content("adm"), "model": {**MODELS["adm"], "name": "unet-s", "groups": 2}}, "")
    assert spelled.id == recipe("adm").id != recipe("ldm").id
    changed = parse_recipe({**content("adm"), "model": {**MODELS["adm"], "attention": []}}, "")
    assert changed.id != recipe("adm").id


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (
            {"name": "UNet-S", "learn_sigma": True, "patch_size": 2},
            ["model", "patch_size", "unknown key", "multipliers"],
        ),
        ({"name": "UNet-S", "learn_sigma": True, "input_size": 16}, ["model", "(1, 16, 16)", "digits", "(1, 8, 8)"]),
        ({"name": "UNet-S", "learn_sigma": True, "num_classes": 9}, ["num_classes", "9", "10"]),
        ({"name": "UNet-S", "learn_sigma": True, "attention": [3]}, ["attention", "3", "8, 4, 2"]),
        ({"name": "UNet-S", "learn_sigma": True, "multipliers": "1,2"}, ["multipliers", "list"]),
        ({"name": "ADM-U-256"}, ["(6, 256, 256)", "digits"]),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_line(model: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_recipe({**content("adm"), "model": model}, "recipe.yaml")
    message = str(caught.value)
    assert "\n" not in message and [word for word in named if word not in message] == []


@pytest.mark.slow
def test_a_run_from_its_recipe_to_its_weights_in_another_folder(
    study: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = study("runs")
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(content("adm")))
    run = runs / "one"
    done = ditbench("run", "recipe.yaml", "--folder", run)
    assert done.status == 0, done.err
    scores = jsonl.read(run / "evals.jsonl")
    assert [row["step"] for row in scores] == [6, 12]
    model = json.loads((run / "model.json").read_text())
    config = recipe("adm").model.architecture()
    assert (model["family"], model["name"], model["params"]) == ("UNet", "UNet-S", count(config).parameters)
    loaded = load_weights_of(str(run), 12, offline=True)
    (file,) = (run / "checkpoints").glob("*ema*12.safetensors")
    copy = shutil.copy(file, tmp_path / "elsewhere.safetensors")
    again = load_weights_of(str(copy), None, offline=True)
    assert_same(dict(loaded.model.state_dict()), dict(again.model.state_dict()))
    assert again.arch == loaded.arch == config
    drawn = ditbench("sample", copy, "--num-samples", 10, "--sampling-steps", 3, "--out", "drawn.npy")
    assert drawn.status == 0, drawn.err
    exported = ditbench("export", run, "--out", "exported")
    assert exported.status == 2 and exported.err.count("\n") == 1
    assert ditbench("flops", run).status == 0


def test_the_study_at_true_sizes_says_what_is_planned() -> None:
    header = (STUDIES / "unet-imagenet.yaml").read_text(encoding="utf-8").partition("\nextends:")[0]
    plan = json.loads((STUDIES.parents[1] / "results" / "plans" / "unet-imagenet.json").read_text(encoding="utf-8"))
    hours = [f"{plan[f'{kind}_gpu_hours']:,.0f}" for kind in ("training", "scoring")]
    days = plan["wall_s"] / 86400
    assert f"{hours[0]} GPU-hours of training and {hours[1]} of scoring, {days:.1f} days" in header
    gmacs = {run["label"]: round(run["gmacs"]) for run in plan["runs"]}
    assert gmacs == {"U-Net 128": 15, "U-Net 192": 33, "U-Net 256": 57, "U-Net 320": 88, "B/2": 23, "L/2": 81}
