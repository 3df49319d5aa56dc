"""Networks of clips are trained, stopped and continued, kept and sampled as those of images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.data import data_part
from bench.data.decoders import Pixels
from bench.device import PLAIN, Modes
from bench.errors import InputError
from bench.files import checkpoint
from bench.parallel import Parallel
from bench.recipe import Recipe, parse_recipe
from bench.run import build_model, build_trainer
from bench.sample import Sampling, sample
from bench.train import Trainer
from models.registry import configure, family_of

CPU = torch.device("cpu")
STEPS = 4
OF_CLIPS: dict[str, Any] = {"frames": 8, "input_size": 12, "in_channels": 1, "num_classes": 10}
DIT: dict[str, Any] = {
    "name": "VideoDiT", "depth": 1, "hidden_size": 8, "num_heads": 2, "patch_frames": 2, "patch_size": 4, **OF_CLIPS,
}  # fmt: skip
UNET: dict[str, Any] = {
    "name": "UNet3D", "channels": 4, "levels": 3, "layers": 1, "attention_size": 4, "head_size": 8, "groups": 4,
    **OF_CLIPS,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "full": DIT,
    "sequential": {**DIT, "attention": "sequential", "block": "adaln-single", "patch_frames": 3},
    "unet": UNET,
}


@pytest.mark.parametrize("name", [n for family in ("VideoDiT", "UNet3D") for n in family_of(family).presets])
def test_presets_of_digits_are_of_the_sizes_of_the_data(name: str) -> None:
    config = configure(name)
    assert ("digits" in name) is (config.input_shape == data_part("moving-digits").facts("moving-digits", None).shape)


def recipe_of(network: str, **options: Any) -> Recipe:
    content = {
        "label": network,
        "model": {**NETWORKS[network], **options},
        "data": {"name": "moving-digits"},
        "train": {"steps": STEPS, "batch_size": 4, "learning_rate": 1e-2, "ema_decay": 0.9, "save_every": 2},
        "evaluation": {
            "sampling_steps": 3,
            "clip_denoised": True,
            "num_samples": 6,
            "extractor": "moving-digits-cnn",
            "kid_subset_size": 6,
        },
    }
    return parse_recipe(content, "recipe.yaml")


def trainer_of(recipe: Recipe, folder: Path, dataset: Any, modes: Modes = PLAIN) -> Trainer:
    folder.mkdir(exist_ok=True)
    return build_trainer(recipe, dataset, folder, 0.5, Parallel(modes=modes))


@pytest.fixture(scope="module")
def moving_digits() -> Any:
    return recipe_of("full").data.load(CPU)


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_tensors(folder / "checkpoints" / f"state-{STEPS:08d}.safetensors")[0]


@pytest.mark.parametrize("network", NETWORKS)
def test_resumed_equals_uninterrupted_bit_for_bit(network: str, tmp_path: Path, moving_digits: Any) -> None:
    recipe = recipe_of(network)
    trainer_of(recipe, tmp_path / "whole", moving_digits).train_until(STEPS)
    trainer_of(recipe, tmp_path / "parts", moving_digits).train_until(3)
    resumed = trainer_of(recipe, tmp_path / "parts", moving_digits)
    resumed.resume(at_most=STEPS)
    assert resumed.step == 2
    resumed.train_until(STEPS)
    whole, parts = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    kept = load_file(tmp_path / "whole" / "checkpoints" / f"ema-{STEPS:08d}.safetensors")
    build_model(recipe, CPU).load_state_dict(kept)


@pytest.mark.parametrize("network", ["full", "sequential"])
def test_activations_that_are_computed_again_change_no_bit(network: str, tmp_path: Path, moving_digits: Any) -> None:
    for name, modes in (("kept", PLAIN), ("again", Modes(checkpoint_activations=True))):
        trainer_of(recipe_of(network), tmp_path / name, moving_digits, modes).train_until(STEPS)
    kept, again = state_of(tmp_path / "kept"), state_of(tmp_path / "again")
    assert [name for name in kept if not torch.equal(kept[name], again[name])] == []


@pytest.mark.parametrize("network", NETWORKS)
def test_samples_are_clips_and_do_not_depend_on_the_batch(network: str) -> None:
    recipe = recipe_of(network)
    model: nn.Module = build_model(recipe, CPU).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)

    def made(start: int, stop: int) -> torch.Tensor:
        return sample(model, Sampling.of(recipe), Pixels(), start, stop, CPU, "fp32")

    together = made(0, 6)
    assert together.shape == (6, 1, 8, 12, 12)
    assert together.float().std() > 1
    apart = torch.cat([made(0, 2), made(2, 6)])
    difference = (together.int() - apart.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01


def test_a_clip_of_other_sizes_than_the_datas_is_refused_with_the_recipe() -> None:
    for options in ({"frames": 4}, {"in_channels": 3}, {"patch_frames": 9}, {"num_classes": 9}):
        with pytest.raises(InputError, match="model"):
            recipe_of("full", **options)
