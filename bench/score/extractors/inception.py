"""InceptionV3 as FID uses it, with ADM's spatial features beside torch-fidelity's.

The network and its preprocessing are torch-fidelity's port of the TensorFlow graph of 2015-12-05: bilinear resizing
to 299 x 299 as TensorFlow 1 does it, (x - 128) / 128, 1008 logits. Its weights come from a local file only, and nothing
in the file is executed. What is computed is theirs, rounded elsewhere: batch normalisations are part of the weights of
convolutions, which lie channels last, as CPUs are fastest with. Features agree with theirs to 1e-5 of their norm, as
they do from one machine to the next.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from bench.score.extractors.weights import check_weights, read_weights

NAME = "ditbench-inception-v3"  # torch-fidelity's registry has its own "inception-v3-compat"

FEATURES = "2048"
LOGITS = "logits_unbiased"  # without the bias, as ADM and torch-fidelity take the Inception Score
SPATIAL = "spatial"
SPATIAL_CHANNELS = 7


class InceptionFeatures(FeatureExtractorBase):
    """torch-fidelity's InceptionV3: uint8 (N, 3, H, W) in, a tuple of the asked features out, float32.

    Its features are those of `FeatureExtractorInceptionV3` and "spatial" (N, 2023): the first 7 channels of the TF
    tensor `mixed_6/conv:0`, 17 x 17 x 7 flattened in TensorFlow's order (h, w, c), which sFID compares
    (Nash et al. 2021, arXiv 2103.03841; these channels: Dhariwal & Nichol 2021, arXiv 2105.05233).

    Raises:
        InputError: the file of weights is missing, of another network, or would have to be unpickled.
    """

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(f"{NAME} needs feature_extractor_weights_path, a file of InceptionV3's weights")
        # "768" is the first feature after the spatial ones: where only those are asked for, the rest is not computed.
        layers = [layer for layer in features_list if layer != SPATIAL] or ["768"]
        self.network = _Network(layers, Path(feature_extractor_weights_path))
        self._spatial: Tensor | None = None
        if SPATIAL in features_list:
            # TensorFlow numbers the blocks mixed, mixed_1, ... in order, so mixed_6 is the seventh:
            # 5b 5c 5d 6a 6b 6c 6d. `mixed_6/conv` is its 1x1 branch, and this name without a further op is what the
            # branch gives to the concatenation: after batch normalisation and ReLU, as the module's output is.
            self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (*FeatureExtractorInceptionV3.get_provided_features_list(), SPATIAL)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return FeatureExtractorInceptionV3.get_default_feature_layer_for_metric(metric)

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        features = self.network.convert_features_tuple_to_dict(self.network(input))
        if self._spatial is not None:
            features[SPATIAL], self._spatial = self._spatial, None
        return tuple(features[name] for name in self.features_list)

    def _keep_spatial(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1).float()


class _Network(FeatureExtractorInceptionV3):
    """torch-fidelity's network with weights that were read without unpickling.

    Its own constructor builds the blocks and then unpickles a file in full or fetches one. What it reads here is a
    copy in memory of tensors that `read_weights` let through.
    """

    def __init__(self, layers: list[str], path: Path) -> None:
        tensors = read_weights(path)
        copy = io.BytesIO()
        torch.save(tensors, copy)
        copy.seek(0)
        try:
            super().__init__("inception-v3-compat", layers, copy)
        except RuntimeError:  # the last thing that it does is to load the tensors into the blocks
            check_weights(tensors, self.state_dict(), path, "inception-v3-compat")
            raise
        for module in self.modules():
            if isinstance(module, BasicConv2d):
                _fold(module)
        self.to(memory_format=torch.channels_last)


def _fold(block: BasicConv2d) -> None:
    """Make a batch normalisation part of its convolution's weights: in float64, then rounded."""
    conv, norm = block.conv, block.bn
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float(), requires_grad=False)
    conv.bias = nn.Parameter(shift.float(), requires_grad=False)
    block.add_module("bn", nn.Identity())


if NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(NAME, InceptionFeatures)
