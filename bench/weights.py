"""Weights by what a user calls them: a run's folder, an official name, a checkpoint file, a diffusers folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import models
from bench.data.normalization import Normalization, kept_of
from bench.errors import InputError
from bench.files import checkpoint
from bench.files.run_folder import read_config, weights_path
from bench.objectives import OBJECTIVES
from bench.objectives.stated import choose_objective
from bench.recipe import DiffusionConfig
from models.tensor_files import check_finite


@dataclass(frozen=True)
class Weights:
    """A model in evaluation mode, and what its samples say of where it comes from.

    Attributes:
        identity: a run's id and step, or the name and a hash of the parameters.
        shape, num_classes: (C, *spatial) of x, and the number of labels.
        diffusion: the objective that it was trained with (see `load_weights_of`).
        decoder: the autoencoder that a run's recipe names.
        normalization: of the latents that a run was trained on; its samples are decoded with it.
    """

    model: nn.Module
    identity: dict[str, Any]
    shape: tuple[int, ...]
    num_classes: int
    diffusion: DiffusionConfig
    decoder: str | None = None
    normalization: Normalization | None = None


def load_weights_of(name: str, step: int | None, offline: bool, asked: DiffusionConfig | None = None) -> Weights:
    """Weights of a run's folder (EMA, of a kept step) or of anything that `models.load_pretrained` takes.

    A file of weights in a run's folder is that run's, with its recipe's objective. Other files have the objective that
    they state (`bench.objectives.stated`), else the one that is `asked` for, else the paper's.

    Raises:
        InputError: no such weights, a run without weights of this step, or not a checkpoint; or what is asked for is
            not what they say, or they leave it open and nothing is asked for.
        MissingAsset: official weights that are not in the cache and cannot be fetched.
    """
    folder = Path(name)
    if (folder / "config.yaml").exists():
        return _of_run(_not_asked(folder, asked), step)
    kept = re.fullmatch(r"ema-(\d+)\.safetensors", folder.name)
    run = folder.resolve().parent.parent if kept else folder
    if kept and folder.is_file() and (run / "config.yaml").exists():
        if step not in (None, int(kept[1])):
            raise InputError(f"--step {step}: {name} is of step {int(kept[1])}")
        return _of_run(_not_asked(run, asked), int(kept[1]))
    if step is not None:
        raise InputError(f"--step: {name} is not a run's folder")
    chosen: list[DiffusionConfig] = []

    def choose(facts: Mapping[str, Any]) -> None:
        chosen.append(choose_objective(facts, name, asked))

    try:
        model = models.load_pretrained(name, offline=offline, accept=choose)
    except ValueError as error:
        raise InputError(str(error)) from None
    arch, (diffusion,) = model.arch, chosen
    try:
        OBJECTIVES.find(diffusion.objective).check(diffusion.options, arch.input_shape[0], arch.out_channels)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    identity = {"weights": f"{folder.name}-{_digest(model)}"}
    if diffusion.id != DiffusionConfig().id:
        identity["objective"] = diffusion.id
    return Weights(model, identity, arch.input_shape, arch.num_classes, diffusion)


def _not_asked(run: Path, asked: DiffusionConfig | None) -> Path:
    """A run, if no other objective is asked for than its recipe's."""
    if asked is not None and asked.id != (own := read_config(run).diffusion).id:
        raise InputError(f"--objective {asked.id}: {run} is a run of {own.id}, which its recipe says; leave it out")
    return run


def _of_run(folder: Path, step: int | None) -> Weights:
    recipe, checkpoints = read_config(folder), folder / "checkpoints"
    kept = [s for s in recipe.train.kept_steps() if weights_path(checkpoints, s).exists()]
    if not kept:
        raise InputError(f"{folder}: has no weights yet; its recipe keeps steps {recipe.train.kept_steps()}")
    chosen = kept[-1] if step is None else step
    if chosen not in kept:
        raise InputError(f"--step {step}: {folder} has no weights of it; accepted: {', '.join(map(str, kept))}")
    tensors = checkpoint.load_weights(checkpoints, chosen)
    if tensors is None:
        raise InputError(f"{weights_path(checkpoints, chosen)}: damaged; running the recipe again makes it again")
    try:
        check_finite(tensors)
    except ValueError as error:
        raise InputError(f"{weights_path(checkpoints, chosen)}: {error}") from None
    model = models.create_model(**recipe.model.arguments())
    model.load_state_dict(tensors, strict=True)
    identity = {"run": recipe.id, "step": chosen, "weights": "ema"}
    arch, decoder = recipe.model.architecture(), recipe.evaluation.decoder
    normalization = kept_of(recipe.data, folder)
    return Weights(model.eval(), identity, arch.input_shape, arch.num_classes, recipe.diffusion, decoder, normalization)


def _digest(model: nn.Module) -> str:
    """The first eight hex digits of a SHA-256 over names and bytes of the parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
