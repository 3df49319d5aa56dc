"""The sections of a recipe that name a part: model, data and diffusion."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, field_validator, model_validator

from bench.data import Dataset, DatasetFacts, data_part
from bench.errors import InputError
from bench.objectives import OBJECTIVES
from bench.schema import PartSection, describe
from models.registry import FAMILIES, configure, family_of, listed_name

if TYPE_CHECKING:
    import torch

    from bench.data.captions import CaptionBank


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
        """What the network is, for the recipe's id: what is not default, and a family other than the default."""
        arch, family = self.architecture(), family_of(self.name)
        content = {f.name: getattr(arch, f.name) for f in fields(arch) if getattr(arch, f.name) != f.default}
        is_default = family is FAMILIES.find(FAMILIES.default)
        named = self.name.partition("/")[0] if ":" in self.name else family.name  # of one's own: where it is
        return content if is_default else {**content, "family": named}


class DataConfig(PartSection):
    """The training data: a data set's name or dotted path, and its options (see `bench.data`)."""

    name: str

    @classmethod
    def options_type(cls, name: str) -> type:
        return data_part(name).options

    @model_validator(mode="after")
    def _known(self) -> Self:
        shape, captions = self.facts.image_shape, self.facts.caption_shape
        if len(shape) not in (3, 4) or min(shape) < 1:
            sizes = "positive (C, H, W), of clips (C, T, H, W)"
            raise ValueError(f"name: samples of {self.name} are {tuple(shape)}, by its facts; accepted: {sizes}")
        if captions is None:
            return self
        if not isinstance(captions, tuple) or len(captions) != 2 or not all(type(n) is int and n > 0 for n in captions):
            raise ValueError(
                f"name: {self.name}: its facts have the caption_shape {captions!r}; needed: (tokens, channels)"
            )
        if not hasattr(data_part(self.name), "caption_bank"):
            raise ValueError(f"name: {self.name} has captions by its facts; needed: caption_bank, which it lacks")
        return self

    @property
    def facts(self) -> DatasetFacts:
        """What is known of the data without reading them."""
        return data_part(self.name).facts(self.name, self.options)

    def load(self, device: torch.device) -> Dataset:
        """The data; errors as `DataPart.load`."""
        return data_part(self.name).load(self.name, self.options, device)

    def caption_bank(self) -> CaptionBank | None:
        """Its captions; None: it has labels. Errors as `CaptionedPart.caption_bank`."""
        if self.facts.caption_shape is None:
            return None
        return data_part(self.name).caption_bank(self.name, self.options)


class DiffusionConfig(PartSection):
    """What is learned of the noised data: an objective's name or dotted path, and its options."""

    NAME = "objective"

    objective: str = OBJECTIVES.default

    @property
    def id(self) -> str:
        """The objective and what of its options is not default, as one text: "name prediction=velocity"."""
        return " ".join([self.objective, *(f"{key}={value}" for key, value in sorted(self.non_default().items()))])

    @classmethod
    def options_type(cls, name: str) -> type:
        return OBJECTIVES.find(name).options


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
