"""JiT and U-ViT as runs: resumed bit for bit, sampled one by one or together, loaded again, counted by the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ditbench
from recipes import TINY
from torch import Tensor, nn
from trainings import assert_same

from bench.data.decoders import Pixels
from bench.data.digits import Digits
from bench.files import checkpoint
from bench.files.run_folder import write_config
from bench.flops import cost_of
from bench.parallel import Parallel
from bench.recipe import Recipe, parse_recipe
from bench.run import build_model, build_trainer
from bench.sample import Sampling, sample
from bench.train import Trainer
from bench.weights import load_weights_of
from models.registry import configure

CPU = torch.device("cpu")
DIGITS = Digits(CPU)
SHAPE = {
    "hidden_size": 16, "num_heads": 2, "patch_size": 4, "depth": 3, "input_size": 8, "in_channels": 1,
    "num_classes": 10,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "JiT": {"name": "JiT", **SHAPE, "frequency_embedding_size": 16, "patch_bottleneck": 4, "class_tokens": 2},
    "U-ViT": {"name": "U-ViT", **SHAPE},
}


def recipe_of(family: str, **train: Any) -> Recipe:
    """Twelve steps on the digits, by the objective that JiT's paper trains with."""
    content = {
        **TINY,
        "model": MODELS[family],
        "diffusion": {"objective": "flow", "prediction": "x0", "loss": "velocity", "time_scale": 1000},
        "train": {**TINY["train"], **train},
        "evaluation": {**TINY["evaluation"], "sampler": "heun"},
    }
    return parse_recipe(content, family)


def trainer(recipe: Recipe, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    return build_trainer(recipe, DIGITS, folder, 0.5, Parallel())


def state(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load_tensors(folder / "checkpoints" / "state-00000012.safetensors")[0]


@pytest.mark.parametrize("family", MODELS)
def test_a_resumed_training_is_the_same_bit_for_bit(family: str, tmp_path: Path) -> None:
    recipe = recipe_of(family)
    trainer(recipe, tmp_path / "whole").train_until(12)
    trainer(recipe, tmp_path / "parts").train_until(7)
    torch.rand(7)
    resumed = trainer(recipe, tmp_path / "parts")
    resumed.resume(at_most=12)
    assert resumed.step == 6
    resumed.train_until(12)
    assert_same(state(tmp_path / "whole"), state(tmp_path / "parts"))


def random_model(recipe: Recipe) -> nn.Module:
    """One whose output depends on everything: a JiT as it starts gives zero."""
    model = build_model(recipe, CPU).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


@pytest.mark.parametrize("family", MODELS)
def test_a_sample_is_the_same_whatever_is_drawn_with_it(family: str) -> None:
    recipe = recipe_of(family)
    model, sampling = random_model(recipe), Sampling.of(recipe)

    def draw(start: int, stop: int) -> Tensor:
        return sample(model, sampling, Pixels(), start, stop, CPU, "fp32").int()

    together = draw(0, 60)
    assert together.float().std() > 1
    for parts in ([draw(start, start + 12) for start in range(0, 60, 12)], [draw(0, 33), draw(33, 60)]):
        apart = (torch.cat(parts) - together).abs()
        assert apart.max() <= 1 and (apart > 0).double().mean() < 0.01  # the order of sums


@pytest.mark.parametrize("family", MODELS)
def test_a_copy_of_its_weights_is_the_network_again(family: str, tmp_path: Path) -> None:
    recipe = recipe_of(family, steps=4, checkpoint_steps=[], save_every=4)
    run = tmp_path / "run"
    made = trainer(recipe, run)
    write_config(recipe, run, {})
    made.train_until(4)
    (kept,) = (run / "checkpoints").glob("ema-*.safetensors")
    copy = shutil.copy(kept, tmp_path / "copied.safetensors")
    found = [load_weights_of(str(path), None, offline=True) for path in (run, copy)]
    batch = torch.randn(2, 1, 8, 8), torch.tensor([1.0, 900.0]), torch.tensor([3, 10])
    first, again = (weights.model(*batch) for weights in found)
    assert torch.equal(first, again) and first.abs().max() > 0
    assert found[1].arch == recipe.model.architecture()

    refused = ditbench("export", run, "--out", tmp_path / "exported")
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)


@pytest.mark.slow
def test_what_a_u_vit_spends_where() -> None:
    """Of the paper's L/2 by the command; the ten long skips are maps from 2D to D, of 258 tokens each."""
    ended = ditbench("flops", "U-ViT-L/2", "--by-module", "--format", "json")
    assert ended.status == 0, ended.err
    macs = {row["module"]: row["macs"] for row in json.loads(ended.out)}
    skips = {name: cost for name, cost in macs.items() if name.endswith("skip_linear")}
    assert set(skips) == {f"blocks.{index}.skip_linear" for index in range(11, 21)}
    assert set(skips.values()) == {258 * 2 * 1024**2}
    assert macs["(all)"] == cost_of("U-ViT-L/2", configure("U-ViT-L/2")).macs
    assert macs["final_layer.conv"] == 32 * 32 * 9 * 4 * 4
    table = ditbench("flops", "u-vit-l/2", "--by-module").out
    shown = {line.split()[2] for line in table.splitlines() if line.startswith("U-ViT-L/2")}
    assert {"blocks.0", "blocks.11"} <= shown and "blocks.1" not in shown and "blocks.12" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["U-ViT-L/2", "--depth", "20"], "--depth"),
        (["U-ViT-L/2", "--block", "adaln"], "--block"),
        (["U-ViT-L/3"], "U-ViT-L/2"),
        (["JiT-B/16", "--input-size", "100"], "patch_size"),
        (["JiT"], "--hidden-size"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: list[str], said: str) -> None:
    ended = ditbench("flops", *arguments)
    assert (ended.status, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert said.removeprefix("--") in ended.err.replace("--", "")
