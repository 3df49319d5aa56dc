"""An image file: what is opened, what is refused, and why, in one line. One rule for training data and for samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image

from bench.errors import InputError
from bench.files.names import shown

# As many as Pillow warns of, whatever it was set to meanwhile: a small file may declare gigabytes.
MOST_PIXELS = 89_478_485
# What the endings of `bench.data.walk` stand for. Pillow reads more, some by starting other programs (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "PPM", "TIFF", "GIF", "WEBP", "AVIF", "JPEG2000")
# Bytes as they are, and what becomes RGB as ADM's loader converts it. Not I;16, I or F: Pillow would cut their values
# off at 255, and what their black and white are, nothing says.
EXACT = ("L", "RGB")
CONVERTED = (*EXACT, "1", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ACCEPTED = {EXACT: "L (8-bit grey), RGB (8 bits a channel)", CONVERTED: "8 bits a channel, grey or colour"}

T = TypeVar("T")


class UnreadableImage(Exception):
    """An image file that cannot be decoded: why, in one line."""

    def at(self, path: Path) -> InputError:
        """The same with the file's path, to end a command with."""
        return InputError(f"{path}: cannot be read as an image ({self})")


class RefusedImage(UnreadableImage):
    """An image file that could be decoded, but is none that is taken."""

    def at(self, path: Path) -> InputError:
        return InputError(f"{path}: {self}")


def read_header(path: Path, modes: tuple[str, ...]) -> tuple[str, tuple[int, int]]:
    """Mode and size (width, height) of an image file whose mode is one of `modes`; its pixels are not decoded.

    Raises:
        UnreadableImage: it is missing or no image.
        RefusedImage: it is an animation, too large, or of another mode.
    """
    return _opened(path, modes, lambda image: (image.mode, image.size))


def decode(path: Path, modes: tuple[str, ...], to: str) -> Image.Image:
    """An image file whose mode is one of `modes`, converted to the mode `to`.

    Raises:
        UnreadableImage, RefusedImage: as `read_header`, or it is damaged.
    """
    return _opened(path, modes, lambda image: image.convert(to))


def _opened(path: Path, modes: tuple[str, ...], then: Callable[[Image.Image], T]) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, of transparency that is dropped, of sizes refused below
            with Image.open(path, formats=FORMATS) as image:
                problem = _problem(image, modes)
                if problem is None:
                    return then(image)
    except Exception as error:  # PIL's decoders raise what they come upon: OSError, SyntaxError, ValueError, ...
        reason = str(error).replace(repr(str(path)), repr(path.name)).replace(str(path), path.name)
        raise UnreadableImage(f"{type(error).__name__}: {shown(' '.join(reason.split())) or 'damaged'}") from None
    raise RefusedImage(problem)


def _problem(image: Image.Image, modes: tuple[str, ...]) -> str | None:
    width, height = image.size
    if not 0 < width * height <= MOST_PIXELS:
        return f"{width} x {height} pixels; accepted: 1 to {MOST_PIXELS:,} of them"
    # A telephone's JPEG may have a second picture behind the first (MPO), which is no animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return f"{image.format} of {getattr(image, 'n_frames', 'several')} images; accepted: one image a file"
    if image.mode not in modes:
        return f"mode {image.mode}; accepted: {ACCEPTED[modes]}"
    return None
