"""NaN and infinity never become images, features or scores: one line, and nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import tiny
from safetensors.torch import load_file, save_file
from test_vae import WEIGHTS, save_vae
from torch import Tensor, nn

import models
from bench.data.decoders import Pixels
from bench.data.images import ArrayImages
from bench.data.pixels import to_uint8
from bench.data.vae import load_vae
from bench.errors import InputError, RunError
from bench.files import checkpoint
from bench.files.run_folder import weights_path, write_config
from bench.parallel import SINGLE
from bench.run import build_model
from bench.sample import Sampling, make_samples
from bench.score.features import extract
from bench.stopping import StopRequest
from bench.weights import load_weights_of
from ditbench import main

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with the weights of its last step, one of which is NaN."""
    recipe = tiny()
    folder = tmp_path / recipe.folder_name
    write_config(recipe, folder)
    weights = models.create_model(**recipe.model.arguments()).state_dict()
    weights["blocks.0.mlp.fc1.weight"][0, 0] = float("nan")
    checkpoint.save_tensors(weights_path(folder / "checkpoints", 12), weights)
    return folder


def test_weights_of_a_run_are_refused_by_file_and_tensor(run: Path) -> None:
    for name in (run, run / "checkpoints" / "ema-00000012.safetensors"):
        with pytest.raises(InputError, match=r"ema-00000012\.safetensors: blocks\.0\.mlp\.fc1\.weight: 1 of .* finite"):
            load_weights_of(str(name), None, offline=True)


def test_the_command_writes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "samples.npy"
    monkeypatch.setattr(sys, "argv", ["ditbench", "sample", str(run), "--out", str(out), "--num-samples", "4"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "blocks.0.mlp.fc1.weight" in line
    assert list((tmp_path / "out").iterdir()) == []


def made(tmp_path: Path, load_model: Callable[[], nn.Module] | None = None, **evaluation: Any) -> str:
    """What is said of samples that cannot be made; nothing of them is left."""
    recipe = tiny(evaluation={"num_samples": 10, "kid_subset_size": 5, **evaluation})
    arguments = (Sampling.of(recipe), {"weights": "some"}, load_model or (lambda: noisy(recipe)), Pixels(), CPU, "fp32")
    with pytest.raises(RunError) as caught:
        make_samples(tmp_path / "samples.npy", *arguments, SINGLE, StopRequest())
    assert list(tmp_path.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def noisy(recipe: Any) -> nn.Module:
    """Of the freshly initialised model every prediction is 0, guided or not."""
    model = build_model(recipe, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model


class Huge(nn.Module):
    """Finite, and near the largest float32; of the other sign for the null label."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y == 10, -1e36, 1e36).view(-1, 1, 1, 1).expand_as(x)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("clip", [False, True])
def test_a_guidance_beyond_all_numbers(tmp_path: Path, sampler: str, clip: bool) -> None:
    """Clipped, an infinite prediction would be an image of extremes."""
    guidance = {"guidance_scale": 1e4, "guidance_channels": 1}
    message = made(tmp_path, Huge, sampler=sampler, sampling_steps=4, clip_denoised=clip, **guidance)
    assert "guidance_scale 10000" in message
    assert "not finite" in message


class Never(nn.Module):
    """Finite until the last step."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t[0] > 0, x, torch.nan)


def test_one_step_that_is_not_finite_is_enough(tmp_path: Path) -> None:
    assert "not finite" in made(tmp_path, load_model=Never, sampling_steps=4, clip_denoised=True)


def test_bytes_hide_no_nan() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[1, 0, 1, 1] = float("nan")
    for convert in (to_uint8, Pixels().decode):
        with pytest.raises(ValueError, match="1 of 3 images are not finite"):
            convert(x)
    assert to_uint8(torch.zeros(0, 1, 2, 2)).shape == (0, 1, 2, 2)


def test_an_autoencoder_with_weights_that_are_not_finite(tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    weights = load_file(folder / WEIGHTS)
    weights["decoder.conv_out.bias"][1] = float("nan")
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"{WEIGHTS}: .*decoder\.conv_out\.bias: 1 of 3 values are not finite"):
        load_vae(str(folder), CPU, offline=True)
    save_file({**weights, "decoder.conv_out.bias": torch.zeros(3, dtype=torch.int8)}, folder / WEIGHTS)
    with pytest.raises(InputError, match=rf"{WEIGHTS}: .*decoder\.conv_out\.bias: not a tensor of floats \(int8\)"):
        load_vae(str(folder), CPU, offline=True)


def test_an_autoencoder_that_gives_what_is_not_finite(tmp_path: Path) -> None:
    vae = load_vae(str(save_vae(tmp_path / "vae")), CPU, offline=True)
    z = torch.randn(5, 4, 4, 4)
    assert vae.decode(z).shape == (5, 3, 32, 32)
    with pytest.raises(ValueError, match="1 of 5 latents are not finite"):
        vae.decode(torch.cat([z[:4], torch.full((1, 4, 4, 4), torch.inf)]))
    vae.network.decoder.conv_out.bias.fill_(torch.inf)
    with pytest.raises(ValueError, match=r"5 of 5 images by vae@[0-9a-f]{8} are not finite"):
        vae.decode(z)


class Broken(nn.Module):
    """A feature network whose second layer is not finite for black images."""

    features_list = ("one", "two")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.float().flatten(1)[:, :2]
        return x, x / x


def test_features_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    pixels = np.full((6, 1, 4, 4), 9, np.uint8)
    network: Any = Broken()
    extract(ArrayImages(pixels), network, tmp_path / "whole", CPU, SINGLE, StopRequest())
    pixels[5] = 0
    with pytest.raises(RunError, match=r"images 0 to 5: layer two: 2 of 12 values are not finite"):
        extract(ArrayImages(pixels), network, tmp_path / "features", CPU, SINGLE, StopRequest())
    assert not (tmp_path / "features").exists()
