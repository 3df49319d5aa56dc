"""Weights by what a user calls them: a run's folder, an official name, a checkpoint file, a diffusers folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

import models
from bench.averages import RAW, checked, is_post_hoc, made_of, name_of, parse, snapshots_in, steps_of
from bench.data.normalization import Normalization, kept_of
from bench.errors import InputError
from bench.files import checkpoint
from bench.files.checkpoint import CorruptCheckpoint
from bench.files.run_folder import average_paths, read_config, weights_path
from bench.flops import cost_of, forward_gmacs
from bench.objectives import OBJECTIVES
from bench.objectives.stated import choose_objective
from bench.recipe import Recipe
from bench.recipe.parts import DataConfig, DiffusionConfig, ModelConfig
from bench.schema import describe
from models.files.tensor_files import check_finite
from models.parts import DOTTED_PATH

# A file of kept weights in a run's folder (`bench.files.run_folder.weights_path`).
KEPT = re.compile(r"(raw|ema(?:-(?P<ema>(?:decay|std)=.+))?)-(?P<step>\d+)\.safetensors")


@dataclass(frozen=True)
class Weights:
    """A model in evaluation mode, and what its samples say of where it comes from.

    Attributes:
        identity: a run's id, step and weights (`bench.averages`), or the name and a hash of the parameters.
        arch: its configuration (`models.registry.Config`).
        gmacs: of a forward pass of one image.
        diffusion: the objective that it was trained with (see `load_weights_of`).
        decoder: the autoencoder that a run's recipe names.
        label_dropout: that it was trained with; None where nothing says.
        normalization: of the latents that a run was trained on; its samples are decoded with it.
        data: that a run was trained on.
    """

    model: nn.Module
    identity: dict[str, Any]
    arch: Any
    gmacs: float
    diffusion: DiffusionConfig
    decoder: str | None = None
    label_dropout: float | None = None
    normalization: Normalization | None = None
    data: DataConfig | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of x."""
        return self.arch.input_shape

    @property
    def num_classes(self) -> int:
        return self.arch.num_classes


def header_of(recipe: Recipe, normalization: Normalization | None) -> dict[str, str]:
    """What files of a run's weights say beside their step and name, so that a copy of one is sampled as what it is."""
    model = {key: value for key, value in recipe.model.model_dump(mode="json").items() if value is not None}
    diffusion, decoder = recipe.diffusion.model_dump(mode="json"), recipe.evaluation.decoder
    said = {"model": model, "diffusion": diffusion, "decoder": decoder}
    if normalization is not None:
        said["normalization"] = normalization.model_dump(mode="json")
    return {"run": recipe.id, "recipe": json.dumps(said, sort_keys=True)}


def load_average(model: nn.Module, recipe: Recipe, folder: Path, step: int, ema: str | None) -> None:
    """Give a model the average `ema` (`bench.averages`) of a step of a run.

    One made of snapshots is summed in double precision, with one file in memory at a time. What is not trained is as at
    the last of them.

    Raises:
        CorruptCheckpoint: one of its files is missing, damaged, or says that it is of something else.
        ValueError: the weights are not finite, or of another network: one line with the file.
    """
    checkpoints, parts = folder / "checkpoints", made_of(ema, recipe.train, step)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    total: dict[str, Tensor] = {}
    for (name, at), number in parts.items():
        tensors = checkpoint.read_weights(checkpoints, at, name, recipe.id)
        _check(tensors, weights_path(checkpoints, at, name), model)
        if not is_post_hoc(ema, recipe.train):
            total = tensors
            break
        for key, tensor in tensors.items():
            if key not in trained:
                total[key] = tensor
            elif key in total:
                total[key].add_(tensor, alpha=number)
            else:
                total[key] = tensor.double().mul_(number)
    model.load_state_dict(total, strict=True)


