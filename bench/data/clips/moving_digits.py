"""Moving digits: 4,000 clips of 8 frames of 12x12, composed of scikit-learn's digits when they are asked for.

A digit of 8x8 moves with a constant velocity, 1 or 2 pixels a frame along each axis, and bounces off the borders; in
the manner of Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681), with one digit and whole pixels. Clip i is of
class i modulo 10; which digit of the class, where it starts and where it goes is a function of i alone. Importing this
module imports no torch.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from bench.data import DatasetFacts, PixelDataset
from bench.data.digits import DIGITS
from bench.errors import InputError
from models.parts import NoOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LENGTH = 4000
FRAMES = 8
SIDE = 12
DIGIT = 8
NUM_CLASSES = 10
SHAPE = (1, FRAMES, SIDE, SIDE)
SPEEDS = (-2, -1, 1, 2)  # pixels a frame along an axis
# Of all pixels and labels: scores of other clips under this name would look comparable.
SHA256 = "720f89f32f580523acc926fb41c82502be35eee50bb6e8b44d8ed1dc9825da96"


class Motion(NamedTuple):
    """What clip i shows: which image of the digits, from where, and how fast, in pixels, (y, x)."""

    image: int
    start: tuple[int, int]
    velocity: tuple[int, int]

    def places(self) -> list[tuple[int, int]]:
        """The upper left corner of the digit in each frame."""
        return [
            (_bounced(self.start[0] + frame * self.velocity[0]), _bounced(self.start[1] + frame * self.velocity[1]))
            for frame in range(FRAMES)
        ]


@cache
def motions() -> tuple[Motion, ...]:
    """Of all clips, in order."""
    _, labels = DIGITS.images("digits", NoOptions())
    of_class = [[image for image, label in enumerate(labels) if label == wanted] for wanted in range(NUM_CLASSES)]
    return tuple(_motion(index, of_class[index % NUM_CLASSES]) for index in range(LENGTH))


@cache
def compose() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All clips (4000, 1, 8, 12, 12) and labels (4000,), which are not to be written to.

    Raises:
        InputError: the digits cannot be read, or what is made of them is not what all studies have.
    """
    import numpy as np

    digits, _ = DIGITS.images("digits", NoOptions())
    clips = np.zeros((LENGTH, *SHAPE), np.uint8)
    for clip, motion in zip(clips, motions(), strict=True):
        for frame, (y, x) in zip(clip[0], motion.places(), strict=True):
            frame[y : y + DIGIT, x : x + DIGIT] = digits[motion.image, 0]
    labels = np.arange(LENGTH, dtype=np.int64) % NUM_CLASSES
    digest = hashlib.sha256(clips.data)
    digest.update(labels.astype("<i8").data)
    if digest.hexdigest() != SHA256:
        found = digest.hexdigest()[:8]
        raise InputError(
            f"data.name: moving-digits: the clips made here have the SHA-256 {found}, those of all studies {SHA256[:8]}"
        )
    for array in (clips, labels):
        array.setflags(write=False)
    return clips, labels


class _MovingDigits(PixelDataset):
    def facts(self, name: str, options: NoOptions) -> DatasetFacts:
        return DatasetFacts(LENGTH, shape=SHAPE, image_shape=SHAPE, num_classes=NUM_CLASSES)

    def images(self, name: str, options: NoOptions) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return compose()


def _motion(index: int, images: list[int]) -> Motion:
    """By the SHA-256 of the index, which no version of a library's generator changes."""
    digest = hashlib.sha256(f"moving-digits {index}".encode()).digest()
    image, y, x, vy, vx = (int.from_bytes(digest[4 * place : 4 * place + 4], "little") for place in range(5))
    places = SIDE - DIGIT + 1
    velocity = SPEEDS[vy % len(SPEEDS)], SPEEDS[vx % len(SPEEDS)]
    return Motion(images[image % len(images)], (y % places, x % places), velocity)


def _bounced(place: int) -> int:
    """A place on an endless line, folded to 0 .. 4, where the digit is within the frame."""
    most = SIDE - DIGIT
    return most - abs(place % (2 * most) - most)


MOVING_DIGITS = _MovingDigits()
