"""Recipes: everything that decides a run's result, checked when read, identified by content.

A recipe's id is the hash of its non-default, result-bearing fields: never of the device, the precision, paths or
speed options. So changing a default here changes what existing ids mean: give new behaviour a new field instead.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench.data import Dataset, DatasetFacts, data_part
from bench.errors import InputError
from bench.objectives import OBJECTIVES
from bench.samplers import SAMPLERS, Labels, call_times, sampler_id
from bench.schema import PartSection, Section, check_options, describe, load_yaml
from bench.score.extractors import EXTRACTORS
from bench.score.metrics import FID_INFINITY_MIN_SAMPLES, MANY_SAMPLES, find_metrics
from models.parts import look_in
from models.registry import FAMILIES, configure, family_of, listed_name

if TYPE_CHECKING:
    import torch


# As large as tables and generators of random numbers take.
BOUND = 2**63
PositiveInt = Annotated[int, Field(gt=0, lt=BOUND)]


class ModelConfig(PartSection):
    """A network: a preset, a family or a dotted path, and the options of its family (`models.dit.DiTOptions`)."""

    name: str

    @classmethod
    def options_type(cls, name: str) -> type:
        return family_of(name).options

    @field_validator("name")
    @classmethod
    def _as_listed(cls, name: str) -> str:
        return listed_name(name)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        self.architecture()
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `models.create_model` and `bench.flops.count`."""
        return {key: value for key, value in self.model_dump().items() if value is not None}

    def architecture(self) -> Any:
        """What fixes the network's shape (`models.registry.Config`), however it was named."""
        return configure(self.name, self.options)

    def identity(self) -> dict[str, Any]:
        """What the network is, for the recipe's id: what is not default, and a family other than DiT."""
        arch, family = self.architecture(), family_of(self.name)
        content = {f.name: getattr(arch, f.name) for f in fields(arch) if getattr(arch, f.name) != f.default}
        is_default = family is FAMILIES.find(next(iter(FAMILIES.builtin)))
        return content if is_default else {**content, "family": self.name.partition("/")[0]}


class DataConfig(PartSection):
    """The training data: a data set's name or dotted path, and its options (see `bench.data`)."""

    name: str

    @classmethod
    def options_type(cls, name: str) -> type:
        return data_part(name).options

    @model_validator(mode="after")
    def _known(self) -> Self:
        _ = self.facts
        return self

    @property
    def facts(self) -> DatasetFacts:
        """What is known of the data without reading them."""
        return data_part(self.name).facts(self.name, self.options)

    def load(self, device: torch.device) -> Dataset:
        """The data; errors as `DataPart.load`."""
        return data_part(self.name).load(self.name, self.options, device)


class DiffusionConfig(PartSection):
    """What is learned of the noised data: an objective's name or dotted path, and its options."""

    NAME = "objective"

    objective: str = "iddpm"

    @property
    def id(self) -> str:
        """The objective and what of its options is not default, as one text: "iddpm prediction=velocity"."""
        return " ".join([self.objective, *(f"{key}={value}" for key, value in sorted(self.non_default().items()))])

    @classmethod
    def options_type(cls, name: str) -> type:
        return OBJECTIVES.find(name).options


Beta = Annotated[float, Field(ge=0, lt=1)]
# Beyond, compute and time that are planned from it are no numbers any more.
Count = Annotated[int, Field(gt=0, le=10**15)]


class TrainConfig(Section):
    """Optimisation. Defaults are the paper's (Sec. 4); `checkpoint_steps` are kept and scored.

    `allow_accumulation`: out of memory, a batch may be split further and its gradients accumulated, which changes
    the order of sums but not what is computed.
    """

    steps: Count = 400_000
    batch_size: Count = 256
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


