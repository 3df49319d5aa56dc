"""Small recipes on real digits, that train in a second."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from pydantic import BaseModel

from bench.data.latent_sets import LatentOptions
from bench.objectives.iddpm import IDDPMOptions
from bench.recipe import Recipe, parse_recipe
from bench.schema import PartSection
from models.dit import DiTOptions

TINY: dict[str, Any] = {
    "label": "S/4",
    "model": {
        "name": "DiT",
        "depth": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "patch_size": 4,
        "input_size": 8,
        "in_channels": 1,
        "num_classes": 10,
        "frequency_embedding_size": 16,
    },
    "data": {"name": "digits"},
    "train": {
        "steps": 12,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "ema_decay": 0.9,
        "checkpoint_steps": [6],
        "log_every": 2,
        "save_every": 4,
    },
    "evaluation": {
        "sampling_steps": 4,
        "clip_denoised": True,
        "num_samples": 60,
        "extractor": "digits-cnn",
        "kid_subset_size": 20,
    },
}


# The same on latents of one's own images of 64 pixels; nothing of them is read before training.
LATENTS: dict[str, Any] = {
    "model.in_channels": 4,
    "data.name": "photos",
    "data.vae": "owner/vae",
    "data.length": 64,
    "data.num_classes": 10,
    "data.image_size": 64,
    "evaluation.clip_denoised": False,
    "evaluation.decoder": "owner/decoder",
    "evaluation.reference": "photos",
    "evaluation.extractor": "inception-v3-compat",
}


def tiny(**changes: dict[str, Any] | Any) -> Recipe:
    """The tiny recipe with some keys of its sections (or its label, or its seed) changed."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return parse_recipe(content, "tiny")


def content(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tiny recipe's mapping with dotted keys set."""
    result = copy.deepcopy(TINY)
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        section = result
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = value
    return result


def recipe(changes: dict[str, Any] | None = None) -> Recipe:
    """The tiny recipe with dotted keys set."""
    return parse_recipe(content(changes), "recipe.yaml")


# Options of the parts that the tests' recipes name, as keys of the recipe.
PART_OPTIONS = {"model": DiTOptions, "data": LatentOptions, "diffusion": IDDPMOptions}


def dotted_keys(schema: type[BaseModel], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    if issubclass(schema, PartSection):
        keys |= {f"{prefix}{field.name}" for field in dataclasses.fields(PART_OPTIONS[prefix.rstrip(".")])}
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys |= dotted_keys(inner, f"{prefix}{name}.")
        else:
            keys.add(f"{prefix}{name}")
    return keys
