"""Features of clips by a network of images: those of each frame, and their mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

MEAN = "mean"
FRAMES = "frames"


class FrameFeatures(FeatureExtractorBase):
    """uint8 (N, 3, T, H, W) in, the mean (N, D) over frames of the first layer of `network`, and all, (N, T D), out."""

    def __init__(self, name: str, network: FeatureExtractorBase) -> None:
        super().__init__(name, [MEAN, FRAMES])
        self.network = network

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return MEAN, FRAMES

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:  # noqa: ARG004
        return MEAN

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        # A frame of all clips at a time: a batch of clips is a large one of images.
        frames = torch.stack([self.network(frame.contiguous())[0] for frame in input.unbind(2)], dim=1)
        return frames.mean(dim=1), frames.flatten(1)