class EvaluationConfig(Section):
    """How samples are drawn and scored; all but the batch sizes is part of a score's key.

    `decoder` (an autoencoder's name) and `reference` (what samples of latents are compared with) are for latents;
    samples of pixels are compared with the training images. `metrics`: names or dotted paths, and `fid` always;
    default: all of the suite's own that can be computed.
    """

    sampler: str = "ddpm"
    sampler_options: dict[str, Any] = Field(default={})
    sampling_steps: int = Field(default=250, ge=2)
    clip_denoised: bool = False
    guidance_scale: float = Field(default=1.0, ge=0)
    guidance_channels: PositiveInt | None = 3
    num_samples: Count = 50_000
    labels: Labels = "balanced"
    decoder: str | None = None
    reference: str | None = None
    extractor: str = "inception-v3-compat"
    metrics: tuple[str, ...] | None = Field(default=None, strict=False)
    kid_subset_size: PositiveInt = 1000
    batch_size: PositiveInt = 64
    decode_batch_size: PositiveInt = 16

    @field_validator("sampler", "extractor")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        {"sampler": SAMPLERS, "extractor": EXTRACTORS}[str(info.field_name)].find(name)
        return name

    @field_validator("sampler_options")
    @classmethod
    def _without_defaults(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """A default that is spelled out is the same recipe, and the same score."""
        if "sampler" not in info.data:  # refused already
            return given
        options = check_options(SAMPLERS.find(info.data["sampler"]).options, given)
        values = {field.name: (getattr(options, field.name), field.default) for field in fields(options)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        for name, metric in find_metrics(names).items() if names is not None else ():
            taken = [column for column in metric.columns if column in _OTHER_COLUMNS]
            if taken:
                raise ValueError(f"{name} has the column {taken[0]!r}, which is taken; accepted: another name")
            num_samples = info.data.get("num_samples", FID_INFINITY_MIN_SAMPLES)
            if MANY_SAMPLES in metric.needs and num_samples < FID_INFINITY_MIN_SAMPLES:
                raise ValueError(f"{name} needs {MANY_SAMPLES}, num_samples is {num_samples}")
        return names

    @property
    def sampler_id(self) -> str:
        """The sampler and its options, as in a score's key: "ddim", "ddim eta=0.5"."""
        return sampler_id(self.sampler, self.sampler_options)


# What a score's row and its run's say beside the metrics.
_OTHER_COLUMNS = {
    *EvaluationConfig.model_fields,
    *("step", "weights", "extractor_accuracy", "reference_statistics", "sampling_images_per_s", "samples", "time"),
    *("run", "label", "family", "model", "size", "patch", "hidden_size", "depth", "num_heads", "input_size"),
    *("block", "seed", "gmacs", "loss"),
}


class Recipe(Section):
    """One run. `label` is only how tables and figures name it."""

    label: str = ""
    model: ModelConfig
    data: DataConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(default=0, ge=0, lt=BOUND)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        facts, arch = self.data.facts, self.model.architecture()
        if arch.input_shape != facts.shape:
            raise ValueError(
                f"model: {self.model.name} takes {arch.input_shape} (in_channels, input_size), but data.name "
                f"{self.data.name} has {facts.shape}"
            )
        if arch.num_classes != facts.num_classes:
            raise ValueError(f"model.num_classes: {arch.num_classes}, but {self.data.name} has {facts.num_classes}")
        if self.train.batch_size > facts.length:
            size = self.train.batch_size
            raise ValueError(f"train.batch_size: {size} is larger than the dataset {self.data.name} ({facts.length})")
        OBJECTIVES.find(self.diffusion.objective).check(self.diffusion.options, facts.shape[0], arch.out_channels)
        try:
            check_sampling(self.evaluation, self.diffusion)
        except ValueError as error:
            raise ValueError(f"evaluation.{error}") from None
        taken = EXTRACTORS.find(self.evaluation.extractor).image_shape
        if taken is not None and taken != facts.image_shape:
            raise ValueError(
                f"evaluation.extractor: {self.evaluation.extractor} takes images {taken}, those of {self.data.name} "
                f"are {facts.image_shape} (C, H, W)"
            )
        for key in ("decoder", "reference"):
            if (getattr(self.evaluation, key) is not None) != facts.latents:
                problem = "missing; latents need one" if facts.latents else f"{self.data.name} brings its own"
                raise ValueError(f"evaluation.{key}: {problem}")
        if self.evaluation.kid_subset_size > min(self.evaluation.num_samples, facts.length):
            raise ValueError(
                f"evaluation.kid_subset_size: {self.evaluation.kid_subset_size} is more than num_samples "
                f"({self.evaluation.num_samples}) or the reference images ({facts.length})"
            )
        channels = self.evaluation.guidance_channels
        if self.evaluation.guidance_scale != 1 and channels is not None and channels > facts.shape[0]:
            raise ValueError(
                f"evaluation.guidance_channels: {channels} is more than the model's {facts.shape[0]}; null is all"
            )
        return self

    @property
    def id(self) -> str:
        """Ten hex digits of the SHA-256 of the non-default, result-bearing fields."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_RESULT_BEARING)
        content["model"] = self.model.identity()
        content["data"] = {"name": self.data.name, **self.data.non_default()}
        diffusion = self.diffusion.non_default()
        if self.diffusion.objective != DiffusionConfig.model_fields["objective"].default:
            diffusion["objective"] = self.diffusion.objective
        if diffusion:
            content["diffusion"] = diffusion
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder_name(self) -> str:
        """`S-4-0123456789`: the label made safe for a path, and the id."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.label or self.model.name).strip("-")
        return f"{name[:LONGEST_LABEL]}-{self.id}"


# Of a folder's name, which file systems end at 255 bytes.
LONGEST_LABEL = 200

_NOT_RESULT_BEARING: Any = {
    "label": True,
    **dict.fromkeys(("model", "data", "diffusion"), True),  # parts say themselves what they are
    "train": {"log_every": True, "save_every": True, "allow_accumulation": True},
    "evaluation": {"batch_size": True, "decode_batch_size": True},
}


def parse_evaluation(**given: Any) -> EvaluationConfig:
    """An evaluation section from a command's options, named as the command line has them.

    Raises:
        InputError: the option, what is wrong and what is accepted.
    """
    try:
        return EvaluationConfig(**given)
    except ValidationError as error:
        key, colon, problem = describe(error, EvaluationConfig).partition(":")
        raise InputError(f"--{key.replace('_', '-')}{colon}{problem}") from None


def check_sampling(evaluation: EvaluationConfig, diffusion: DiffusionConfig) -> None:
    """Refuse a sampler that does not serve the objective's process, or steps and options that do not fit it.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`.
    """
    objective, sampler = OBJECTIVES.find(diffusion.objective), SAMPLERS.find(evaluation.sampler)
    kind = objective.process(diffusion.options).kind
    if kind not in sampler.serves:
        serving = [name for name in SAMPLERS.builtin if kind in SAMPLERS.find(name).serves]
        raise ValueError(
            f"sampler: {evaluation.sampler} samples {' and '.join(sampler.serves)} processes, objective "
            f"{diffusion.objective} is a {kind} one; accepted: {', '.join(serving) or 'one of your own'}"
        )
    call_times(evaluation, diffusion)


def parse_diffusion(objective: str, options: dict[str, Any]) -> DiffusionConfig:
    """A diffusion section from a command's --objective and --objective-option.

    Raises:
        InputError: the option, what is wrong and what is accepted.
    """
    try:
        return DiffusionConfig.model_validate({**options, "objective": objective})
    except ValidationError as error:
        key, colon, problem = describe(error, DiffusionConfig).partition(":")
        flag = "--objective" if key == "objective" else f"--objective-option {key}"
        raise InputError(f"{flag}{colon}{problem}") from None


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


def load_recipe(path: Path) -> Recipe:
    """Read one recipe from a YAML file; errors as `parse_recipe` and `load_yaml`.

    Parts of one's own are looked for beside it first.
    """
    look_in(path.parent)
    return parse_recipe(load_yaml(path), str(path))
