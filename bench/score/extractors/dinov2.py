"""DINOv2 ViT-L/14 features, for the Fréchet distance of Stein et al. 2023 (arXiv 2306.04675).

FD-DINOv2 as they compute it by default: PIL bicubic resizing to 224 x 224 of each 8-bit image, ImageNet's mean and
standard deviation, the class token after the last normalisation. torch-fidelity's own DINOv2 resizes as TensorFlow 1
does and is not comparable with published values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torchvision.transforms.functional import normalize

from bench.errors import InputError
from bench.score.extractors.weights import check_weights, read_weights

NAME = "dinov2-vitl14"
FEATURES = "class_token"

IMAGE_SIZE = 224
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE
TRAINED_GRID = 37  # the published position tables are for images of 518 x 518
HEAD_SIZE = 64

# ImageNet's, of pixels in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class DINOv2Features(FeatureExtractorBase):
    """uint8 (N, 3, H, W) in, the class token (N, 1024) out, float32.

    The weights are DINOv2's `dinov2_vitl14_pretrain.pth`; depth and width are those of the file.

    Raises:
        InputError: the file of weights is missing, of another network, or would have to be unpickled.
    """

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ) -> None:
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None:
            raise ValueError(f"{NAME} needs feature_extractor_weights_path, a file of DINOv2's weights")
        self.network = _load_network(Path(feature_extractor_weights_path))

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (FEATURES,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return {"fid": FEATURES, "kid": FEATURES, "prc": FEATURES}[metric]  # it does not classify

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        x = resize(input).to(input.device).float() / 255
        return (self.network(normalize(x, list(MEAN), list(STD))),)


def resize(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> uint8 (N, 3, 224, 224) on the CPU, each by PIL's bicubic filter (unchanged if 224 x 224).

    The aspect ratio is not kept; PIL's filter widens where it shrinks, so there is no aliasing.
    """
    pixels = [
        np.asarray(Image.fromarray(image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
        for image in images.permute(0, 2, 3, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def interpolate_positions(table: Tensor) -> Tensor:
    """Position table (1, 1 + 37 * 37, D) -> (1, 1 + 16 * 16, D), as DINOv2's own code does for 224 x 224.

    Bicubic without antialiasing, at the scale (16 + 0.1) / 37: their guard against rounding also moves the points
    where the table is read, so it is part of the features. The class token's row is kept.
    """
    class_token, patches = table[:, :1], table[:, 1:]
    patches = patches.unflatten(1, (TRAINED_GRID, TRAINED_GRID)).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, scale_factor=(GRID + 0.1) / TRAINED_GRID, mode="bicubic")
    return torch.cat([class_token, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _load_network(path: Path) -> torch.nn.Module:
    tensors = {name: tensor.float() for name, tensor in read_weights(path).items()}
    token = tensors.get("cls_token", torch.empty(0))
    width = token.shape[-1] if token.ndim else 0
    if width == 0 or width % HEAD_SIZE:
        raise InputError(f"{path}: not the weights of {NAME}: no cls_token of a width divisible by {HEAD_SIZE}")
    blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    with torch.device("meta"):  # nothing is allocated or initialised for what the file brings
        network = timm.create_model(
            "vit_large_patch14_dinov2",
            pretrained=False,
            num_classes=0,
            img_size=IMAGE_SIZE,
            embed_dim=width,
            depth=max(1, len(blocks)),
            num_heads=width // HEAD_SIZE,
        )
        trained_table = torch.empty(1, 1 + TRAINED_GRID**2, width)
        mask_token = torch.empty(1, width)  # of the training objective; features need none
    expected = network.state_dict() | {"pos_embed": trained_table, "mask_token": mask_token}
    check_weights(tensors, expected, path, NAME)
    del tensors["mask_token"]
    tensors["pos_embed"] = interpolate_positions(tensors["pos_embed"])
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.requires_grad_(False).eval()
