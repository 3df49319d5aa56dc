"""A run's weights as the folder of a diffusers `DiTPipeline` that samples the same latents as the suite does.

Plain diffusers would compute something else (see `models/diffusers_transformer.py` and
`bench/samplers/diffusers_scheduler.py`), so these two files travel with the weights, and the folder is loaded with
`trust_remote_code=True`. Without it diffusers refuses the folder.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError

from bench.data.latent_index import check, data_root, read_index
from bench.data.vae import load_vae
from bench.errors import InputError, RunError
from bench.export.model_card import model_card
from bench.files import jsonl
from bench.files.atomic import give_mode
from bench.files.run_folder import read_config
from bench.recipe import Recipe
from bench.samplers.dit_pipeline import check_sampled, scheduler
from bench.weights import load_weights_of
from models.diffusers_transformer import PIPELINE_NULL_LABEL
from models.diffusers_weights import check_held_by_diffusers, to_diffusers
from models.dit import DiTConfig
from models.transformer import DiT


def export(run: Path, out: Path, step: int | None = None, vae: str | None = None, offline: bool = False) -> None:
    """Write the EMA weights of a run's kept step (default: the last that is there) as a new folder `out`.

    Args:
        vae: the autoencoder to put beside them, as `bench.data.vae.load_vae` takes it; default: the recipe's decoder.

    Raises:
        InputError: `out` exists; no run, or no weights of the step; a model that `DiTPipeline` cannot hold (of pixels,
            of another block design or other sizes than diffusers fixes); or an autoencoder that does not fit it.
        MissingAsset: the autoencoder is not in the cache and cannot be fetched.
        RunError: the disk is full or the folder cannot be written; nothing is left of it.
    """
    recipe = read_config(run)
    _check(recipe, run)
    if out.exists():
        raise InputError(f"{out}: is there already; give another folder")
    weights = load_weights_of(str(run), step, offline)
    try:
        if not isinstance(weights.model, DiT):
            raise ValueError(f"{type(weights.model).__name__} is no DiT")
        transformer = to_diffusers(weights.model)
    except ValueError as error:
        raise InputError(f"{run}: cannot be exported: {error}") from None
    ours = {"transformer": transformer, "scheduler": scheduler(recipe.diffusion.timesteps)}
    autoencoder = load_vae(vae or str(recipe.evaluation.decoder), torch.device("cpu"), offline)
    channels = weights.shape[0]
    if autoencoder.latent_channels != channels:
        raise InputError(f"{autoencoder.name}: has {autoencoder.latent_channels} latent channels, the model {channels}")
    step = int(weights.identity["step"])
    scores = [row for row in jsonl.read(run / "evals.jsonl") if row["step"] == step]
    card = model_card(recipe, step, autoencoder.id, scores, _commit(run))
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        autoencoder.network.save_pretrained(aside / "vae")
        for name, component in ours.items():
            component.save_pretrained(aside / name)
            shutil.copyfile(_file(component), aside / name / _file(component).name)
        (aside / "model_index.json").write_text(json.dumps(_index(recipe, ours), indent=2) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(card, encoding="utf-8")
        mode = stat.S_IMODE((aside / "README.md").stat().st_mode)
        for path in aside.rglob("*.safetensors"):
            give_mode(path, mode)
        aside.rename(out)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors says that the disk is full
        raise RunError(f"{out}: could not be written ({error})") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check(recipe: Recipe, run: Path) -> None:
    """Refuse what is known to have no place in a DiTPipeline before anything is loaded."""
    where = run / "config.yaml"
    if recipe.evaluation.decoder is None:
        raise InputError(
            f"{where}: data.name: {recipe.data.name} are pixels; accepted: runs on latents, which DiTPipeline decodes"
        )
    if recipe.data.facts.normalized:
        raise InputError(f"{where}: data.normalize: true; DiTPipeline only scales latents before it decodes them")
    try:
        check_sampled(recipe.diffusion)
    except ValueError as error:
        raise InputError(f"{where}: diffusion: {error}") from None
    arch = recipe.model.architecture()
    if not isinstance(arch, DiTConfig):
        raise InputError(f"{where}: model.name: {recipe.model.name}; DiTPipeline holds the family DiT only")
    try:
        check_held_by_diffusers(arch)
    except ValueError as error:
        raise InputError(f"{where}: model.{error}") from None
    if recipe.model.num_classes > PIPELINE_NULL_LABEL:
        raise InputError(
            f"{where}: model.num_classes: {recipe.model.num_classes} is more than {PIPELINE_NULL_LABEL}; DiTPipeline "
            f"guides against label {PIPELINE_NULL_LABEL}"
        )


def _index(recipe: Recipe, ours: dict[str, Any]) -> dict[str, Any]:
    """The content of model_index.json, with the classes' names where the latents are here to tell them.

    ours: the components whose classes lie in files beside them.
    """
    folder, data = data_root() / recipe.data.name, recipe.data
    classes: tuple[str, ...] = ()
    if (folder / "index.json").exists():
        index = read_index(folder)
        check(index, data.facts.length, data.facts.num_classes, data.facts.image_shape[1], str(data.vae))
        classes = index.classes
    return {
        "_class_name": "DiTPipeline",
        "_diffusers_version": diffusers.__version__,
        **({"id2label": {str(label): name for label, name in enumerate(classes)}} if classes else {}),
        **{name: [_file(component).stem, type(component).__name__] for name, component in ours.items()},
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _file(component: object) -> Path:
    """That of its class."""
    return Path(inspect.getfile(type(component)))


def _commit(run: Path) -> str | None:
    """The suite's commit at the last start of the run."""
    sessions = jsonl.read(run / "sessions.jsonl")
    return sessions[-1].get("commit") if sessions else None
