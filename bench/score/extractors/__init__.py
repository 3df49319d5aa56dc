"""Feature networks by name or dotted path: what samples and real images are compared in.

A network is a part with `asset`, `image_shape` and `load`; see `builtin.py`, and `clips.py` for those of clips.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.pixels import is_clip, layout
from bench.errors import InputError
from models.parts import Seam

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase


ANY_IMAGE = (None, None, None)


@dataclass(frozen=True)
class Extractor:
    """A feature network and the names of its layers.

    Attributes:
        id: name and hash of the weights, part of every score's key.
        network: gives the layers of `network.features_list`, in this order.
        features: the layer of the Fréchet distance, KID, precision and recall.
        spatial: the layer of sFID, if it has one.
        logits: the layer of the Inception Score, if it classifies.
        split_size: samples a split of the Inception Score; None: ten splits (`bench.score.metrics.inception_score`).
        test_accuracy: of a network that the suite trained itself.
        frames: of a network of clips, the layer of its frames' features: (N, T D), frame after frame.
        takes: its part's `image_shape`, where None is any number.
    """

    id: str
    network: FeatureExtractorBase
    features: str
    spatial: str | None = None
    logits: str | None = None
    split_size: int | None = None
    test_accuracy: float | None = None
    frames: str | None = None
    takes: tuple[int | None, ...] = ANY_IMAGE

    def parts(self, layer: str, shape: Sequence[int]) -> int:
        """How many features a row of a layer is, one after the other: of frames T, of images (N, *shape) always 1."""
        return shape[2] if layer == self.frames else 1


EXTRACTORS = Seam(
    noun="extractor",
    key="evaluation.extractor",
    builtin={
        "inception-v3-compat": "bench.score.extractors.builtin:INCEPTION",
        "dinov2-vitl14": "bench.score.extractors.builtin:DINOV2",
        "digits-cnn": "bench.score.extractors.builtin:DIGITS_CNN",
        "digits-cnn-colour": "bench.score.extractors.builtin:DIGITS_CNN_COLOUR",
        "moving-digits-cnn": "bench.score.extractors.clips:MOVING_DIGITS_CNN",
        "frames-inception-v3": "bench.score.extractors.clips:FRAMES_INCEPTION",
    },
    contract=("asset", "image_shape", "load"),
)


def check_takes(name: str, shape: Sequence[int], whose: str) -> None:
    """Refuse images (C, H, W), or clips (C, T, H, W), of which the extractor is not.

    Its `image_shape` is the only one that it takes; None is images of any size, None in it any number.

    Raises:
        ValueError: what it takes, and what these are.
    """
    wanted = _taken(name)
    if not _fit(shape, wanted):
        raise ValueError(f"{name} takes {_said(wanted)}, those of {whose} are {tuple(shape)} {layout(shape)}")


def check_kind(extractor: Extractor | str, shape: Sequence[int], whose: str) -> None:
    """Refuse clips of `whose` for an extractor of images, images for one of clips, and clips of another shape.

    Images of another size are left to the network. An extractor that is named is not loaded.

    Raises:
        InputError: what it takes, and what these are; or there is none of this name.
    """
    try:
        name, wanted = (extractor, _taken(extractor)) if isinstance(extractor, str) else (extractor.id, extractor.takes)
    except ValueError as error:
        raise InputError(str(error)) from None
    if len(shape) == len(wanted) and (not is_clip(shape) or _fit(shape, wanted)):
        return
    raise InputError(f"{name} takes {_said(wanted)}, those of {whose} are {tuple(shape)} {layout(shape)}")


def _taken(name: str) -> tuple[int | None, ...]:
    """An extractor's `image_shape`, where None is any number."""
    taken = EXTRACTORS.find(name).image_shape
    return ANY_IMAGE if taken is None else tuple(taken)


def _fit(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(a in (None, b) for a, b in zip(wanted, shape, strict=True))


def _said(wanted: tuple[int | None, ...]) -> str:
    size = "of any size" if set(wanted) == {None} else str(wanted).replace("None", "any")
    return f"{'clips' if is_clip(wanted) else 'images'} {size}"


def load_extractor(name: str, folder: Path, offline: bool) -> Extractor:
    """The extractor of a recipe, on the CPU; one that the suite trains itself is trained in `folder` if need be.

    Raises:
        InputError: there is none of this name, or the weights are not those of the network.
        MissingAsset: they are not in the cache and cannot be fetched.
    """
    try:
        part = EXTRACTORS.find(name)
    except ValueError as error:
        raise InputError(str(error)) from None
    return replace(part.load(name, folder, offline), takes=_taken(name))
