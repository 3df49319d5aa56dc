"""Metrics of clips by the features of their frames: what frames look like, and how they follow one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.score.metrics import FRAMES, REFERENCE_IMAGES, Compared

if TYPE_CHECKING:
    from torch import Tensor

    from bench.score.features import Features


@dataclass(frozen=True)
class _OfClips:
    columns: Mapping[str, str]
    needs: tuple[str, ...]
    compute: Callable[[Compared], dict[str, float]]
    lower_is_better: bool = True


def consistency(frames: Tensor) -> float:
    """Mean cosine similarity of the features of consecutive frames, (N, T, D), in float64.

    The frame consistency of Esser et al. 2023 (arXiv 2302.03011, Sec. 4), there of CLIP's features. A clip that stands
    still, or has one frame, has 1: so it is read beside that of real clips.
    """
    import torch.nn.functional as F

    if frames.shape[1] == 1:
        return 1.0

    frames = frames.double()
    return float(F.cosine_similarity(frames[:, 1:], frames[:, :-1], dim=2).mean())


def _frame_fid(compared: Compared) -> dict[str, float]:
    from bench.score.frechet import frechet_distance

    layer, parts = _layer(compared), compared.samples.shape[2]
    return {"frame_fid": frechet_distance(compared.sample_layers.gaussian(layer, parts), compared.gaussians[layer])}


def _temporal_consistency(compared: Compared) -> dict[str, float]:
    assert compared.reference_layers is not None
    layer, parts = _layer(compared), compared.samples.shape[2]
    return {
        "temporal_consistency": _mean(compared.sample_layers, layer, parts),
        "temporal_consistency_real": _mean(compared.reference_layers, layer, parts),
    }


def _mean(features: Features, layer: str, parts: int) -> float:
    """Over chunks, so that no more than one of them is in memory."""
    found = [(len(chunk), consistency(chunk.reshape(len(chunk), parts, -1))) for chunk in features.chunks(layer)]
    return sum(number * value for number, value in found) / sum(number for number, _ in found)


def _layer(compared: Compared) -> str:
    assert compared.extractor.frames is not None
    return compared.extractor.frames


# Of the frames of all clips, whatever their order.
FRAME_FID = _OfClips({"frame_fid": "Fréchet distance of frames"}, (FRAMES,), _frame_fid)
# temporal_consistency_real: that of the reference's clips.
TEMPORAL_CONSISTENCY = _OfClips(
    {"temporal_consistency": "Temporal consistency"},
    (FRAMES, REFERENCE_IMAGES),
    _temporal_consistency,
    lower_is_better=False,
)
