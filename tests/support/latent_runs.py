"""Runs on latents, made by hand with random weights, and the autoencoder that belongs to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file

import models
from bench.files import checkpoint
from bench.files.run_folder import weights_path, write_config
from bench.recipe import Recipe, parse_recipe
from models.transformer import DiT

MODEL = {"name": "DiT", "depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 2, "image_size": 64}


def save_vae(folder: Path, latent_channels: int) -> None:
    kind = "EncoderBlock2D"
    build: Any = AutoencoderKL  # its annotations say tuples of one
    build(
        down_block_types=(f"Down{kind}",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
    ).save_pretrained(folder)


def recipe_of(vae: Path, num_classes: int = 3, timesteps: int = 1000, **model: Any) -> Recipe:
    content = {
        "label": "tiny",
        "model": MODEL | {"num_classes": num_classes} | model,
        "data": {"name": "shapes", "vae": str(vae), "length": 5000, "num_classes": num_classes, "image_size": 64},
        "diffusion": {"timesteps": timesteps},
        "train": {"steps": 20, "checkpoint_steps": [10], "batch_size": 8},
        "evaluation": {"decoder": str(vae), "reference": "shapes", "num_samples": 2000, "sampling_steps": 20},
    }
    return parse_recipe(content, "recipe.yaml")


def make_run(folder: Path, recipe: Recipe, steps: tuple[int, ...] = (10, 20)) -> Path:
    """A run's folder with random weights, as after training and one score."""
    write_config(recipe, folder)
    for step in steps:
        torch.manual_seed(step)
        model = models.create_model(**recipe.model.arguments())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.1)
            # Averaging a constant may change its last digit: the table is part of the weights.
            model.pos_embed.mul_(1 + 2**-20)
        checkpoint.save_tensors(weights_path(folder / "checkpoints", step), model.state_dict())
    rows = [evaluation(step) for step in steps]
    (folder / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sessions = [{"commit": "0123456789ab"}, {"commit": "c0ffee"}]
    (folder / "sessions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sessions))
    return folder


def evaluation(step: int) -> dict[str, Any]:
    key = {"step": step, "weights": "ema", "sampler": "ddpm", "sampling_steps": 250, "guidance_channels": None}
    scores = {"fid": 12.5 + step, "kid": 0.25, "inception_score": None}
    return key | {"reference": "shapes-5000-01234567", "extractor": "inception-v3-compat-6726825d"} | scores


def load_model(recipe: Recipe, run: Path, step: int) -> DiT:
    model = models.create_model(**recipe.model.arguments())
    model.load_state_dict(load_file(weights_path(run / "checkpoints", step)), strict=True)
    return model.eval()
