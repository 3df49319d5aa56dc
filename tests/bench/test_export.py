"""Exported runs, loaded by diffusers: the same latents as the suite's own sampler gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.utils import dynamic_modules_utils
from huggingface_hub import ModelCard
from latent_runs import load_model, make_run, recipe_of, save_vae
from safetensors.torch import load_file
from sampled import sample_ddim
from torch import Tensor
from typer.testing import CliRunner

import models
from bench.commands.export import export as export_command
from bench.data.vae import load_vae
from bench.errors import InputError
from bench.export.pipeline import export
from bench.files.run_folder import read_config, weights_path
from bench.objectives.diffusion import respaced_steps
from bench.objectives.iddpm import IDDPMOptions
from bench.samplers.dit_pipeline import scheduler
from bench.samplers.guidance import guided


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file outside the test's folder: the caches of ditbench and diffusers, and the latents."""
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny autoencoder, its scale far from 1."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vaes") / "tiny-vae"
    save_vae(folder, latent_channels=4)
    return folder


def open_pipeline(folder: Path) -> DiTPipeline:
    pipeline = DiTPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents_of(pipeline: DiTPipeline, monkeypatch: pytest.MonkeyPatch, **call: Any) -> Tensor:
    """What a call of the pipeline gives to the autoencoder, times its scale."""
    given = []
    decode = pipeline.vae.decode

    def record(latents: Tensor, *args: Any, **options: Any) -> Any:
        given.append(latents)
        return decode(latents, *args, **options)

    monkeypatch.setattr(pipeline.vae, "decode", record)
    pipeline(generator=torch.Generator().manual_seed(5), output_type="np", **call)
    return given[0] * 0.18215


@torch.no_grad()
def expected_latents(model: Any, labels: list[int], scale: float, num_steps: int, timesteps: int = 1000) -> Tensor:
    shape = (len(labels), 4, 8, 8)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    network = guided(model, torch.tensor(labels), model.null_label, 4, scale, None)
    return sample_ddim(network, num_steps, noise, clip=False, options=IDDPMOptions(timesteps))


