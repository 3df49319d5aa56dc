"""A family and a feature network of clips as a user's own file, small enough to train and score in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PARTS = '''
from dataclasses import dataclass

import torch
from torch import nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bench.score.extractors import Extractor
from models.registry import Count, Family


@dataclass(frozen=True)
class Options:
    frames: int = 8
    input_size: int = 12
    in_channels: int = 1
    num_classes: int = 10


@dataclass(frozen=True)
class Config(Options):
    @property
    def input_shape(self):
        return self.in_channels, self.frames, self.input_size, self.input_size

    @property
    def out_channels(self):
        return self.in_channels

    num_tokens = 8
    depth = 1
    columns = {"depth": 1}


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.Conv3d(config.in_channels, config.in_channels, 3, padding=1)
        self.labels = nn.Embedding(config.num_classes + 1, 1)

    def forward(self, x, t, labels):
        return self.layer(x) + self.labels(labels)[:, :, None, None, None]


FAMILY = Family(
    name="conv-clips",
    presets={},
    options=Options,
    resolve=lambda preset, options: Config(**vars(options)),
    build=Net,
    count=lambda config: Count(27 * 8 * 12 * 12, 39),
)


class Network(FeatureExtractorBase):
    """Of frames means of squares of 4x4 pixels, and of clips their means and how much they change."""

    def __init__(self):
        super().__init__("squares", ["clip", "frames"])

    @staticmethod
    def get_provided_features_list():
        return "clip", "frames"

    def forward(self, input):
        squares = nn.functional.avg_pool3d(input[:, :1].float() / 255, (1, 4, 4)).squeeze(1).flatten(2)
        change = (squares[:, 1:] - squares[:, :-1]).abs()
        return torch.cat([squares.mean(1), change.mean(1)], dim=1), squares.flatten(1)


class Squares:
    asset = None
    image_shape = (1, 8, 12, 12)

    def load(self, name, folder, offline):
        return Extractor("squares-1", Network(), features="clip", frames="frames")


class AnySquares(Squares):
    image_shape = (None, None, None, None)


SQUARES, ANY_SQUARES = Squares(), AnySquares()
'''


def write(folder: Path) -> Path:
    """Put the parts, and a recipe of them, into a folder; returns the recipe's path."""
    (folder / "clip_parts.py").write_text(PARTS)
    path = folder / "clips.yaml"
    path.write_text(yaml.safe_dump(recipe()))
    return path


def recipe(**sections: dict[str, Any]) -> dict[str, Any]:
    """Clips by the parts above, or by others; `sections` replace keys."""
    whole: dict[str, dict[str, Any]] = {
        "model": {"name": "clip_parts:FAMILY"},
        "data": {"name": "moving-digits"},
        "diffusion": {"objective": "flow"},
        "train": {"steps": 4, "batch_size": 8, "checkpoint_steps": [2, 4], "log_every": 2, "save_every": 2},
        "evaluation": {
            "sampler": "euler",
            "sampling_steps": 2,
            "num_samples": 60,
            "kid_subset_size": 20,
            "extractor": "clip_parts:SQUARES",
        },
    }
    return {name: {**content, **sections.get(name, {})} for name, content in whole.items()}
