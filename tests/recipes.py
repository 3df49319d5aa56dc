"""Small recipes on real digits, that train in a second."""

from __future__ import annotations

from typing import Any

from bench.recipe import Recipe, parse_recipe

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


def tiny(**changes: dict[str, Any] | Any) -> Recipe:
    """The tiny recipe with some keys of its sections (or its label, or its seed) changed."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in TINY.items()}
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return parse_recipe(content, "tiny")
