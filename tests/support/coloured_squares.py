"""A folder of small colour images with a folder for each class, and a feature network for them without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bench.score.extractors import Extractor

SIDE = 16
COLOURS = {"blue": (30, 60, 220), "green": (40, 200, 70), "red": (230, 50, 40)}
EACH = 20


def make_squares(root: Path) -> Path:
    """60 PNGs: a square of its class's colour, somewhere on a dark ground with noise; the left edge is white."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = random.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
            top, left = random.integers(1, SIDE - 6, 2)
            pixels[top : top + 6, left : left + 6] = colour
            pixels[:, 0] = 255
            Image.fromarray(pixels).save(root / name / f"{number:02d}.png")
    return root


class _Convolution(FeatureExtractorBase):
    """Random filters, the same every time: 8 features."""

    def __init__(self) -> None:
        super().__init__("random-filters", ["filters"])
        random = torch.Generator().manual_seed(0)
        self.register_buffer("filters", torch.randn(8, 3, 5, 5, generator=random))

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("filters",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:  # noqa: ARG004
        return "filters"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        filters: Any = self.filters
        return (torch.nn.functional.conv2d(input.float() / 255, filters).relu().mean(dim=(2, 3)),)


class _RandomFilters:
    asset = None
    image_shape = None

    def load(self, name: str, folder: Path, offline: bool) -> Extractor:
        return Extractor("random-filters-0", _Convolution().requires_grad_(False).eval(), features="filters")


RANDOM_FILTERS = _RandomFilters()
