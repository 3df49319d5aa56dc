"""Recipes: everything that decides a run's result, checked when read, identified by content.

A recipe's id is the hash of its non-default, result-bearing fields: never of the device, the precision, paths or
speed options. So changing a default here changes what existing ids mean: give new behaviour a new field instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from bench.data import DATASETS, DatasetFacts, latent_facts
from bench.errors import InputError
from models.registry import OVERRIDES, VAE_DOWNSAMPLING, Architecture, architecture


class Section(BaseModel):
    """Frozen, strictly typed, unknown keys and infinities refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelConfig(Section):
    """Arguments of `models.create_model`."""

    name: str
    block: str = "adaln-zero"
    image_size: PositiveInt = 256
    in_channels: PositiveInt = 4
    num_classes: PositiveInt = 1000
    learn_sigma: bool = True
    depth: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    patch_size: PositiveInt | None = None
    input_size: PositiveInt | None = None
    mlp_ratio: PositiveFloat | None = None
    frequency_embedding_size: PositiveInt | None = None
    label_init_std: PositiveFloat | None = None
    timestep_init_std: PositiveFloat | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        self.architecture()
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `models.create_model` and `bench.flops.count`."""
        return {k: v for k, v in self.model_dump().items() if not (k in OVERRIDES and v is None)}

    def architecture(self) -> Architecture:
        return architecture(**self.arguments())


class DataConfig(Section):
    """The training data.

    Latents are in the folder `name` of the data root; `vae` is the autoencoder that made them. Latents of one's own
    images, or of a part of ImageNet, need all keys; of the data sets with a name, the others are known.
    """

    name: str
    vae: str | None = None
    length: PositiveInt | None = None
    num_classes: PositiveInt | None = None
    image_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        known, facts = DATASETS.get(self.name), ("length", "num_classes", "image_size")
        given = [key for key in facts if getattr(self, key) is not None]
        if known is not None and given:
            raise ValueError(f"{given[0]}: {self.name} is known; latents of other images need another name")
        if known is not None and not known.latents:
            if self.vae is not None:
                raise ValueError(f"vae: {self.name} are pixels; this key is for latents")
            return self
        if known is None and len(given) < len(facts):
            missing = ", ".join(key for key in facts if key not in given)
            raise ValueError(
                f"name: unknown dataset {self.name!r}; accepted: {', '.join(DATASETS)}, or latents of your own images "
                f"with {missing}"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name: {self.name!r} is no folder name of letters, digits, dots, underscores and hyphens")
        if self.vae is None:
            raise ValueError("vae: missing; latents name the autoencoder that made them")
        if self.facts.image_shape[1] % VAE_DOWNSAMPLING:
            raise ValueError(f"image_size: {self.image_size} is not a multiple of {VAE_DOWNSAMPLING} (the autoencoder)")
        return self

    @property
    def facts(self) -> DatasetFacts:
        """What is known of the data without reading them."""
        if self.name in DATASETS:
            return DATASETS[self.name]
        return latent_facts(self.length or 0, self.num_classes or 0, self.image_size or 0)


class DiffusionConfig(Section):
    """The forward process: linear betas, learned range variance if the model has `learn_sigma`."""

    timesteps: int = Field(default=1000, ge=21)  # fewer linear steps reach beta = 1


Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Section):
    """Optimisation. Defaults are the paper's (Sec. 4); `checkpoint_steps` are kept and scored.

    `allow_accumulation`: out of memory, a batch may be split further and its gradients accumulated, which changes
    the order of sums but not what is computed.
    """

    steps: PositiveInt = 400_000
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 1e-4
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), strict=False)
    weight_decay: float = Field(default=0.0, ge=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    checkpoint_steps: tuple[PositiveInt, ...] = Field(default=(), strict=False)
    log_every: PositiveInt = 100
    save_every: PositiveInt = 5000
    allow_accumulation: bool = False

    @model_validator(mode="after")
    def _steps_in_range(self) -> Self:
        if any(step > self.steps for step in self.checkpoint_steps):
            raise ValueError(f"checkpoint_steps: {max(self.checkpoint_steps)} is beyond steps ({self.steps})")
        return self

    def kept_steps(self) -> list[int]:
        """Steps whose EMA weights are kept and scored: the listed ones and the last."""
        return sorted({*self.checkpoint_steps, self.steps})


ExtractorName = Literal["inception-v3-compat", "dinov2-vitl14", "digits-cnn"]


class EvaluationConfig(Section):
    """How samples are drawn and scored; all but the batch sizes is part of a score's key.

    `decoder` (an autoencoder's name) and `reference` (what samples of latents are compared with) are for latents;
    samples of pixels are compared with the training images.
    """

    sampler: Literal["ddpm", "ddim"] = "ddpm"
    sampling_steps: int = Field(default=250, ge=2)
    clip_denoised: bool = False
    guidance_scale: float = Field(default=1.0, ge=0)
    guidance_channels: PositiveInt | None = 3
    num_samples: PositiveInt = 50_000
    labels: Literal["balanced", "uniform"] = "balanced"
    decoder: str | None = None
    reference: str | None = None
    extractor: ExtractorName = "inception-v3-compat"
    kid_subset_size: PositiveInt = 1000
    batch_size: PositiveInt = 64
    decode_batch_size: PositiveInt = 16


class Recipe(Section):
    """One run. `label` is only how tables and figures name it."""

    label: str = ""
    model: ModelConfig
    data: DataConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        facts, arch = self.data.facts, self.model.architecture()
        shape = (arch.in_channels, arch.input_size, arch.input_size)
        if shape != facts.shape:
            raise ValueError(
                f"model: in_channels and input_size give {shape}, but data.name {self.data.name} has {facts.shape}"
            )
        if arch.num_classes != facts.num_classes:
            raise ValueError(f"model.num_classes: {arch.num_classes}, but {self.data.name} has {facts.num_classes}")
        if self.train.batch_size > facts.length:
            size = self.train.batch_size
            raise ValueError(f"train.batch_size: {size} is larger than the dataset {self.data.name} ({facts.length})")
        if self.evaluation.sampling_steps > self.diffusion.timesteps:
            raise ValueError(
                f"evaluation.sampling_steps: {self.evaluation.sampling_steps} is more than diffusion.timesteps "
                f"({self.diffusion.timesteps})"
            )
        for key in ("decoder", "reference"):
            if (getattr(self.evaluation, key) is not None) != facts.latents:
                problem = "missing; latents need one" if facts.latents else f"{self.data.name} are pixels and need none"
                raise ValueError(f"evaluation.{key}: {problem}")
        if self.evaluation.kid_subset_size > min(self.evaluation.num_samples, facts.length):
            raise ValueError(
                f"evaluation.kid_subset_size: {self.evaluation.kid_subset_size} is more than num_samples "
                f"({self.evaluation.num_samples}) or the reference images ({facts.length})"
            )
        channels = self.evaluation.guidance_channels
        if self.evaluation.guidance_scale != 1 and channels is not None and channels > arch.in_channels:
            raise ValueError(
                f"evaluation.guidance_channels: {channels} is more than the model's {arch.in_channels}; null is all"
            )
        return self

    @property
    def id(self) -> str:
        """Ten hex digits of the SHA-256 of the non-default, result-bearing fields."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_RESULT_BEARING)
        arch = self.model.architecture()
        # What the network is, however it was named.
        content["model"] = {f.name: getattr(arch, f.name) for f in fields(arch) if getattr(arch, f.name) != f.default}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder_name(self) -> str:
        """`S-4-0123456789`: the label made safe for a path, and the id."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.label or self.model.name).strip("-")
        return f"{name}-{self.id}"


_NOT_RESULT_BEARING: Any = {
    "label": True,
    "model": True,  # its resolved architecture stands for it
    "train": {"log_every": True, "save_every": True, "allow_accumulation": True},
    "evaluation": {"batch_size": True, "decode_batch_size": True},
}


def parse_recipe(content: Any, where: str) -> Recipe:
    """Check a mapping against the schema.

    Raises:
        InputError: one line with `where` (a file), the key, what is wrong and what is accepted.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error, Recipe)}") from None


