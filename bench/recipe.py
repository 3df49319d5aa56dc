"""Recipes: everything that decides a run's result, checked when read, identified by content.

A recipe's id is the hash of its non-default, result-bearing fields: never of the device, the precision, paths or
speed options. So changing a default here changes what existing ids mean: give new behaviour a new field instead.
`scores` are not in it: more looks at weights change neither these nor other scores, and a finished run can get more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench import averages
from bench.averages.power import NARROWEST, WIDEST
from bench.data import Dataset, DatasetFacts, data_part
from bench.errors import InputError
from bench.objectives import OBJECTIVES
from bench.samplers import SAMPLERS, Labels, network_calls, sampler_id
from bench.schema import PartSection, Section, check_options, describe, load_yaml
from bench.score.extractors import EXTRACTORS
from bench.score.metrics import FID_INFINITY_MIN_SAMPLES, MANY_SAMPLES, find_metrics
from bench.score.more_scores import KEPT_STEPS, steps_of, written_out
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
Std = Annotated[float, Field(ge=NARROWEST, lt=WIDEST)]
# Of each power average: by default, and at most, for disks and for the least squares that make others of them.
SNAPSHOTS, MOST_SNAPSHOTS = 32, 256
# Beyond, compute and time that are planned from it are no numbers any more.
Count = Annotated[int, Field(gt=0, le=10**15)]


class TrainConfig(Section):
    """Optimisation. Defaults are the paper's (Sec. 4); `checkpoint_steps` are kept and scored.

    `allow_accumulation`: out of memory, a batch may be split further and its gradients accumulated, which changes
    the order of sums but not what is computed. `ema_decays`, `ema_stds`: averages kept beside that of `ema_decay`
    (`bench.averages`). Two or more of `ema_stds` are also kept every `ema_snapshot_every` steps (default: an
    `SNAPSHOTS`th of all), so that any other can be made of them. `final_learning_rate`: where a schedule ends, as a
    share of `learning_rate`. `decay_matrices_only`: see `bench.training.optimizer.matrices`. `non_finite`: what a run
    does about a loss or gradient that is not finite, see `bench.training.not_finite`.
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
    ema_decays: tuple[Beta, ...] = Field(default=(), strict=False)
    ema_stds: tuple[Std, ...] = Field(default=(), strict=False)
    ema_snapshot_every: PositiveInt | None = None
    clip_grad_norm: PositiveFloat | None = None
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine", "cooldown"] = "constant"
    final_learning_rate: float = Field(default=0.0, ge=0, le=1)
    cooldown_steps: int = Field(default=0, ge=0)
    decay_matrices_only: bool = False
    non_finite: Literal["stop", "skip", "roll-back"] = "stop"

    @model_validator(mode="after")
    def _steps_in_range(self) -> Self:
        if any(step > self.steps for step in self.checkpoint_steps):
            raise ValueError(f"checkpoint_steps: {max(self.checkpoint_steps)} is beyond steps ({self.steps})")
        return self

    @model_validator(mode="after")
    def _averages_fit(self) -> Self:
        for key, values in (("ema_decays", (self.ema_decay, *self.ema_decays)), ("ema_stds", self.ema_stds)):
            twice = [value for k, value in enumerate(values) if value in values[:k]]
            if twice:
                also = " (ema_decay is kept in any case)" if twice[0] == self.ema_decay else ""
                raise ValueError(f"{key}: {twice[0]!r} is there twice{also}")
        every = self.ema_snapshot_every
        if every is not None and len(self.ema_stds) < 2:
            raise ValueError(f"ema_snapshot_every: {every}, but ema_stds are not two or more")
        if every is not None and not self.steps / MOST_SNAPSHOTS <= every <= self.steps:
            least = -(-self.steps // MOST_SNAPSHOTS)
            raise ValueError(
                f"ema_snapshot_every: {every}; accepted: {least} ({MOST_SNAPSHOTS} snapshots) to {self.steps} (steps)"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        warmup, cooldown = self.warmup_steps, self.cooldown_steps
        if self.schedule == "cooldown" and not cooldown:
            raise ValueError("cooldown_steps: missing; schedule cooldown needs it")
        if self.schedule != "cooldown" and cooldown:
            raise ValueError(f"cooldown_steps: {cooldown}, but schedule is {self.schedule}; accepted: cooldown")
        if self.schedule == "constant" and self.final_learning_rate:
            final = self.final_learning_rate
            raise ValueError(f"final_learning_rate: {final:g}, but schedule is constant; accepted: cosine, cooldown")
        if warmup + cooldown > self.steps:
            also = f" and cooldown_steps {cooldown} together" if cooldown else ""
            raise ValueError(f"warmup_steps: {warmup}{also} is beyond steps ({self.steps})")
        if self.schedule == "cosine" and warmup == self.steps:
            raise ValueError(f"warmup_steps: {warmup} of {self.steps} steps leave none for schedule cosine")
        return self

    @model_validator(mode="after")
    def _has_decay(self) -> Self:
        if self.decay_matrices_only and not self.weight_decay:
            raise ValueError("decay_matrices_only: true, but weight_decay is 0; accepted: a positive weight_decay")
        return self

    def kept_steps(self) -> list[int]:
        """Steps whose EMA weights are kept and scored: the listed ones and the last."""
        return sorted({*self.checkpoint_steps, self.steps})

    def snapshot_steps(self) -> list[int]:
        """Steps at which the averages of `ema_stds` are kept, so that others can be made of them; none below two."""
        if len(self.ema_stds) < 2:
            return []
        every = self.ema_snapshot_every or -(-self.steps // SNAPSHOTS)
        return sorted({*range(every, self.steps + 1, every), *self.kept_steps()})

    def last_save(self, step: int) -> int:
        """The last step up to `step` whose state is saved, whatever else a run is stopped for; 0 before the first."""
        return max(step - step % self.save_every, *(kept for kept in self.kept_steps() if kept <= step), 0)


# Scales in use are below 20; far beyond this, guided predictions are no finite numbers any more.
MOST_GUIDANCE = 10_000


class EvaluationConfig(Section):
    """How samples are drawn and scored; all but the batch sizes is part of a score's key.

    `decoder` (an autoencoder's name) and `reference` (what samples of latents are compared with) are for latents;
    samples of pixels are compared with the training images. `metrics`: names or dotted paths, and `fid` always;
    default: all of the suite's own that can be computed. `ema`: which weights are sampled (`bench.averages`); default:
    the average of `train.ema_decay`.

    `guidance_interval`: guide only at these of the process's times, both ends included; null is always. `guide`: guide
    by another network instead of by the null label: a run's folder or a file of weights; `guide_step`: its kept step
    (default: its last), or, without `guide`, the first kept step of this run itself, of the same average.
    """

    sampler: str = "ddpm"
    sampler_options: dict[str, Any] = Field(default={})
    sampling_steps: int = Field(default=250, ge=2, le=100_000)
    clip_denoised: bool = False
    guidance_scale: float = Field(default=1.0, ge=0, le=MOST_GUIDANCE)
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
    ema: Annotated[str | None, BeforeValidator(averages.parse)] = None
    guidance_interval: tuple[float, float] | None = Field(default=None, strict=False)
    guide: str | None = Field(default=None, min_length=1)
    guide_step: PositiveInt | None = None

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

    @property
    def id(self) -> str:
        """The same for scores of one key: eight hex digits."""
        return self._hash(_NOT_OF_THE_KEY)

    @property
    def samples_id(self) -> str:
        """The same for scores of the same samples."""
        return self._hash(_NOT_OF_THE_KEY | _NOT_OF_THE_SAMPLES)

    def _hash(self, exclude: set[str]) -> str:
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=exclude)
        if self.guidance_scale == 1:  # nothing is guided
            content = {key: value for key, value in content.items() if not key.startswith(("guidance_", "guide"))}
        return _hash(content)[:8]


_NOT_OF_THE_KEY = {"batch_size", "decode_batch_size", "metrics"}
_NOT_OF_THE_SAMPLES = {"reference", "extractor", "kid_subset_size"}


class Score(NamedTuple):
    """One score of a run.

    Attributes:
        step: the kept step whose weights it is of.
        name: empty for that of `evaluation`, else the id of one of `scores`.
        samples: empty for the samples of `evaluation`, else the id of others.
    """

    step: int
    evaluation: EvaluationConfig
    name: str
    samples: str


# What a score's row and its run's say beside the metrics.
_OTHER_COLUMNS = {
    *EvaluationConfig.model_fields,
    *("step", "weights", "extractor_accuracy", "reference_statistics", "sampling_images_per_s", "samples", "time"),
    *("network_calls", "sampling_gmacs"),
    *("run", "label", "family", "model", "size", "patch", "hidden_size", "depth", "num_heads", "input_size"),
    *("block", "seed", "gmacs", "loss", "score"),
}


class Recipe(Section):
    """One run. `label` is only how tables and figures name it.

    `scores`: how kept steps are scored beside `evaluation`, written out as `bench.score.more_scores` says.
    """

    label: str = ""
    model: ModelConfig
    data: DataConfig
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(default=0, ge=0, lt=BOUND)
    scores: tuple[dict[str, Any], ...] = Field(default=(), strict=False)

    @field_validator("scores", mode="before")
    @classmethod
    def _written_out(cls, given: Any, info: ValidationInfo) -> Any:
        if not {"data", "diffusion", "train", "evaluation"} <= info.data.keys():
            return given  # refused already
        data, diffusion, train = (info.data[name] for name in ("data", "diffusion", "train"))
        fitted = partial(fit_evaluation, data=data, diffusion=diffusion, train=train)
        try:
            evaluation = fitted(info.data["evaluation"])
        except ValueError:
            return ()  # `_parts_fit` says so
        return written_out(given, evaluation, train.kept_steps(), fitted)

    @field_validator("evaluation")
    @classmethod
    def _average_is_kept(cls, evaluation: EvaluationConfig, info: ValidationInfo) -> EvaluationConfig:
        train: TrainConfig | None = info.data.get("train")  # None: refused already
        ema = averages.checked(evaluation.ema, train, train.kept_steps()) if train else evaluation.ema
        return evaluation if ema == evaluation.ema else evaluation.model_copy(update={"ema": ema})

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
            fit_evaluation(self.evaluation, self.data, self.diffusion, self.train)
        except ValueError as error:
            raise ValueError(f"evaluation.{error}") from None
        return self

    @property
    def evaluations(self) -> tuple[EvaluationConfig, ...]:
        """All that kept steps are scored by: `evaluation` first, then `scores`."""
        changed = [{key: value for key, value in score.items() if key != KEPT_STEPS} for score in self.scores]
        return (self.evaluation, *(self.evaluation.model_copy(update=changes) for changes in changed))

    def wanted_scores(self) -> list[Score]:
        """All scores that the run makes: by step, then in the order of `evaluations`."""
        kept, own = self.train.kept_steps(), self.evaluation
        found = [Score(step, own, "", "") for step in kept]
        for content, evaluation in zip(self.scores, self.evaluations[1:], strict=True):
            samples = evaluation.samples_id if evaluation.samples_id != own.samples_id else ""
            steps = steps_of(content, kept)
            found += [Score(step, evaluation, evaluation.id, samples) for step in kept if step in steps]
        return sorted(found, key=lambda score: score.step)

    def wanted_samples(self) -> list[tuple[EvaluationConfig, int]]:
        """Those of `evaluations` that have samples of their own, and at how many kept steps."""
        scores = {(score.step, score.samples): score for score in reversed(self.wanted_scores())}
        steps = Counter(samples for _, samples in scores)
        first = {score.samples: score.evaluation for score in scores.values()}
        return [(first[samples], steps[samples]) for samples in reversed(steps)]

    @property
    def id(self) -> str:
        """Ten hex digits of the SHA-256 of the non-default, result-bearing fields."""
        excluded = _NOT_RESULT_BEARING
        if self.train.non_finite == "roll-back":  # where a run goes back to, and from where
            excluded = {**excluded, "train": {"allow_accumulation": True}}
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=excluded)
        content["model"] = self.model.identity()
        content["data"] = {"name": self.data.name, **self.data.non_default()}
        diffusion = self.diffusion.non_default()
        if self.diffusion.objective != DiffusionConfig.model_fields["objective"].default:
            diffusion["objective"] = self.diffusion.objective
        if diffusion:
            content["diffusion"] = diffusion
        return _hash(content)[:10]

    @property
    def folder_name(self) -> str:
        """`S-4-0123456789`: the label made safe for a path, and the id."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.label or self.model.name).strip("-")
        return f"{name[:LONGEST_LABEL]}-{self.id}"


# Of a folder's name, which file systems end at 255 bytes.
LONGEST_LABEL = 200

_NOT_RESULT_BEARING: Any = {
    "label": True,
    "scores": True,
    **dict.fromkeys(("model", "data", "diffusion"), True),  # parts say themselves what they are
    "train": {"log_every": True, "save_every": True, "allow_accumulation": True},
    "evaluation": {"batch_size": True, "decode_batch_size": True},
}


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse_evaluation(**given: Any) -> EvaluationConfig:
    """An evaluation section from a command's options, named as the command line has them.

    Raises:
        InputError: the option, what is wrong and what is accepted.
    """
    try:
        return EvaluationConfig(**given)
    except ValidationError as error:
        raise InputError(by_flag(describe(error, EvaluationConfig))) from None


def by_flag(problem: str) -> str:
    """`key: what is wrong`, of `evaluation`, by the flag of the command line: "--sampler-option eta: ..."."""
    key, colon, what = problem.partition(":")
    key, dot, option = key.partition(".")
    return f"--{'sampler-option ' if dot else key.replace('_', '-')}{option}{colon}{what}"


def fit_evaluation(
    evaluation: EvaluationConfig,
    data: DataConfig,
    diffusion: DiffusionConfig,
    train: TrainConfig,
    steps: Collection[int] | None = None,
) -> EvaluationConfig:
    """An evaluation of kept `steps` (default: all) as it is recorded, if it fits the recipe.

    The average of `train.ema_decay` that is spelled out is the same score as one that is left out.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`.
    """
    facts = data.facts
    check_sampling(evaluation, diffusion)
    taken = EXTRACTORS.find(evaluation.extractor).image_shape
    if taken is not None and taken != facts.image_shape:
        raise ValueError(
            f"extractor: {evaluation.extractor} takes images {taken}, those of {data.name} are "
            f"{facts.image_shape} (C, H, W)"
        )
    for key in ("decoder", "reference"):
        if (getattr(evaluation, key) is not None) != facts.latents:
            raise ValueError(
                f"{key}: {'missing; latents need one' if facts.latents else f'{data.name} brings its own'}"
            )
    if evaluation.kid_subset_size > min(evaluation.num_samples, facts.length):
        raise ValueError(
            f"kid_subset_size: {evaluation.kid_subset_size} is more than num_samples ({evaluation.num_samples}) or the "
            f"reference images ({facts.length})"
        )
    check_guidance(evaluation, train, facts.shape[0])
    ema = averages.checked(evaluation.ema, train, train.kept_steps() if steps is None else steps)
    return evaluation if ema == evaluation.ema else evaluation.model_copy(update={"ema": ema})


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
    network_calls(evaluation, diffusion)


def check_guidance(evaluation: EvaluationConfig, train: TrainConfig, in_channels: int) -> None:
    """Refuse guidance that a run of `train` cannot have: of channels, a null label or a step that it lacks.

    Raises:
        ValueError: `key: what is wrong`, of `evaluation`.
    """
    guided, channels, step = evaluation.guidance_scale != 1, evaluation.guidance_channels, evaluation.guide_step
    if guided and channels is not None and channels > in_channels:
        raise ValueError(f"guidance_channels: {channels} is more than the model's {in_channels}; null is all")
    if evaluation.guide is None and step is not None:
        # Weights that are there whenever a step is scored; scored itself, it is its own guide, which changes nothing.
        first = train.kept_steps()[0]
        if step != first or step == train.steps:
            accepted = f"{first}, the first kept step" if first < train.steps else "the first of train.checkpoint_steps"
            raise ValueError(f"guide_step: {step}; accepted: {accepted}, before the last ({train.steps})")
    elif guided and evaluation.guide is None and train.label_dropout == 0:
        raise ValueError(
            f"guidance_scale: {evaluation.guidance_scale:g} needs a null label, which a model does not "
            "learn with train.label_dropout 0; accepted: a label_dropout above 0, guide or guide_step, or "
            "guidance_scale 1"
        )


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
