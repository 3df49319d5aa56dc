"""Weights of Inception v3 as FID uses it, seeded and random, in the layout of the published file."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

THEIR_LAYERS = ["64", "192", "768", "2048", "logits_unbiased", "logits"]


class Untrained(FeatureExtractorInceptionV3):
    """torch-fidelity's blocks, without fetching or reading weights."""

    def __init__(self) -> None:
        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        super().__init__("inception-v3-compat", THEIR_LAYERS, nothing)

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        return None


def random_weights() -> dict[str, Tensor]:
    """Values that keep the scale from layer to layer."""
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, tensor in Untrained().state_dict().items():
        if name.endswith("num_batches_tracked"):  # the published file has none
            continue
        noise = torch.randn(tensor.shape, generator=random)
        if tensor.ndim > 1:
            tensors[name] = noise * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            tensors[name] = 1 + 0.2 * noise.abs()
        else:
            tensors[name] = 0.2 * noise
    return tensors
