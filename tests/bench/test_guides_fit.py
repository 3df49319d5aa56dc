"""A guide of another objective, or of latents that were normalised otherwise, never guides."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ditbench
from latent_runs import make_run, recipe_of, save_vae
from pretrained_models import small

from bench.data.normalization import KEPT, Normalization, keep
from bench.errors import InputError
from bench.files import checkpoint
from bench.files.run_folder import weights_path
from bench.recipe import Recipe, parse_recipe
from bench.recipe.parts import DiffusionConfig
from bench.samplers.guide import forward_passes, guide_of_recipe
from bench.score.evaluate import check_scoring
from bench.weights import header_of

ONE = Normalization(latents="shapes", mean=(0.1, -2.0, 0.5, 3.0), std=(0.5, 2.0, 1.0, 0.25))
OTHER = ONE.model_copy(update={"mean": (0.2, -2.0, 0.5, 3.0)})
GUIDED: dict[str, Any] = {"guidance_scale": 2.0, "guidance_channels": 3}
SAMPLED = ("--num-samples", 2, "--sampling-steps", 2, "--guidance-scale", 2, "--guidance-channels", 3, "--offline")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    save_vae(folder, 4)
    return folder


def latent_run(folder: Path, vae: Path, normalization: Normalization | None, **evaluation: Any) -> Recipe:
    """A trained run's folder, on latents normalised so."""
    content = recipe_of(vae).model_dump(mode="json")
    content["data"]["normalize"] = normalization is not None
    content["evaluation"] |= evaluation
    recipe = parse_recipe(content, "recipe.yaml")
    if normalization is not None:
        folder.mkdir()
        keep(folder, normalization)
    make_run(folder, recipe)
    path = weights_path(folder / "checkpoints", 20)
    said = {**header_of(recipe, normalization), "step": "20", "weights": "ema"}
    checkpoint.save_tensors(path, checkpoint.load_tensors(path)[0], said)
    return recipe


@pytest.mark.parametrize("kind", ["folder", "file", "copy"])
@pytest.mark.parametrize("its", [None, ONE, OTHER])
@pytest.mark.parametrize("ours", [None, ONE])
def test_a_guide_sees_the_latents_of_the_guided_network(
    tmp_path: Path, vae: Path, its: Normalization | None, ours: Normalization | None, kind: str
) -> None:
    guide, folder = tmp_path / "guide", tmp_path / "run"
    latent_run(guide, vae, its)
    if kind != "folder":
        file = weights_path(guide / "checkpoints", 20)
        guide = file if kind == "file" else Path(shutil.copy(file, tmp_path / "copy.safetensors"))
    recipe = latent_run(folder, vae, ours, **GUIDED, guide=str(guide))
    command = ("sample", folder, "--out", tmp_path / "x.npy", "--guide", guide, *SAMPLED)
    if its == ours:
        check_scoring(recipe, folder, offline=True)
        assert ditbench(*command).status == 0
        return
    with pytest.raises(InputError, match=r"^evaluation\.guide: .* sees latents ") as caught:
        check_scoring(recipe, folder, offline=True)
    ended = ditbench(*command)
    for line in (str(caught.value), ended.err.strip()):
        assert "\n" not in line
        for each in (its, ours):
            assert (each.id if each else "as they are") in line
    assert ended.status == 2
    assert "--guide: " in ended.err
    assert not (tmp_path / "x.npy").exists()
    assert (folder / KEPT).exists() == (ours is not None)


def others(path: Path, **args: Any) -> Path:
    """A checkpoint of the official layout, with what a training script keeps beside its weights."""
    torch.save({"ema": small().state_dict(), "args": {"num_heads": 4, **args}}, path)
    return path


def guided_by(guide: Path, diffusion: dict[str, Any]) -> Recipe:
    arch = small().arch
    content = {
        "model": {"name": "DiT", "block": arch.block, "input_size": arch.input_size, "in_channels": 4},
        "data": {"name": "shapes", "vae": "x", "length": 5000, "num_classes": 7, "image_size": 64},
        "evaluation": {"decoder": "x", "reference": "shapes", "num_samples": 2000, **GUIDED, "guide": str(guide)},
    }
    sizes = {name: getattr(arch, name) for name in ("depth", "hidden_size", "num_heads", "patch_size", "num_classes")}
    content["model"] |= sizes
    serving = "ddpm" if diffusion.get("objective") is None else "heun"
    content["evaluation"] |= {"sampler": serving, "sampling_steps": 4}
    return parse_recipe(content | {"diffusion": diffusion}, "recipe.yaml")


FLOW = {"objective": "flow"}


def test_a_file_that_leaves_its_objective_open_is_asked_for_the_guided_networks(tmp_path: Path) -> None:
    """Prediction v is of a discrete process or of a flow, whose time counts either way."""
    path = others(tmp_path / "0400000.pt", prediction="v")
    for diffusion in (FLOW, {**FLOW, "network_time": "data-at-1"}, {"prediction": "velocity"}):
        recipe = guided_by(path, diffusion)
        found = guide_of_recipe(recipe, recipe.evaluation, offline=True)
        assert found is not None
        assert found.diffusion.id == DiffusionConfig.model_validate(diffusion).id
        calls = 4 if "objective" not in diffusion else 8
        assert forward_passes(recipe.evaluation, recipe.diffusion, 2 * found.gmacs) == pytest.approx(1.5 * calls)


@pytest.mark.parametrize(
    ("args", "diffusion", "said"),
    [
        ({"path_type": "Linear", "prediction": "velocity", "loss_weight": None}, {}, "flow"),
        ({"path_type": "Linear", "prediction": "velocity", "loss_weight": None}, {**FLOW, "path": "gvp"}, "'Linear'"),
        ({"model": "DiT-XL/2"}, FLOW, "iddpm"),
        ({"prediction": "v"}, {}, "velocity"),
    ],
)
def test_a_file_of_another_objective_is_refused(
    tmp_path: Path, args: dict[str, Any], diffusion: dict[str, Any], said: str
) -> None:
    recipe = guided_by(others(tmp_path / "0400000.pt", **args), diffusion)
    with pytest.raises(InputError, match=r"^evaluation\.guide: .*0400000\.pt") as caught:
        guide_of_recipe(recipe, recipe.evaluation, offline=True)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_another_objective_is_refused_by_folder_and_file(tmp_path: Path, vae: Path) -> None:
    latent_run(tmp_path / "guide", vae, None)
    for guide in (tmp_path / "guide", weights_path(tmp_path / "guide/checkpoints", 20)):
        content = recipe_of(vae).model_dump(mode="json")
        content["diffusion"] = {"prediction": "x0"}
        content["evaluation"] |= {**GUIDED, "guide": str(guide)}
        recipe = parse_recipe(content, "recipe.yaml")
        with pytest.raises(InputError, match=r"^evaluation\.guide: .* learned .*prediction=noise.*prediction=x0"):
            guide_of_recipe(recipe, recipe.evaluation, offline=True)
