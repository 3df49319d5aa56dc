"""What `ditbench export` refuses: one line, and nothing is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from latent_runs import make_run, recipe_of, save_vae
from safetensors import SafetensorError

from bench.errors import InputError, RunError
from bench.export.pipeline import export
from bench.files.run_folder import weights_path
from bench.recipe import parse_recipe

PIXELS = {
    "model": {"name": "DiT", "depth": 1, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "input_size": 8}
    | {"in_channels": 1, "num_classes": 10},
    "data": {"name": "digits"},
    "evaluation": {"num_samples": 10, "kid_subset_size": 5},
}


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file outside the test's folder."""
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vaes") / "tiny-vae"
    save_vae(folder, latent_channels=4)
    return folder


def refused(run: Path, out: Path, match: str, **options: Any) -> None:
    """One line, and nothing is left behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(InputError, match=match) as caught:
        export(run, out, **options)
    assert "\n" not in str(caught.value)
    assert sorted(out.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ({"block": "adaln"}, r"config.yaml: model.block: adaln; diffusers has adaln-zero only"),
        ({"mlp_ratio": 2.0}, "config.yaml: model.mlp_ratio: 2.0; diffusers has 4.0 only"),
        ({"frequency_embedding_size": 64}, "model.frequency_embedding_size: 64; diffusers has 256 only"),
        ({"qk_norm": True}, "model.qk_norm: True; diffusers has False only"),
        ({"norm": "rms"}, "model.norm: rms; diffusers has layer only"),
        ({"mlp": "swiglu"}, "model.mlp: swiglu; diffusers has gelu only"),
        ({"positions": "both"}, "model.positions: both; diffusers has sincos only"),
        ({"patch_bottleneck": 3}, "model.patch_bottleneck: 3; diffusers has None only"),
        ({"class_tokens": 2}, "model.class_tokens: 2; diffusers has 0 only"),
        ({"num_classes": 1001}, "config.yaml: model.num_classes: 1001 is more than 1000"),
    ],
)
def test_models_that_diffusers_cannot_hold(tmp_path: Path, vae: Path, model: dict[str, Any], match: str) -> None:
    refused(make_run(tmp_path / "run", recipe_of(vae, **model)), tmp_path / "out", match)


@pytest.mark.parametrize("option", [{"prediction": "velocity"}, {"prediction": "x0"}, {"schedule": "cosine"}])
def test_objectives_that_the_pipeline_has_not(tmp_path: Path, vae: Path, option: dict[str, Any]) -> None:
    """DiTPipeline would take the velocity for noise."""
    content = recipe_of(vae).model_dump()
    recipe = parse_recipe({**content, "diffusion": option}, "recipe.yaml")
    ((key, value),) = option.items()
    refused(make_run(tmp_path / "run", recipe), tmp_path / "out", f"config.yaml: diffusion: iddpm {key}={value}")


def test_a_model_of_pixels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", parse_recipe(PIXELS, "recipe.yaml"))
    refused(run, tmp_path / "out", "config.yaml: data.name: digits are pixels")


def test_no_run_no_weights_no_such_step(tmp_path: Path, vae: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "out", "empty/config.yaml")
    refused(make_run(tmp_path / "new", recipe_of(vae), steps=()), tmp_path / "out", "new: has no weights yet")
    run = make_run(tmp_path / "run", recipe_of(vae))
    refused(run, tmp_path / "out", "15.*accepted: 10, 20", step=15)
    weights_path(run / "checkpoints", 20).write_bytes(b"spoilt")
    refused(run, tmp_path / "out", "ema-00000020.safetensors: damaged")
    refused(run, tmp_path / "run", "run: is there already", step=10)


def test_autoencoders_that_do_not_fit(tmp_path: Path, vae: Path) -> None:
    run = make_run(tmp_path / "run", recipe_of(vae))
    save_vae(tmp_path / "wide", latent_channels=8)
    refused(run, tmp_path / "out", "wide: has 8 latent channels, the model 4", vae=str(tmp_path / "wide"))
    refused(run, tmp_path / "out", "no-such-vae", vae="no-such-vae")


def test_a_folder_that_cannot_be_written(tmp_path: Path, vae: Path) -> None:
    run = make_run(tmp_path / "run", recipe_of(vae))
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="out: could not be written"):
        export(run, tmp_path / "file" / "out")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, vae: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = make_run(tmp_path / "run", recipe_of(vae))

    def full(*args: Any) -> None:
        raise error

    monkeypatch.setattr(shutil, "copyfile", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError, match="No space left"):
        export(run, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