def describe(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem of a validation error as `key: what is wrong` (and how many more there are)."""
    first, *more = error.errors()
    path = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key; accepted: {', '.join(_fields_at(schema, path[:-1]))}"
    elif first["type"] == "missing":
        message = "missing"
    elif first["type"] == "model_type":
        message = f"expected a mapping with the keys {', '.join(_fields_at(schema, path))}, got {first['input']!r}"
    elif first["type"] == "tuple_type":
        message = f"expected a list, got {first['input']!r}"
    elif first["type"] != "value_error":
        message = f"{message}, got {first['input']!r}"
    others = f" (and {len(more)} more)" if more else ""
    if not path:
        return f"{message}{others}"
    # A section's own check begins its message with the key, as `patch_size: ...`.
    separator = "." if first["type"] == "value_error" and re.match(r"[a-z_]+: ", message) else ": "
    return f"{'.'.join(path)}{separator}{message}{others}"


def _fields_at(schema: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part in schema.model_fields:  # else the position in a list
            annotation = schema.model_fields[part].annotation
            inner = (annotation, *get_args(annotation))  # of `Section | None` and `tuple[Section, ...]`
            sections = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
            if not sections:
                break
            schema = sections[0]
    return list(schema.model_fields)


class _Loader(yaml.SafeLoader):
    """Safe loading that reads 1e-4 as a number (YAML 1.1 wants 1.0e-4) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(path: Path) -> Any:
    """Read a YAML file safely.

    Raises:
        InputError: no such file, or not YAML, with the line.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{path}: line {line}: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None


def load_recipe(path: Path) -> Recipe:
    """Read one recipe from a YAML file; errors as `parse_recipe` and `load_yaml`."""
    return parse_recipe(load_yaml(path), str(path))
