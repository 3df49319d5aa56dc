"""Recipes: everything that decides a run's result, checked when read, identified by content.

A recipe's id is the hash of its non-default, result-bearing fields: never of the device, the precision, paths or
speed options. So changing a default here changes what existing ids mean: give new behaviour a new field instead.
`scores` are not in it: more looks at weights change neither these nor other scores, and a finished run can get more.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from bench import averages
from bench.data.captions import told
from bench.errors import InputError
from bench.objectives import OBJECTIVES
from bench.recipe.evaluation import EvaluationConfig, Score, fit_evaluation
from bench.recipe.parts import DataConfig, DiffusionConfig, ModelConfig
from bench.recipe.training import TrainConfig
from bench.schema import BOUND, Section, content_hash, describe, load_yaml
from bench.score.more_scores import KEPT_STEPS, steps_of, written_out
from models.parts import look_in
from models.registry import caption_shape_of


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
        if (captions := caption_shape_of(arch)) != facts.caption_shape:
            raise ValueError(
                f"model: {self.model.name} is told {told(captions)}, but data.name {self.data.name} has "
                f"{told(facts.caption_shape)}; accepted: the same of both"
            )
        if captions is None and arch.num_classes != facts.num_classes:
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
        return content_hash(content)[:10]

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
