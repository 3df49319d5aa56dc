"""The section `evaluation` of a recipe, and whether it fits the others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from bench import averages
from bench.data.pixels import is_clip
from bench.errors import InputError
from bench.objectives import OBJECTIVES
from bench.recipe.parts import DataConfig, DiffusionConfig
from bench.recipe.training import TrainConfig
from bench.samplers import SAMPLERS, Labels, network_calls, sampler_id
from bench.schema import Count, PositiveInt, Section, check_options, content_hash, describe
from bench.score.extractors import EXTRACTORS, check_takes
from bench.score.metrics import FID_INFINITY_MIN_SAMPLES, FRAMES, MANY_SAMPLES, find_metrics

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

    sampler: str = SAMPLERS.default
    sampler_options: dict[str, Any] = Field(default={})
    sampling_steps: int = Field(default=250, ge=2, le=100_000)
    clip_denoised: bool = False
    guidance_scale: float = Field(default=1.0, ge=0, le=MOST_GUIDANCE)
    guidance_channels: PositiveInt | None = 3
    num_samples: Count = 50_000
    labels: Labels = "balanced"
    decoder: str | None = None
    reference: str | None = None
    extractor: str = EXTRACTORS.default
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
        """The sampler and its options, as in a score's key: "name", "name eta=0.5"."""
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
        return content_hash(content)[:8]


_NOT_OF_THE_KEY = {"batch_size", "decode_batch_size", "metrics"}
_NOT_OF_THE_SAMPLES = {"reference", "extractor", "kid_subset_size"}


class Score(NamedTuple):
    """One score of a run.

    Attributes:
        step: the kept step whose weights it is of.
        name: empty for that of `evaluation`, else the id of one of `scores`.
        samples: empty for the samples of `evaluation`, else the id of others.
        seed: of the samples; None: the run's.
        best_of: among how many it was chosen by a search (`bench.score.search`); None: it was not.
    """

    step: int
    evaluation: EvaluationConfig
    name: str
    samples: str
    seed: int | None = None
    best_of: int | None = None


# What a score's row and its run's say beside the metrics.
_OTHER_COLUMNS = {
    *EvaluationConfig.model_fields,
    *("step", "weights", "extractor_accuracy", "reference_statistics", "sampling_images_per_s", "samples", "time"),
    *("network_calls", "sampling_gmacs", "post_hoc", "best_of"),
    *("run", "label", "family", "model", "size", "patch", "hidden_size", "depth", "num_heads", "input_size"),
    *("block", "seed", "gmacs", "loss", "score"),
}


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
    try:
        check_takes(evaluation.extractor, facts.image_shape, data.name)
    except ValueError as error:
        raise ValueError(f"extractor: {error}") from None
    if not is_clip(facts.image_shape):
        for name, metric in find_metrics(evaluation.metrics).items() if evaluation.metrics is not None else ():
            if FRAMES in metric.needs:
                raise ValueError(f"metrics: {name} needs {FRAMES}, which the images of {data.name} have not")
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