@pytest.mark.parametrize("num_classes", [3, 1000])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_pipeline_samples_the_suites_latents(
    tmp_path: Path, vae: Path, monkeypatch: pytest.MonkeyPatch, num_classes: int, scale: float
) -> None:
    recipe = recipe_of(vae, num_classes)
    run = make_run(tmp_path / "run", recipe)
    export(run, tmp_path / "out")
    labels = [0, num_classes - 1, 1]
    expected = expected_latents(load_model(recipe, run, 20), labels, scale, num_steps=4)
    pipeline = open_pipeline(tmp_path / "out")
    actual = latents_of(pipeline, monkeypatch, class_labels=labels, guidance_scale=scale, num_inference_steps=4)
    assert expected.std() > 0.5
    assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_another_step_of_a_shorter_process(tmp_path: Path, vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(vae, timesteps=50, learn_sigma=False)
    run = make_run(tmp_path / "run", recipe)
    export(run, tmp_path / "out", step=10)
    expected = expected_latents(load_model(recipe, run, 10), [0, 2], 1.0, num_steps=7, timesteps=50)
    pipeline = open_pipeline(tmp_path / "out")
    actual = latents_of(pipeline, monkeypatch, class_labels=[0, 2], guidance_scale=1.0, num_inference_steps=7)
    assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_the_pipeline_decodes_with_the_recipes_decoder(tmp_path: Path, vae: Path) -> None:
    recipe = recipe_of(vae)
    run = make_run(tmp_path / "run", recipe)
    export(run, tmp_path / "out")
    latents = expected_latents(load_model(recipe, run, 20), [0, 1], 1.0, num_steps=4)
    expected = load_vae(str(vae), torch.device("cpu"), offline=True).decode(latents)
    generator = torch.Generator().manual_seed(5)
    pipeline: Any = open_pipeline(tmp_path / "out")
    images = pipeline([0, 1], 1.0, generator, num_inference_steps=4, output_type="np").images
    difference = np.abs(255 * np.asarray(images).transpose(0, 3, 1, 2) - expected.numpy())
    assert expected.float().std() > 10
    assert difference.max() < 0.6  # one rounds to whole grey levels, the other does not


@pytest.mark.parametrize("num_steps", [2, 10, 25, 50, 100, 250, 1000])
def test_the_scheduler_is_the_suites_ddim(num_steps: int) -> None:
    def network(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        return torch.sin(x + t.view(-1, 1, 1, 1) / 300)

    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = sample_ddim(network, num_steps, noise, clip=False)
    ours, x = scheduler(1000), noise
    ours.set_timesteps(num_steps)
    assert ours.timesteps.tolist() == respaced_steps(1000, num_steps).flip(0).tolist()
    for t in ours.timesteps:
        x = ours.step(network(x, t.expand(2)), t, x).prev_sample
    assert torch.allclose(x, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_the_scheduler_refuses_what_it_does_not_do() -> None:
    ours = scheduler(1000)
    for num_steps in (1, 1001):
        with pytest.raises(ValueError, match=f"num_inference_steps: {num_steps} is not in 2 .. 1000"):
            ours.set_timesteps(num_steps)
    ours.set_timesteps(2)
    with pytest.raises(ValueError, match=r"eta: 0\.5"):
        ours.step(torch.zeros(1), 999, torch.zeros(1), eta=0.5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> Path:
    """A folder with the run `run` and its last weights exported to `out`; only read by tests."""
    folder = tmp_path_factory.mktemp("exported")
    make_run(folder / "run", recipe_of(vae))
    export(folder / "run", folder / "out")
    return folder


def test_without_trust_nothing_is_computed(exported: Path) -> None:
    """Plain diffusers' classes would take these weights and compute something else."""
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiTPipeline.from_pretrained(exported / "out")
    with pytest.raises(NotImplementedError, match="official_frequencies"):
        DiTTransformer2DModel.from_pretrained(exported / "out" / "transformer")


@pytest.mark.slow
def test_it_loads_where_the_suite_is_not_installed(exported: Path, tmp_path: Path) -> None:
    script = """
import sys
sys.modules.update(dict.fromkeys(["models", "bench", "sweeps", "analysis"]))  # importing one of them fails
import torch
from diffusers import DiTPipeline
from safetensors.torch import save_file
pipeline = DiTPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
x, t, y = torch.linspace(-1, 1, 768).view(3, 4, 8, 8), torch.tensor([999, 3, 500]), torch.tensor([0, 2, 1000])
save_file({"output": pipeline.transformer(x, t, y).sample.detach().contiguous()}, sys.argv[2])
"""
    command = [sys.executable, "-I", "-c", script, str(exported / "out"), str(tmp_path / "output.safetensors")]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120)
    x, t = torch.linspace(-1, 1, 768).view(3, 4, 8, 8), torch.tensor([999, 3, 500])
    with torch.no_grad():
        expected = load_model(read_config(exported / "run"), exported / "run", 20)(x, t, torch.tensor([0, 2, 3]))
    assert torch.allclose(load_file(tmp_path / "output.safetensors")["output"], expected, rtol=1e-4, atol=2e-5)


def test_only_the_null_label_is_mapped(exported: Path) -> None:
    transformer = open_pipeline(exported / "out").transformer
    with pytest.raises(IndexError):
        transformer(torch.zeros(1, 4, 8, 8), torch.tensor([0]), torch.tensor([4]))


def test_who_may_read_one_of_its_files_may_read_all(exported: Path) -> None:
    """safetensors makes files for their owner alone."""
    modes = {path.stat().st_mode for path in (exported / "out").rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_weights_come_back_bit_for_bit(exported: Path) -> None:
    weights = load_file(weights_path(exported / "run" / "checkpoints", 20))
    for folder in (exported / "out", exported / "out" / "transformer"):
        model = models.load_pretrained(folder)
        assert model.arch == read_config(exported / "run").model.architecture()
        state = model.state_dict()
        assert state.keys() == weights.keys()
        assert [name for name in weights if not torch.equal(state[name], weights[name])] == []


def test_the_card_goes_with_it(exported: Path) -> None:
    """With the scores of this step only: those of others are not scores of these weights."""
    data: Any = ModelCard.load(exported / "out" / "README.md").data
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {"fid": 32.5, "kid": 0.25}
    assert {result.metric_args["step"] for result in data.eval_results} == {20}
    text = (exported / "out" / "README.md").read_text()
    assert "| c0ffee |" in text
    assert "| tiny-vae@" in text


def write_index(folder: Path, vae: Path, classes: list[str]) -> None:
    """An index of latents without the latents."""
    folder.mkdir(parents=True)
    nothing = "0" * 64
    index = {
        "format": 1,
        "name": "shapes",
        "count": 5000,
        "num_classes": len(classes),
        "classes": classes,
        "image_size": 64,
        "latent_shape": [4, 8, 8],
        "scale_factor": 0.18215,
        "vae": {"name": str(vae), "sha256": nothing},
        "precision": "fp32",
        "mean": [0.0] * 4,
        "std": [1.0] * 4,
        "probe": {"indices": [0], "mean": [0.0] * 4, "std": [1.0] * 4},
        "shards": [{"file": "shard-00000.npy", "count": 5000, "sha256": nothing}],
        "labels": {"file": "labels.npy", "sha256": nothing},
        "corrupt": [],
        "versions": {},
    }
    (folder / "index.json").write_text(json.dumps(index))


def test_names_of_classes_come_from_the_latents(tmp_path: Path, vae: Path) -> None:
    write_index(tmp_path / "data" / "shapes", vae, ["circle", "square", "star"])
    export(make_run(tmp_path / "run", recipe_of(vae)), tmp_path / "out")
    assert open_pipeline(tmp_path / "out").get_label_ids(["star", "circle"]) == [2, 0]


def test_other_latents_of_that_name_are_an_error(tmp_path: Path, vae: Path) -> None:
    write_index(tmp_path / "data" / "shapes", vae, ["circle", "square"])
    with pytest.raises(InputError, match="num_classes"):
        export(make_run(tmp_path / "run", recipe_of(vae)), tmp_path / "out")


def test_another_autoencoder(tmp_path: Path, vae: Path) -> None:
    torch.manual_seed(3)
    save_vae(tmp_path / "other", latent_channels=4)
    export(make_run(tmp_path / "run", recipe_of(vae)), tmp_path / "out", vae=str(tmp_path / "other"))
    name = "diffusion_pytorch_model.safetensors"
    copied, given = load_file(tmp_path / "out" / "vae" / name), load_file(tmp_path / "other" / name)
    assert copied.keys() == given.keys()
    assert all(torch.equal(copied[key], given[key]) for key in given)
    assert "| other@" in (tmp_path / "out" / "README.md").read_text()


def test_the_command(tmp_path: Path, vae: Path) -> None:
    run = make_run(tmp_path / "run", recipe_of(vae))
    app = typer.Typer()
    app.command()(export_command)
    arguments = [str(run), "--out", str(tmp_path / "out"), "--step", "10", "--vae", str(vae), "--offline"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "out")
    assert "EMA weights of step 10" in (tmp_path / "out" / "README.md").read_text()
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, InputError)