def _check(tensors: Mapping[str, Tensor], path: Path, model: nn.Module) -> None:
    """Refuse weights that are not finite or do not fit a model."""
    found, needed = ({key: tuple(t.shape) for key, t in of.items()} for of in (tensors, model.state_dict()))
    differing = [key for key in {**needed, **found} if found.get(key) != needed.get(key)]
    if differing:
        key = differing[0]
        shapes = f"{key} has shape {found.get(key)}, its recipe's model {needed.get(key)}"
        raise ValueError(f"{path}: not the weights of its recipe's model: {shapes}")
    try:
        check_finite(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def load_weights_of(
    name: str, step: int | None, offline: bool, ema: str | None = None, asked: DiffusionConfig | None = None
) -> Weights:
    """Weights of a run's folder (of a kept step) or of anything that `models.load_pretrained` takes.

    A file of a run's weights, in the run's folder or copied out of it, is sampled as that run's. Other files have the
    objective that they state (`bench.objectives.stated`), else the one that is `asked` for, else the paper's.

    Args:
        ema: of a run's folder, which weights, as `evaluation.ema` has them; default: the average of `train.ema_decay`.

    Raises:
        InputError: no such weights, a run without weights of this step or average, or not a checkpoint; or what is
            asked for is not what they say, or they leave it open and nothing is asked for.
        MissingAsset: official weights that are not in the cache and cannot be fetched.
    """
    folder = Path(name)
    if (folder / "config.yaml").exists():
        return _of_run(_not_asked(folder, asked), step, ema)
    if ema is not None:
        raise InputError(f"--ema: {name} is not a run's folder")
    kept = KEPT.fullmatch(folder.name)
    run = folder.resolve().parent.parent if kept else folder
    if kept and folder.is_file() and (run / "config.yaml").exists():
        if step not in (None, int(kept["step"])):
            raise InputError(f"--step {step}: {name} is of step {int(kept['step'])}")
        return _of_run(_not_asked(run, asked), int(kept["step"]), RAW if kept[1] == RAW else kept["ema"])
    if step is not None:
        raise InputError(f"--step: {name} is not a run's folder")
    if folder.is_file() and checkpoint.says_its_weights(folder):
        return _of_copy(folder, asked)
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
    return Weights(model, identity, arch, cost_of("DiT", arch).macs / 1e9, diffusion)


def _not_asked(run: Path, asked: DiffusionConfig | None) -> Path:
    """A run, if no other objective is asked for than its recipe's."""
    if asked is not None and asked.id != (own := read_config(run).diffusion).id:
        raise InputError(f"--objective {asked.id}: {run} is a run of {own.id}, which its recipe says; leave it out")
    return run


def _of_run(folder: Path, step: int | None, given: str | None) -> Weights:
    recipe = read_config(folder)
    train = recipe.train
    try:
        ema = checked(parse(given), train, ())
        chosen = _chosen_step(folder, recipe, step, ema)
        checked(ema, train, (chosen,))
    except ValueError as error:
        raise InputError(f"--ema: {str(error).removeprefix('ema: ')}") from None
    model = models.create_model(**recipe.model.arguments())
    try:
        load_average(model, recipe, folder, chosen, ema)
    except CorruptCheckpoint as error:
        raise InputError(f"{error.path}: damaged, or of something else ({error.problem})") from None
    except ValueError as error:
        raise InputError(str(error)) from None
    identity = {"run": recipe.id, "step": chosen, "weights": name_of(ema), **snapshots_in(ema, train, chosen)}
    return Weights(
        model.eval(),
        identity,
        recipe.model.architecture(),
        forward_gmacs(recipe.model),
        recipe.diffusion,
        recipe.evaluation.decoder,
        train.label_dropout,
        kept_of(recipe.data, folder),
        recipe.data,
    )


def _chosen_step(folder: Path, recipe: Recipe, step: int | None, ema: str | None) -> int:
    """`step`, or the last whose weights are there; InputError if they are not."""
    train, what = recipe.train, "weights" if ema is None else f"{name_of(ema)} weights"
    missing = {
        at: sorted(path.name for path in average_paths(folder, train, at, ema) if not path.exists())
        for at in steps_of(ema, train)
    }
    kept = [at for at, names in missing.items() if not names]
    if not kept:
        of_snapshots = f"; missing: {missing[train.steps][0]}" if is_post_hoc(ema, train) else ""
        raise InputError(f"{folder}: has no {what} yet; its recipe keeps steps {[*missing]}{of_snapshots}")
    if step is not None and step not in kept:
        raise InputError(f"--step {step}: {folder} has no {what} of it; accepted: {', '.join(map(str, kept))}")
    return kept[-1] if step is None else step


def _of_copy(path: Path, asked: DiffusionConfig | None) -> Weights:
    """Weights of a file that says of what run they are (`header_of`)."""
    try:
        tensors, said = checkpoint.load_tensors(path)
        content = json.loads(said["recipe"])
        own = [text for text in _texts(content) if DOTTED_PATH.fullmatch(text)]
        if own:  # it would be imported, and a file of weights runs nothing
            raise ValueError(f"is of {own[0]}, code of one's own; accepted: the file in its run's folder")
        config, diffusion = ModelConfig(**content["model"]), DiffusionConfig(**content["diffusion"])
        identity = {"run": str(said["run"]), "step": int(said["step"]), "weights": str(said["weights"])}
        arch, decoder, kept = config.architecture(), content["decoder"], content.get("normalization")
        normalization = None if kept is None else Normalization.model_validate_json(json.dumps(kept))
    except CorruptCheckpoint as error:
        raise InputError(str(error)) from None
    except ValidationError as error:
        sections = {section.__name__: section for section in (ModelConfig, DiffusionConfig, Normalization)}
        raise InputError(f"{path}: its header says {describe(error, sections[error.title])}") from None
    except (KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its header is not that of a run's weights ({error})") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        if cost_of(config.name, arch).parameters > sum(tensor.numel() for tensor in tensors.values()):
            raise ValueError(f"{path}: has fewer parameters than the model that its header describes")
        model = models.create_model(**config.arguments())
        _check(tensors, path, model)
    except ValueError as error:
        raise InputError(str(error)) from None
    if asked is not None and asked.id != diffusion.id:
        raise InputError(f"--objective {asked.id}: {path} is of a run of {diffusion.id}, which it says; leave it out")
    model.load_state_dict(tensors, strict=True)
    gmacs = forward_gmacs(config)
    return Weights(model.eval(), identity, arch, gmacs, diffusion, decoder, normalization=normalization)


def _texts(content: Any) -> Iterator[str]:
    """All texts in nested mappings and lists."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _texts(value)


def _digest(model: nn.Module) -> str:
    """The first eight hex digits of a SHA-256 over names and bytes of the parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
